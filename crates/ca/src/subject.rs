//! Subject names of authorities and SVIDs.
//!
//! No SPIFFE rule looks at a subject: it is there for people and old software. Each attribute type occurs at most once
//! and keeps to the bounds of RFC 5280 appendix A, so that strict validators have nothing to say.

use rcgen::{DistinguishedName, DnType, DnValue};
use spindle_spiffe_core::DnsName;
use x509_parser::x509::X509Name;

/// The longest common name, in characters (ub-common-name, RFC 5280 appendix A).
pub const COMMON_NAME_MAX: usize = 64;

/// The most attributes taken from a request's subject: there are fewer kinds of attribute in use.
const ATTRIBUTES_MAX: usize = 16;

const COUNTRY: &[u64] = &[2, 5, 4, 6];
const ORGANIZATION: &[u64] = &[2, 5, 4, 10];
const COMMON_NAME: &[u64] = &[2, 5, 4, 3];
const SERIAL_NUMBER: &[u64] = &[2, 5, 4, 5];
const LOCALITY: &[u64] = &[2, 5, 4, 7];
const PROVINCE: &[u64] = &[2, 5, 4, 8];
const STREET: &[u64] = &[2, 5, 4, 9];
const UNIT: &[u64] = &[2, 5, 4, 11];
const POSTAL_CODE: &[u64] = &[2, 5, 4, 17];

/// The subject of a self-signed authority. An empty text leaves its attribute out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaSubject {
    /// Two letters.
    pub country: String,
    /// At most 64 characters.
    pub organization: String,
    /// At most 64 characters.
    pub common_name: String,
}

/// The subject of an SVID before its common name is set from the first DNS name. The default is SPIRE's, C=US, O=SPIRE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SvidSubject {
    attributes: Vec<(&'static [u64], String)>,
}

/// Why a subject is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// A country that is not two letters.
    #[error("the country of a subject is two letters, not {0:?}")]
    Country(String),
    /// A value that is empty or longer than its bound.
    #[error("{name} of a subject has 1 to {max} characters, this one has {length}")]
    Length {
        /// Name of the attribute.
        name: &'static str,
        /// The bound.
        max: usize,
        /// Length of the value.
        length: usize,
    },
    /// One attribute type twice.
    #[error("{0} occurs twice in the subject")]
    Repeated(&'static str),
    /// A value that is no printable or UTF-8 text.
    #[error("{0} of the subject is neither a PrintableString nor a UTF8String")]
    NotText(&'static str),
    /// Too many attributes.
    #[error("a subject has at most {ATTRIBUTES_MAX} attributes")]
    TooMany,
}

impl Default for CaSubject {
    /// SPIRE's default, C=US, O=SPIFFE.
    fn default() -> Self {
        Self { country: "US".into(), organization: "SPIFFE".into(), common_name: String::new() }
    }
}

impl CaSubject {
    /// Checks the bounds, so that a configuration fault shows at start and not at the first rotation.
    ///
    /// # Errors
    /// When a value is out of its bounds.
    pub fn check(&self) -> Result<(), SubjectError> {
        self.parts().try_for_each(|(kind, text)| check_value(kind, text))
    }

    fn parts(&self) -> impl Iterator<Item = (&'static [u64], &str)> {
        let parts =
            [(COUNTRY, &self.country), (ORGANIZATION, &self.organization), (COMMON_NAME, &self.common_name)];
        parts.into_iter().filter(|(_, text)| !text.is_empty()).map(|(kind, text)| (kind, text.as_str()))
    }

    /// The whole name. The certificate's serial number in it tells apart authorities that share all else, as SPIRE does.
    pub(crate) fn to_name(&self, serial: u128) -> Result<DistinguishedName, SubjectError> {
        self.check()?;
        let mut name = DistinguishedName::new();
        for (kind, text) in self.parts() {
            name.push(name_type(kind), value_of(text));
        }
        name.push(name_type(SERIAL_NUMBER), value_of(&serial.to_string()));
        Ok(name)
    }
}

impl Default for SvidSubject {
    fn default() -> Self {
        Self { attributes: vec![(COUNTRY, "US".into()), (ORGANIZATION, "SPIRE".into())] }
    }
}

impl SvidSubject {
    /// No attribute at all. The SAN extension of such a certificate is critical (X509-SVID 3.1).
    pub fn empty() -> Self {
        Self { attributes: Vec::new() }
    }

    /// Whether there is no attribute.
    pub fn is_empty(&self) -> bool {
        self.attributes.is_empty()
    }

    /// Reads the subject of a certificate request or certificate. Attributes of a type that is not copied are left out, as SPIRE does. Other
    /// than there, a subject with one attribute type twice is refused, not shortened: it would say something else.
    pub(crate) fn from_name(name: &X509Name<'_>) -> Result<Self, SubjectError> {
        let mut subject = Self::empty();
        for attribute in name.iter_attributes() {
            let oid = attribute.attr_type().to_id_string();
            let Some(kind) = kind_of(&oid) else { continue };
            let text = attribute.as_str().map_err(|_| SubjectError::NotText(label(kind)))?;
            check_value(kind, text)?;
            if subject.attributes.iter().any(|(other, _)| *other == kind) {
                return Err(SubjectError::Repeated(label(kind)));
            }
            if subject.attributes.len() == ATTRIBUTES_MAX {
                return Err(SubjectError::TooMany);
            }
            subject.attributes.push((kind, text.to_owned()));
        }
        Ok(subject)
    }

    /// The same with this organizational unit in place of any other, where Go writes it.
    pub(crate) fn with_unit(mut self, unit: String) -> Self {
        self.attributes.retain(|(kind, _)| *kind != UNIT);
        let is_before = |kind: &[u64]| kind == COUNTRY || kind == ORGANIZATION;
        let at = self.attributes.iter().rposition(|(kind, _)| is_before(kind)).map_or(0, |last| last + 1);
        self.attributes.insert(at, (UNIT, unit));
        self
    }

    /// The whole name: the first DNS name becomes the common name, in place of any other.
    ///
    /// A DNS name longer than [`COMMON_NAME_MAX`] stays in the SAN only; SPIRE writes it in breach of RFC 5280, and
    /// nobody has to look at it since RFC 6125.
    pub(crate) fn to_name(&self, dns_names: &[DnsName]) -> DistinguishedName {
        let first = dns_names.first().map(DnsName::as_str).filter(|name| name.len() <= COMMON_NAME_MAX);
        let mut name = DistinguishedName::new();
        for (kind, text) in &self.attributes {
            name.push(name_type(kind), value_of(text));
        }
        if let Some(common_name) = first {
            name.push(DnType::CommonName, value_of(common_name));
        }
        name
    }
}

/// PrintableString where the text fits its alphabet, else UTF8String: the two that RFC 5280 4.1.2.4 leaves.
fn value_of(text: &str) -> DnValue {
    match text.try_into() {
        Ok(printable) => DnValue::PrintableString(printable),
        Err(_) => DnValue::Utf8String(text.to_owned()),
    }
}

fn name_type(kind: &[u64]) -> DnType {
    DnType::from_oid(kind)
}

fn check_value(kind: &'static [u64], text: &str) -> Result<(), SubjectError> {
    if kind == COUNTRY {
        let letters = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_alphabetic());
        return if letters { Ok(()) } else { Err(SubjectError::Country(text.chars().take(40).collect())) };
    }
    let max = if kind == LOCALITY || kind == PROVINCE || kind == STREET { 128 } else { COMMON_NAME_MAX };
    match text.chars().count() {
        length if (1..=max).contains(&length) => Ok(()),
        length => Err(SubjectError::Length { name: label(kind), max, length }),
    }
}

