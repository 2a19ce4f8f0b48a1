//! The server's settings: SPIRE's keys of `server { … }` and `plugins { … }`, checked.
//!
//! [`RawServer`] mirrors the file; flags are laid over it with [`RawServer::over`]; `TryFrom` makes it ready.

mod defaults;
mod jwt;
mod known;
mod node_attestors;
mod operations;
mod plugins;
mod roles;
mod wit;

use std::net::IpAddr;
use std::path::PathBuf;

use spindle_keys::KeyType;
use spindle_runtime::LogSettings;
use spindle_server::{JwtSettings, RoleAssignment, ServerConfig, WitSettings, guaranteed_svid_ttl_secs};
use spindle_spiffe_core::{SpiffeId, TrustDomain};

pub use defaults::print_defaults;
pub use jwt::RawJwt;
pub use node_attestors::{CaChoice, NodeAttestorChoices, X509PopChoice};
pub use operations::{OperationsChoice, RawOperations};
pub use plugins::{KeyChoice, StoreChoice, StoreKind, UpstreamChoice};
pub use wit::RawWit;

use super::ConfigError;
use super::keys::check_keys;
use super::logs::RawLogs;
use super::section::Section;
use super::values::{address, key_type, lifetime_secs, port, required, spiffe_ids, trust_domain};
use crate::hcl::Item;

/// SPIRE's default admin socket.
pub const SOCKET_PATH: &str = "/tmp/spire-server/private/api.sock";
/// SPIRE's default port.
pub const BIND_PORT: i64 = 8081;
/// SPIRE's default address.
pub const BIND_ADDRESS: &str = "0.0.0.0";
/// SPIRE's default lifetime of an authority.
pub const CA_TTL_SECS: i64 = 24 * 3600;
/// SPIRE's default lifetime of an X509-SVID.
pub const X509_SVID_TTL_SECS: i64 = 3600;

/// Subject of a self-signed authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaSubject {
    /// Countries.
    pub country: Vec<String>,
    /// Organizations.
    pub organization: Vec<String>,
    /// Common name; empty for none.
    pub common_name: String,
}

impl Default for CaSubject {
    fn default() -> Self {
        Self { country: vec!["US".into()], organization: vec!["SPIFFE".into()], common_name: String::new() }
    }
}

/// Keys of the file and flags as written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RawServer {
    /// `trust_domain`.
    pub trust_domain: Option<String>,
    /// `data_dir`.
    pub data_dir: Option<PathBuf>,
    /// `bind_address`.
    pub bind_address: Option<String>,
    /// `bind_port`.
    pub bind_port: Option<i64>,
    /// `socket_path`.
    pub socket_path: Option<PathBuf>,
    /// `ca_key_type`.
    pub ca_key_type: Option<String>,
    /// `ca_ttl`.
    pub ca_ttl: Option<String>,
    /// `ca_subject`.
    pub ca_subject: Option<CaSubject>,
    /// `default_x509_svid_ttl`.
    pub default_x509_svid_ttl: Option<String>,
    /// `agent_ttl`.
    pub agent_ttl: Option<String>,
    /// The keys about JWT-SVIDs.
    pub jwt: RawJwt,
    /// The keys about WIT-SVIDs.
    pub wit: RawWit,
    /// `admin_ids`.
    pub admin_ids: Option<Vec<String>>,
    /// `roles`, a block of our own.
    pub roles: Option<Vec<RoleAssignment>>,
    /// `ratelimit`.
    pub rate_limits: Option<RateLimits>,
    /// How it is looked after.
    pub operations: RawOperations,
    /// The log keys.
    pub logs: RawLogs,
    /// `plugins { DataStore … }`.
    pub store: Option<StoreChoice>,
    /// `plugins { KeyManager … }`.
    pub keys: Option<KeyChoice>,
    /// `plugins { NodeAttestor … }`.
    pub node_attestors: NodeAttestorChoices,
    /// `experimental { agent_spiffe_id_as_selector }`.
    pub agent_spiffe_id_as_selector: Option<bool>,
    /// `plugins { UpstreamAuthority … }`.
    pub upstream: Option<UpstreamChoice>,
    /// What the operator should know about keys without effect.
    pub notes: Vec<String>,
}

/// Which of SPIRE's limits on calls of one caller hold: both, unless the file says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// One attestation a second.
    pub attestation: bool,
    /// 500 SVIDs a second.
    pub signing: bool,
    /// How many CSRs of all callers together may wait to be signed; a key of our own.
    pub signing_queue: usize,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self { attestation: true, signing: true, signing_queue: ServerConfig::SIGNING_QUEUE_MAX }
    }
}

