//! Authorities of servers below this one: an intermediate for the key of a request, named after this authority.

use rustls_pki_types::CertificateDer;
use spindle_spiffe_core::{Serial, Validity};

use crate::csr::CheckedCsr;
use crate::profile;
use crate::public_key::SubjectKey;
use crate::subject::SvidSubject;
use crate::upstream_ca::authority_params;
use crate::x509_ca::{SignError, UPSTREAM_CHAIN_MAX, X509Ca, positive, refused, set_validity, uri_name};

/// A signed authority of a server below.
#[derive(Clone, Debug)]
pub struct SignedAuthority {
    /// The new authority first, then what leads to the root, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The validity signed, after the cut to the end of the authority above.
    pub validity: Validity,
    /// The serial number.
    pub serial: Serial,
}

impl X509Ca {
    /// Signs an authority for the key of `csr`; nothing else is taken from it. Its subject is this authority's own with
    /// SPIRE's unit `DOWNSTREAM-` and the number of authorities above it.
    ///
    /// # Errors
    /// When nothing is left of this authority's lifetime, the chain would become too long to be followed, or signing fails.
    pub fn sign_downstream(
        &self,
        csr: &CheckedCsr,
        validity: Validity,
        serial: [u8; 16],
    ) -> Result<SignedAuthority, SignError> {
        let own_name = self.trust_domain().id();
        let above = self.upstream_chain();
        if above.len() >= UPSTREAM_CHAIN_MAX {
            return Err(refused(
                &own_name,
                format!("there are {} authorities above it already", above.len()),
            ));
        }
        positive(serial).ok_or(SignError::Serial)?;
        let validity = self.cut(validity)?;
        let key = SubjectKey::parse(csr.spki_der())
            .map_err(|source| SignError::Key { spiffe_id: own_name.clone(), source })?;
        let names = vec![uri_name(&own_name).map_err(|error| refused(&own_name, error))?];
        let mut params = authority_params(&self.downstream_subject()?, names, key.bits());
        set_validity(&mut params, validity).ok_or(SignError::Validity(validity))?;
        params.serial_number = Some(serial.to_vec().into());
        let certificate: CertificateDer<'static> =
            params.signed_by(&key, self.issuer()).map_err(|error| refused(&own_name, error))?.into();
        profile::check_authority(&certificate, self.trust_domain())
            .map_err(|error| refused(&own_name, error))?;
        let chain = [certificate].into_iter().chain(above.iter().cloned()).collect();
        Ok(SignedAuthority { chain, validity, serial: Serial::new(&serial) })
    }

    fn downstream_subject(&self) -> Result<SvidSubject, SignError> {
        let own_name = self.trust_domain().id();
        let certificate = profile::parse(self.certificate()).map_err(|error| refused(&own_name, error))?;
        let own = SvidSubject::from_name(certificate.subject()).map_err(|error| refused(&own_name, error))?;
        Ok(own.with_unit(format!("DOWNSTREAM-{}", self.upstream_chain().len().max(1))))
    }
}
