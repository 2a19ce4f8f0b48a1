//! What the agent keeps between runs, in `agent-data.json`: its own SVID, the trust bundle, whether it may attest again, and
//! since when its server is not trusted. Keys are not in it.
//!
//! Written as a whole beside the old file and then put in its place, readable by the owner only. A file that cannot be
//! understood is an error, never a fresh start: it may hold the only identity this node can have. That of SPIRE's agent is
//! understood.

mod spires;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use spindle_spiffe_core::{Timestamp, TrustDomain, X509Bundle, X509Svid};
use tracing::info;

use spires::SpiresDocument;

/// The name of the file in the data directory, SPIRE's.
const FILE: &str = "agent-data.json";

/// The format written and understood.
const VERSION: u32 = 1;

/// The largest file read, in bytes: a chain and a bundle, with a wide margin.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Why kept state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The operating system refused.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what this program writes.
    #[error("{} cannot be understood: {why}; restore it, or move it away to let the agent attest anew", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file belongs to an agent of another trust domain.
    #[error("{} belongs to trust domain {found:?}, the agent is configured for {expected:?}", .path.display())]
    TrustDomain {
        /// The file.
        path: PathBuf,
        /// What it names.
        found: String,
        /// What is configured.
        expected: TrustDomain,
    },
}

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct State {
    /// The agent's own SVID.
    pub(crate) svid: Option<X509Svid>,
    /// The own trust domain's bundle.
    pub(crate) bundle: Option<X509Bundle>,
    /// Whether the agent may attest again.
    pub(crate) reattestable: bool,
    /// When it was first seen that no trusted authority vouches for the server; none while one does.
    pub(crate) untrusted_since: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    trust_domain: String,
    /// DER in base64, leaf first.
    svid: Vec<String>,
    /// DER in base64.
    bundle: Vec<String>,
    reattestable: bool,
    /// Seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    untrusted_since: Option<i64>,
}

/// Which form a file has. SPIRE's has no version.
#[derive(Deserialize)]
struct Form {
    version: Option<serde_json::Value>,
}

/// The file and the trust domain it is for.
#[derive(Clone, Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    trust_domain: TrustDomain,
}