/// The server's settings, ready to be used. Lifetimes are in seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerSettings {
    /// The one trust domain.
    pub trust_domain: TrustDomain,
    /// Address of the TLS listener.
    pub bind_address: IpAddr,
    /// Port of the TLS listener; 0 lets the system choose.
    pub bind_port: u16,
    /// The admin socket.
    pub socket_path: PathBuf,
    /// Where state is kept.
    pub data_dir: PathBuf,
    /// Which store.
    pub store: StoreChoice,
    /// Which key manager.
    pub keys: KeyChoice,
    /// How nodes may prove themselves besides join tokens.
    pub node_attestors: NodeAttestorChoices,
    /// Whether agents show their own ID as a selector.
    pub agent_spiffe_id_as_selector: bool,
    /// Who signs the authorities; none means that each is its own root.
    pub upstream: Option<UpstreamChoice>,
    /// Key type of authorities.
    pub ca_key_type: KeyType,
    /// Lifetime of authorities.
    pub ca_ttl_secs: i64,
    /// Subject of authorities.
    pub ca_subject: CaSubject,
    /// Lifetime of X509-SVIDs whose entry names none.
    pub default_x509_svid_ttl_secs: i64,
    /// Lifetime of agents' SVIDs.
    pub agent_ttl_secs: i64,
    /// What holds for JWT-SVIDs.
    pub jwt: JwtSettings,
    /// What holds for WIT-SVIDs.
    pub wit: WitSettings,
    /// Identities with admin rights.
    pub admin_ids: Vec<SpiffeId>,
    /// Callers that may do less than everything.
    pub roles: Vec<RoleAssignment>,
    /// Which limits hold.
    pub rate_limits: RateLimits,
    /// How it is looked after.
    pub operations: OperationsChoice,
    /// Where and how to log.
    pub logs: LogSettings,
    /// What the operator should know.
    pub notes: Vec<String>,
}

impl RawServer {
    /// Reads a parsed file.
    ///
    /// # Errors
    /// The first key that is unknown, unsupported, repeated or of the wrong kind.
    pub fn read(items: &[Item]) -> Result<Self, ConfigError> {
        let top = Section::new("", items);
        let mut notes = Vec::new();
        check_keys(&top, known::TOP, &mut notes)?;
        let health_checks = super::health::listener(&top, &mut notes)?;
        let telemetry = super::telemetry::telemetry(&top, &mut notes)?;
        let plugins::Chosen { store, keys, node_attestors, upstream } = plugins::read(&top, &mut notes)?;
        let Some(server) = top.block("server")? else {
            let operations = RawOperations { health_checks, telemetry, ..RawOperations::default() };
            return Ok(Self { store, keys, node_attestors, upstream, notes, operations, ..Self::default() });
        };
        check_keys(&server, known::SERVER, &mut notes)?;
        let experimental = server.block("experimental")?;
        if let Some(experimental) = &experimental {
            check_keys(experimental, known::EXPERIMENTAL, &mut notes)?;
        }
        let switched = |key| experimental.as_ref().map_or(Ok(None), |block| block.switch(key));
        Ok(Self {
            trust_domain: server.text("trust_domain")?,
            data_dir: server.text("data_dir")?.map(PathBuf::from),
            bind_address: server.text("bind_address")?,
            bind_port: server.number("bind_port")?,
            socket_path: server.text("socket_path")?.map(PathBuf::from),
            ca_key_type: server.text("ca_key_type")?,
            ca_ttl: server.text("ca_ttl")?,
            ca_subject: server
                .block("ca_subject")?
                .map(|block| ca_subject(&block, &mut notes))
                .transpose()?,
            default_x509_svid_ttl: server.text("default_x509_svid_ttl")?,
            agent_ttl: server.text("agent_ttl")?,
            jwt: RawJwt::read(&server)?,
            wit: experimental.as_ref().map(RawWit::read).transpose()?.unwrap_or_default(),
            admin_ids: server.texts("admin_ids")?,
            roles: server.block("roles")?.map(|block| roles::read(&block, &mut notes)).transpose()?,
            rate_limits: server
                .block("ratelimit")?
                .map(|block| rate_limits(&block, &mut notes))
                .transpose()?,
            operations: RawOperations { health_checks, telemetry, ..RawOperations::read(&server)? },
            logs: RawLogs::read(&server)?,
            agent_spiffe_id_as_selector: switched("agent_spiffe_id_as_selector")?,
            store,
            keys,
            node_attestors,
            upstream,
            notes,
        })
    }

    /// These settings (the flags), with gaps filled from `file`.
    #[must_use]
    pub fn over(self, file: Self) -> Self {
        Self {
            trust_domain: self.trust_domain.or(file.trust_domain),
            data_dir: self.data_dir.or(file.data_dir),
            bind_address: self.bind_address.or(file.bind_address),
            bind_port: self.bind_port.or(file.bind_port),
            socket_path: self.socket_path.or(file.socket_path),
            logs: self.logs.over(file.logs),
            ..file
        }
    }
}

