//! The keys of JWT-SVIDs for OpenID Connect clients: a discovery document and a JWK Set over HTTP or HTTPS.
//!
//! Promises: clients see the keys of the last good answer of the source, a slow or hostile client holds nobody else up, and
//! a certificate that is replaced is served without a restart. It signs nothing and holds no key of a trust domain. Reads as
//! SPIRE's provider does. Start at [`Provider::start`].

pub mod acme;
mod answers;
mod config;
mod files;
mod health;
mod keys;
mod provider;
mod published;
mod serve;
pub mod site;
mod sockets;
mod source;
mod tls;

pub use acme::{AcmeConfig, DIRECTORY_URL};
pub use config::{Health, ListenAddress, Listener, ProviderConfig, ServingFiles, Source, SourceKind};
pub use health::threshold;
pub use provider::{Bound, Provider, ProviderError, Refresh};
pub use site::{Domain, PathPrefix, Site, WebUrl};