fn kind_of(oid: &str) -> Option<&'static [u64]> {
    Some(match oid {
        "2.5.4.3" => COMMON_NAME,
        "2.5.4.5" => SERIAL_NUMBER,
        "2.5.4.6" => COUNTRY,
        "2.5.4.7" => LOCALITY,
        "2.5.4.8" => PROVINCE,
        "2.5.4.9" => STREET,
        "2.5.4.10" => ORGANIZATION,
        "2.5.4.11" => UNIT,
        "2.5.4.17" => POSTAL_CODE,
        _ => return None,
    })
}

fn label(kind: &[u64]) -> &'static str {
    match kind {
        COUNTRY => "the country",
        ORGANIZATION => "the organization",
        COMMON_NAME => "the common name",
        SERIAL_NUMBER => "the serial number",
        LOCALITY => "the locality",
        PROVINCE => "the province",
        STREET => "the street address",
        UNIT => "the organizational unit",
        POSTAL_CODE => "the postal code",
        _ => "an attribute",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(name: &DistinguishedName) -> Vec<(DnType, DnValue)> {
        name.iter().map(|(kind, value)| (kind.clone(), value.clone())).collect()
    }

    #[test]
    fn the_default_svid_subject_is_spires() {
        let name = SvidSubject::default().to_name(&[]);
        let expected = [(DnType::CountryName, value_of("US")), (DnType::OrganizationName, value_of("SPIRE"))];
        assert_eq!(texts(&name), expected);
        assert!(matches!(name.get(&DnType::CountryName), Some(DnValue::PrintableString(_))));
    }

    #[test]
    fn the_first_dns_name_becomes_the_common_name_if_it_fits() {
        let names: Vec<DnsName> = vec!["*.web.example".parse().unwrap(), "other.example".parse().unwrap()];
        let name = SvidSubject::default().to_name(&names);
        assert_eq!(name.get(&DnType::CommonName), Some(&DnValue::Utf8String("*.web.example".into())));
        let long: DnsName = format!("{}.{}", "a".repeat(60), "b".repeat(10)).parse().unwrap();
        assert_eq!(SvidSubject::default().to_name(&[long]).get(&DnType::CommonName), None);
    }

    #[test]
    fn a_ca_subject_out_of_bounds_is_refused() {
        let with = |country: &str, organization: &str, common_name: &str| CaSubject {
            country: country.into(),
            organization: organization.into(),
            common_name: common_name.into(),
        };
        for subject in
            [with("USA", "a", ""), with("U1", "a", ""), with("ü", "", ""), with("", &"o".repeat(65), "")]
        {
            assert!(subject.check().is_err() && subject.to_name(1).is_err(), "{subject:?}");
        }
        assert!(with("", "", &"c".repeat(65)).check().is_err());
        assert!(with("DE", &"ö".repeat(64), &"c".repeat(64)).check().is_ok());
    }

    #[test]
    fn a_ca_subject_is_never_empty_and_names_its_serial() {
        let nothing =
            CaSubject { country: String::new(), organization: String::new(), common_name: String::new() };
        let expected = (
            DnType::CustomDnType(SERIAL_NUMBER.to_vec()),
            value_of("340282366920938463463374607431768211455"),
        );
        assert_eq!(texts(&nothing.to_name(u128::MAX).unwrap()), [expected]);
    }
}