fn ca_subject(block: &Section<'_>, notes: &mut Vec<String>) -> Result<CaSubject, ConfigError> {
    check_keys(block, known::CA_SUBJECT, notes)?;
    let subject = CaSubject {
        country: block.texts("country")?.unwrap_or_default(),
        organization: block.texts("organization")?.unwrap_or_default(),
        common_name: block.text("common_name")?.unwrap_or_default(),
    };
    // An all-empty subject means the default one, as it does for SPIRE.
    let empty = CaSubject { country: vec![], organization: vec![], common_name: String::new() };
    Ok(if subject == empty { CaSubject::default() } else { subject })
}

fn rate_limits(block: &Section<'_>, notes: &mut Vec<String>) -> Result<RateLimits, ConfigError> {
    check_keys(block, known::RATE_LIMIT, notes)?;
    let on = RateLimits::default();
    Ok(RateLimits {
        attestation: block.switch("attestation")?.unwrap_or(on.attestation),
        signing: block.switch("signing")?.unwrap_or(on.signing),
        signing_queue: match block.number("signing_queue")? {
            None => on.signing_queue,
            Some(number) => usize::try_from(number).ok().filter(|number| *number > 0).ok_or_else(|| {
                let what = format!("{number} requests leave no room to sign anything; 1 is the least");
                ConfigError::value(&block.key("signing_queue"), what)
            })?,
        },
    })
}

impl TryFrom<RawServer> for ServerSettings {
    type Error = ConfigError;

    fn try_from(raw: RawServer) -> Result<Self, ConfigError> {
        let trust_domain = trust_domain("server.trust_domain", raw.trust_domain.as_deref())?;
        let data_dir = required("server.data_dir", raw.data_dir)?;
        let ca_ttl_secs = lifetime_secs("server.ca_ttl", raw.ca_ttl.as_deref(), CA_TTL_SECS)?;
        let svid_ttl_key = "server.default_x509_svid_ttl";
        let svid_ttl_secs =
            lifetime_secs(svid_ttl_key, raw.default_x509_svid_ttl.as_deref(), X509_SVID_TTL_SECS)?;
        let agent_ttl_secs = lifetime_secs("server.agent_ttl", raw.agent_ttl.as_deref(), svid_ttl_secs)?;
        let mut notes = raw.notes;
        note_lifetime(svid_ttl_key, svid_ttl_secs, ca_ttl_secs, &mut notes);
        if raw.agent_ttl.is_some() {
            note_lifetime("server.agent_ttl", agent_ttl_secs, ca_ttl_secs, &mut notes);
        }
        let ca_key_type = key_type("server.ca_key_type", raw.ca_key_type.as_deref())?;
        let jwt = raw.jwt.ready(ca_key_type, ca_ttl_secs, &mut notes)?;
        let wit = raw.wit.ready(ca_key_type, &mut notes)?;
        Ok(Self {
            bind_address: address(
                "server.bind_address",
                raw.bind_address.as_deref().unwrap_or(BIND_ADDRESS),
            )?,
            bind_port: port("server.bind_port", raw.bind_port.unwrap_or(BIND_PORT))?,
            socket_path: raw.socket_path.unwrap_or_else(|| SOCKET_PATH.into()),
            store: raw.store.unwrap_or_else(|| StoreChoice::sled_in(&data_dir)).below(&data_dir),
            keys: raw.keys.unwrap_or_else(|| KeyChoice::disk_in(&data_dir)),
            node_attestors: raw.node_attestors,
            agent_spiffe_id_as_selector: raw.agent_spiffe_id_as_selector.unwrap_or(false),
            upstream: raw.upstream,
            ca_key_type,
            ca_ttl_secs,
            ca_subject: raw.ca_subject.unwrap_or_default(),
            default_x509_svid_ttl_secs: svid_ttl_secs,
            agent_ttl_secs,
            jwt,
            wit,
            admin_ids: spiffe_ids("server.admin_ids", &raw.admin_ids.unwrap_or_default())?,
            roles: raw.roles.unwrap_or_default(),
            rate_limits: raw.rate_limits.unwrap_or_default(),
            operations: raw.operations.ready(&mut notes)?,
            logs: raw.logs.ready("server")?,
            trust_domain,
            data_dir,
            notes,
        })
    }
}

/// An SVID must not outlive its authority, so one whose lifetime is longer than what is left is cut short. As with SPIRE
/// that is worth a note and no fault.
fn note_lifetime(key: &str, svid_secs: i64, ca_secs: i64, notes: &mut Vec<String>) {
    let guaranteed_secs = guaranteed_svid_ttl_secs(ca_secs);
    if svid_secs > guaranteed_secs {
        notes.push(format!(
            "{key} is {svid_secs} s, but server.ca_ttl with {ca_secs} s guarantees only {guaranteed_secs} s (a sixth of \
             it, at most 7 days): SVIDs are cut short when the authority is about to change"
        ));
    }
}

#[cfg(test)]
mod tests;
