//! The server's own X509-SVID, which its TLS listener presents.

use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use spindle_ca::{SvidRequest, SvidSubject, X509Ca};
use spindle_keys::Key;
use spindle_spiffe_core::{CertificateSummary, SpiffeId, Timestamp, Validity, certificate_summary};
use tracing::info;

use super::rotation::CHECK_SECS_MAX;
use super::{Authorities, AuthoritiesError};
use crate::issuer::BACKDATE_SECS;
use crate::metrics::code_of;

/// One certificate of the server's own chain, for the Debug service.
#[derive(Clone, Debug)]
pub(crate) struct ChainLink {
    pub(crate) id: SpiffeId,
    pub(crate) expires_at: Timestamp,
    pub(crate) subject: String,
}

/// When the server's own SVID is good.
#[derive(Clone, Copy)]
pub(super) struct OwnSvid {
    validity: Validity,
    renew_at: Timestamp,
}

impl Authorities {
    /// The chain of the server's own SVID, down to its own root, or as far as it is presented with an upstream authority.
    pub(crate) fn server_svid(&self) -> Vec<ChainLink> {
        self.chain.load_full().map(|chain| chain.as_ref().clone()).unwrap_or_default()
    }

    fn link(&self, certificate: &CertificateDer<'_>) -> ChainLink {
        let CertificateSummary { not_after, subject, .. } = certificate_summary(certificate);
        ChainLink { id: self.settings.trust_domain.id(), expires_at: not_after, subject }
    }

    /// Makes a new SVID for the server itself when it is due or not valid; returns when the next one is.
    pub(super) async fn renew_identity(&self, now: Timestamp) -> Result<Timestamp, AuthoritiesError> {
        let own = *self.own();
        if let Some(own) = own
            && own.validity.contains(now)
            && now < own.renew_at
        {
            return Ok(own.renew_at);
        }
        let Some(active) = self.active() else { return Ok(now + CHECK_SECS_MAX) };
        self.rotation.metrics.rotate_svid.time(self.new_identity(&active, now), code_of).await
    }

    async fn new_identity(&self, active: &X509Ca, now: Timestamp) -> Result<Timestamp, AuthoritiesError> {
        let key_type = self.settings.key_type;
        // RSA keys take seconds to find.
        let key = tokio::task::spawn_blocking(move || Key::generate(key_type))
            .await
            .map_err(|_| AuthoritiesError::Store("the key manager stopped".into()))??;
        let spiffe_id = self.settings.trust_domain.server_id();
        let signed = active.sign_x509_svid(&SvidRequest {
            spiffe_id: spiffe_id.clone(),
            spki_der: key.spki_der(),
            subject: SvidSubject::default(),
            dns_names: &[],
            validity: Validity {
                not_before: now - BACKDATE_SECS,
                not_after: now + self.settings.live.load().default_x509_svid_ttl_secs,
            },
            serial: self.entropy.serial(),
        })?;
        self.rotation.metrics.signed_own_svid();
        let leaf = ChainLink {
            id: spiffe_id,
            expires_at: signed.validity.not_after,
            subject: certificate_summary(&signed.chain[0]).subject,
        };
        let above = match active.upstream_chain() {
            [] => std::slice::from_ref(active.certificate()),
            chain => chain,
        };
        let links = above.iter().map(|certificate| self.link(certificate));
        self.chain.store(Some(Arc::new([leaf].into_iter().chain(links).collect())));
        self.identity.set(signed.chain, &key.pkcs8_der())?;
        info!(serial_num = %signed.serial, expires_at = %signed.validity.not_after, "server SVID rotated");
        let renew_at = (now + signed.validity.not_after.secs_since(now) / 2).max(now + 1);
        *self.own() = Some(OwnSvid { validity: signed.validity, renew_at });
        Ok(renew_at)
    }
}
