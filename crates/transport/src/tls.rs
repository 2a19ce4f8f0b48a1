//! Mutual TLS between SPIFFE peers: TLS 1.3 only, identities and bundles that change while connections run.
//!
//! Every connection is verified anew: there are no tickets and no session cache, since a resumed session would skip the
//! verifier and the current bundle. Clocks are injected. Start at [`TlsListener`] and [`TlsDialer`].

mod dial;
mod error;
mod listener;
mod live;
mod source;
mod verifier;

pub use dial::{ExpectedServer, KeyExchange, TlsDialer, Trust};
pub use error::{DialError, HandshakeError};
pub use listener::{ServerTls, TlsIncoming, TlsListener};
pub use live::{IdentityError, LiveBundles, LiveIdentity};

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;

/// The one protocol spoken above TLS.
const ALPN: &[u8] = b"h2";

/// As [`provider`], without a key exchange that a quantum computer could undo later.
fn post_quantum_provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768];
        Arc::new(CryptoProvider { kx_groups, ..rustls::crypto::aws_lc_rs::default_provider() })
    });
    PROVIDER.clone()
}

/// aws-lc-rs with its post-quantum hybrid first, built once.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    PROVIDER.clone()
}
