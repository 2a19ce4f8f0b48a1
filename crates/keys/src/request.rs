//! Certificate requests (PKCS#10, RFC 2986) for our own keys.
//!
//! A SPIFFE server takes the key from a request and the rest from its own records, so there is little to fill in: the
//! subject stays empty and names go into the subject alternative name.

use rcgen::{CertificateParams, DistinguishedName, SanType};
use spindle_spiffe_core::{DnsName, SpiffeId};

use crate::key::Key;
use crate::manager::KeyError;

/// A DER certificate request for `key`, signed by it, with the given names.
///
/// # Errors
/// When signing fails.
pub fn certificate_request(
    key: &Key,
    spiffe_id: Option<&SpiffeId>,
    dns_names: &[DnsName],
) -> Result<Vec<u8>, KeyError> {
    let refuse = |error: rcgen::Error| KeyError::Request(error.to_string());
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(id) = spiffe_id {
        params.subject_alt_names.push(SanType::URI(id.as_str().try_into().map_err(refuse)?));
    }
    for name in dns_names {
        params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into().map_err(refuse)?));
    }
    let request = params.serialize_request(key).map_err(refuse)?;
    Ok(request.der().to_vec())
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::*;

    use super::*;
    use crate::key::KeyType;

    #[test]
    fn a_request_is_signed_by_its_key_and_names_what_was_asked() {
        let key = Key::generate(KeyType::EcP384).unwrap();
        let id: SpiffeId = "spiffe://prod.example/web".parse().unwrap();
        let der = certificate_request(&key, Some(&id), &["web.example".parse().unwrap()]).unwrap();
        let (rest, csr) = X509CertificationRequest::from_der(&der).unwrap();
        assert!(rest.is_empty());
        csr.verify_signature().unwrap();
        assert_eq!(csr.certification_request_info.subject_pki.raw, key.spki_der());
        assert_eq!(csr.certification_request_info.subject.iter().count(), 0);
        let extensions: Vec<_> = csr.requested_extensions().unwrap().collect();
        let [ParsedExtension::SubjectAlternativeName(names)] = extensions[..] else {
            panic!("{extensions:?}")
        };
        let expected = [GeneralName::URI("spiffe://prod.example/web"), GeneralName::DNSName("web.example")];
        assert_eq!(names.general_names, expected);
    }

    #[test]
    fn a_request_without_names_has_no_extension() {
        let key = Key::generate(KeyType::EcP256).unwrap();
        let der = certificate_request(&key, None, &[]).unwrap();
        let (_, csr) = X509CertificationRequest::from_der(&der).unwrap();
        csr.verify_signature().unwrap();
        assert!(csr.requested_extensions().is_none());
    }
}