impl StateFile {
    /// Makes the data directory if it is missing, private to the user.
    pub(crate) fn open(data_dir: &Path, trust_domain: TrustDomain) -> Result<Self, StateError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data_dir)
            .map_err(|source| fail("make", data_dir, source))?;
        Ok(Self { path: data_dir.join(FILE), trust_domain })
    }

    /// What is kept; nothing when there is no file.
    pub(crate) fn load(&self) -> Result<State, StateError> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
            Err(source) => return Err(fail("open", &self.path, source)),
        };
        let mut text = Vec::new();
        let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text);
        read.map_err(|source| fail("read", &self.path, source))?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(self.malformed("it is too large"));
        }
        let unread = |error: serde_json::Error| self.malformed(&error.to_string());
        let form: Form = serde_json::from_slice(&text).map_err(unread)?;
        match form.version {
            Some(_) => self.read(serde_json::from_slice(&text).map_err(unread)?),
            None => self.take_over(&serde_json::from_slice(&text).map_err(unread)?),
        }
    }

    fn read(&self, document: Document) -> Result<State, StateError> {
        if document.version != VERSION {
            return Err(self.malformed(&format!("its version is {}, not {VERSION}", document.version)));
        }
        if document.trust_domain != self.trust_domain.name() {
            return Err(self.of_another_trust_domain(document.trust_domain));
        }
        let (chain, roots) = (self.certificates(&document.svid)?, self.certificates(&document.bundle)?);
        let untrusted_since = document.untrusted_since.map(Timestamp::from_unix_secs);
        Ok(State { untrusted_since, ..self.state(chain, roots, document.reattestable)? })
    }

    /// What SPIRE's agent has kept.
    fn take_over(&self, document: &SpiresDocument) -> Result<State, StateError> {
        let chain = document.chain().map_err(|why| self.malformed(&why))?;
        let roots = document.roots().map_err(|why| self.malformed(&why))?;
        let state = self.state(chain, roots, document.reattestable)?;
        if let Some(svid) = &state.svid {
            let found = svid.spiffe_id().trust_domain();
            if found != self.trust_domain {
                return Err(self.of_another_trust_domain(found.name().to_owned()));
            }
            info!(agent_id = %svid.spiffe_id(), path = %self.path.display(),
                "the identity of SPIRE's agent is taken over");
        }
        Ok(state)
    }

    fn of_another_trust_domain(&self, found: String) -> StateError {
        StateError::TrustDomain { path: self.path.clone(), found, expected: self.trust_domain.clone() }
    }

    fn state(
        &self,
        chain: Vec<CertificateDer<'static>>,
        roots: Vec<CertificateDer<'static>>,
        reattestable: bool,
    ) -> Result<State, StateError> {
        let svid = match chain.is_empty() {
            true => None,
            false => Some(X509Svid::parse(chain).map_err(|error| self.malformed(&error.to_string()))?),
        };
        let bundle = match roots.is_empty() {
            true => None,
            false => Some(
                X509Bundle::from_certificates(self.trust_domain.clone(), roots)
                    .map_err(|error| self.malformed(&error.to_string()))?,
            ),
        };
        Ok(State { svid, bundle, reattestable, untrusted_since: None })
    }

    fn certificates(&self, texts: &[String]) -> Result<Vec<CertificateDer<'static>>, StateError> {
        let decoded = texts.iter().map(|text| STANDARD.decode(text).map(CertificateDer::from));
        decoded.collect::<Result<_, _>>().map_err(|error| self.malformed(&error.to_string()))
    }

    /// Replaces what is kept. Durable when it returns; on failure the old file stays.
    pub(crate) fn store(&self, state: &State) -> Result<(), StateError> {
        let text = |der: &CertificateDer<'_>| STANDARD.encode(der);
        let document = Document {
            version: VERSION,
            trust_domain: self.trust_domain.name().to_owned(),
            svid: state.svid.iter().flat_map(X509Svid::chain).map(text).collect(),
            bundle: state.bundle.iter().flat_map(X509Bundle::certificates).map(text).collect(),
            reattestable: state.reattestable,
            untrusted_since: state.untrusted_since.map(Timestamp::unix_secs),
        };
        let json = serde_json::to_vec_pretty(&document)
            .map_err(|error| fail("write", &self.path, io::Error::other(error)))?;
        let beside = self.path.with_extension("json.new");
        write_private(&beside, &json).map_err(|source| fail("write", &beside, source))?;
        fs::rename(&beside, &self.path).map_err(|source| fail("replace", &self.path, source))?;
        let parent = self.path.parent().unwrap_or(Path::new("."));
        File::open(parent)
            .and_then(|dir| dir.sync_all())
            .map_err(|source| fail("make durable", parent, source))
    }

    fn malformed(&self, why: &str) -> StateError {
        StateError::Malformed { path: self.path.clone(), why: why.to_owned() }
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn fail(action: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use spindle_keys::{Key, KeyType};
    use spindle_spiffe_core::pem::certificates_to_pem;

    use super::*;
    use crate::fixtures::{Authority, NOW, trust_domain};

    fn some_state() -> State {
        let authority = Authority::new(&trust_domain());
        let id = trust_domain().member("/spire/agent/join_token/t").unwrap();
        let key = Key::generate(KeyType::EcP256).unwrap();
        State {
            svid: Some(authority.sign(&id, key.spki_der(), NOW, 3600)),
            bundle: Some(authority.bundle),
            reattestable: true,
            untrusted_since: None,
        }
    }

    fn file(dir: &Path) -> StateFile {
        StateFile::open(dir, trust_domain()).unwrap()
    }

    #[test]
    fn what_is_stored_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let (file, state) = (file(&dir.path().join("a/b")), some_state());
        assert_eq!(file.load().unwrap(), State::default());
        file.store(&state).unwrap();
        assert_eq!(file.load().unwrap(), state);
        let untrusted = State { untrusted_since: Some(NOW), ..state };
        file.store(&untrusted).unwrap();
        assert_eq!(file.load().unwrap(), untrusted);
        file.store(&State::default()).unwrap();
        assert_eq!(file.load().unwrap(), State::default());
    }

    /// The file of SPIRE's agent for `state`.
    fn spires(state: &State) -> String {
        let list = |certificates: &[CertificateDer<'static>]| {
            let pem = certificates.iter().map(|one| STANDARD.encode(certificates_to_pem([one])));
            serde_json::Value::from(pem.collect::<Vec<_>>())
        };
        serde_json::json!({
            "svid": state.svid.as_ref().map(|svid| list(svid.chain())),
            "bundle": state.bundle.as_ref().map(|one| list(&one.certificates().cloned().collect::<Vec<_>>())),
            "reattestable": state.reattestable,
            "bootstrap_use": 0,
            "bootstrap_start_time": "0001-01-01T00:00:00Z",
            "connection_attempts": 0,
        })
        .to_string()
    }

    #[test]
    fn the_identity_of_spires_agent_is_taken_over_and_kept_in_our_form() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path());
        for state in [some_state(), State { svid: None, ..some_state() }, State::default()] {
            fs::write(&file.path, spires(&state)).unwrap();
            assert_eq!(file.load().unwrap(), state);
            file.store(&state).unwrap();
            assert!(fs::read_to_string(&file.path).unwrap().contains("\"version\": 1"));
            assert_eq!(file.load().unwrap(), state);
        }
    }

    #[test]
    fn a_file_of_spires_agent_is_not_taken_over_for_another_trust_domain_or_when_it_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let (file, good) = (file(dir.path()), spires(&some_state()));
        fs::write(&file.path, &good).unwrap();
        let other = StateFile::open(dir.path(), "other.example".parse().unwrap()).unwrap();
        assert!(
            matches!(other.load(), Err(StateError::TrustDomain { found, .. }) if found == "prod.example")
        );
        let none = spires(&State::default());
        let bad = [
            &good[..good.len() - 2],
            &none.replace("\"svid\":null", "\"svid\":[\"!\"]"),
            &none.replace("\"svid\":null", "\"svid\":[\"AAAA\"]"),
            &none.replace("\"bundle\":null", "\"bundle\":[\"AAAA\"]"),
            &none.replace(",\"svid\":null", ""),
            &none.replace("\"reattestable\":false,", ""),
        ];
        for text in bad {
            assert_ne!(text, none, "nothing was replaced");
            fs::write(&file.path, text).unwrap();
            assert!(matches!(file.load(), Err(StateError::Malformed { .. })), "{text}");
        }
    }

    #[test]
    fn nobody_else_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(&dir.path().join("data"));
        file.store(&some_state()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file.path), mode(&dir.path().join("data"))), (0o600, 0o700));
    }

    #[test]
    fn a_leftover_of_an_interrupted_write_does_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path());
        fs::write(file.path.with_extension("json.new"), "half").unwrap();
        file.store(&some_state()).unwrap();
        assert!(file.load().unwrap().svid.is_some());
    }

    #[test]
    fn a_file_of_another_trust_domain_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        file(dir.path()).store(&some_state()).unwrap();
        let other = StateFile::open(dir.path(), "other.example".parse().unwrap()).unwrap();
        assert!(matches!(other.load(), Err(StateError::TrustDomain { .. })));
    }

    #[test]
    fn a_damaged_file_is_an_error_and_is_left_alone() {
        let good =
            r#"{"version":1,"trust_domain":"prod.example","svid":[],"bundle":[],"reattestable":false}"#;
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path());
        fs::write(&file.path, good).unwrap();
        assert!(file.load().is_ok());
        let bad = [
            "",
            "{",
            "{}",
            &good[..good.len() - 2],
            &good.replace("\"version\":1", "\"version\":2"),
            &good.replace("\"svid\":[]", "\"svid\":[\"!\"]"),
            &good.replace("\"svid\":[]", "\"svid\":[\"AAAA\"]"),
            &good.replace("\"bundle\":[]", "\"bundle\":[\"AAAA\"]"),
            &good.replace("\"bundle\":[]", "\"bundle\":[],\"more\":1"),
        ];
        for text in bad {
            fs::write(&file.path, text).unwrap();
            assert!(matches!(file.load(), Err(StateError::Malformed { .. })), "{text}");
            assert_eq!(fs::read_to_string(&file.path).unwrap(), text);
        }
    }
}
