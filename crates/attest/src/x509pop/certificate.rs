//! What is read out of a node's own certificate: names, number, key, addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rustls_pki_types::CertificateDer;
use spindle_spiffe_core::PublicKey;
use spindle_spiffe_core::certificate::CERTIFICATE_BYTES_MAX;
use spindle_spiffe_core::public_key::PublicKeyError;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as ParsedKey;
use x509_parser::x509::X509Name;

use super::roots::{fingerprint, hex};

/// Facts of a leaf certificate.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) fingerprint: String,
    /// Lower-case hex with an even number of digits.
    pub(super) serial_hex: String,
    pub(super) subject: Name,
    pub(super) issuer: Name,
    pub(super) uris: Vec<String>,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) may_sign: bool,
    pub(super) key: Result<PublicKey, PublicKeyError>,
}

/// Parts of a distinguished name; empty when it has none. Of several the last one counts, as in Go.
#[derive(Debug, Default)]
pub(super) struct Name {
    pub(super) common_name: String,
    pub(super) serial_number: String,
}

impl Leaf {
    /// None when the certificate cannot be read: not DER, an extension that is malformed or occurs twice, a negative number.
    pub(super) fn parse(der: &CertificateDer<'_>) -> Option<Self> {
        let certificate = parse(der)?;
        let serial = certificate.raw_serial();
        if serial.first().is_none_or(|first| first & 0x80 != 0) {
            return None;
        }
        let key_usage = certificate.key_usage().ok()?;
        let mut leaf = Self {
            fingerprint: fingerprint(der),
            serial_hex: serial_hex(serial),
            subject: Name::of(certificate.subject()),
            issuer: Name::of(certificate.issuer()),
            uris: Vec::new(),
            addresses: Vec::new(),
            may_sign: key_usage.is_some_and(|usage| usage.value.digital_signature()),
            key: PublicKey::from_spki_der(certificate.public_key().raw),
        };
        let names = certificate.subject_alternative_name().ok()?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::URI(uri) => leaf.uris.push((*uri).to_owned()),
                GeneralName::IPAddress(bytes) => leaf.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        Some(leaf)
    }

    /// The facts in names `x509pop://TRUST-DOMAIN/KEY/VALUE`; of several with one key the last one counts, as in SPIRE.
    pub(super) fn san_selectors(&self, trust_domain: &str) -> BTreeMap<String, String> {
        let prefix = format!("x509pop://{trust_domain}/");
        let fact = |uri: &String| {
            let path = uri.strip_prefix(&prefix)?;
            let path = percent_decoded(path.split(['?', '#']).next()?)?;
            let (key, value) = path.trim_matches('/').split_once('/')?;
            Some((key.to_owned(), value.to_owned()))
        };
        self.uris.iter().filter_map(fact).collect()
    }
}

impl Name {
    fn of(name: &X509Name<'_>) -> Self {
        let text = |attribute: Option<&x509_parser::x509::AttributeTypeAndValue<'_>>| {
            attribute.and_then(|attribute| attribute.as_str().ok()).unwrap_or_default().to_owned()
        };
        let serial = name.iter_by_oid(&x509_parser::oid_registry::OID_X509_SERIALNUMBER).last();
        Self { common_name: text(name.iter_common_name().last()), serial_number: text(serial) }
    }
}

/// Bits of the RSA key in a certificate; none for other keys. The outer none is a certificate that cannot be read.
#[expect(clippy::option_option, reason = "unreadable and another kind of key are two answers")]
pub(super) fn rsa_bits(der: &CertificateDer<'_>) -> Option<Option<usize>> {
    match parse(der)?.public_key().parsed() {
        Ok(ParsedKey::RSA(key)) => Some(Some(key.key_size())),
        _ => Some(None),
    }
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    if der.len() > CERTIFICATE_BYTES_MAX {
        return None;
    }
    X509Certificate::from_der(der)
        .ok()
        .filter(|(rest, _)| rest.is_empty())
        .map(|(_, certificate)| certificate)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from).ok();
    four.or_else(|| <[u8; 16]>::try_from(bytes).map(IpAddr::from).ok()).map(|address| address.to_canonical())
}

fn serial_hex(big_endian: &[u8]) -> String {
    let zeros = big_endian.iter().take_while(|&&byte| byte == 0).count();
    let digits = hex(&big_endian[zeros..]);
    if digits.is_empty() { "00".into() } else { digits }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = tail;
            continue;
        }
        let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_printed_with_an_even_number_of_digits() {
        assert_eq!(serial_hex(&[0, 0x0a, 0xbc]), "0abc");
        assert_eq!(serial_hex(&[0x7f]), "7f");
        assert_eq!(serial_hex(&[0]), "00");
    }

    #[test]
    fn percent_signs_are_taken_out_of_names() {
        assert_eq!(percent_decoded("a%20b%C3%a9").as_deref(), Some("a bé"));
        for text in ["%", "%2", "%zz", "%+1", "%ff"] {
            assert_eq!(percent_decoded(text), None, "{text}");
        }
    }

    #[test]
    fn an_ipv4_address_in_ipv6_form_is_the_same_address() {
        let four: IpAddr = "10.1.2.3".parse().unwrap();
        let six: std::net::Ipv6Addr = "::ffff:10.1.2.3".parse().unwrap();
        assert_eq!(address(&[10, 1, 2, 3]), Some(four));
        assert_eq!(address(&six.octets()), Some(four));
        assert_eq!(address(&[10, 1, 2]), None);
    }
}
