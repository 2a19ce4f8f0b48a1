//! What TLS shows: the certificate of the name that the client asks for, or the answer to a check of the ACME server.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::site::Domain;
use crate::tls::ALPN_ACME;

type ByName = HashMap<String, Arc<CertifiedKey>>;

/// Certificates and pending checks by name. The manager writes, handshakes read.
#[derive(Default)]
pub(crate) struct Certificates {
    served: ArcSwap<ByName>,
    checks: ArcSwap<ByName>,
}

impl Certificates {
    /// Serves this certificate from the next handshake on.
    pub(super) fn serve(&self, domain: &Domain, certificate: CertifiedKey) {
        insert(&self.served, domain, certificate);
    }

    /// Answers checks of this name until [`Self::end_check`].
    pub(super) fn begin_check(&self, domain: &Domain, certificate: CertifiedKey) {
        insert(&self.checks, domain, certificate);
    }

    /// Answers no check of this name any more.
    pub(super) fn end_check(&self, domain: &Domain) {
        self.checks.rcu(|checks| {
            let mut checks = ByName::clone(checks);
            checks.remove(domain.as_str());
            checks
        });
    }
}

fn insert(map: &ArcSwap<ByName>, domain: &Domain, certificate: CertifiedKey) {
    let certificate = Arc::new(certificate);
    map.rcu(|map| {
        let mut map = ByName::clone(map);
        map.insert(domain.as_str().to_owned(), certificate.clone());
        map
    });
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?.to_ascii_lowercase();
        let protocols: Vec<&[u8]> = hello.alpn().map(Iterator::collect).unwrap_or_default();
        // RFC 8737 3: a check offers this protocol and no other.
        let map = if protocols == [ALPN_ACME] { &self.checks } else { &self.served };
        map.load().get(&name).cloned()
    }
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.served.load().keys()).finish()
    }
}
