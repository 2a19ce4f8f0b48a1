//! What the agent shows the server of its node: a join token, or a certificate whose key answers a challenge.
//!
//! Files are read anew for each attestation, so that a certificate that was replaced is used without a restart.
//! Start at [`Proof::load`].

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use spindle_attest::x509pop::{self, Challenge, NodeKey, Payload};
use spindle_spiffe_core::certificate::split_der_certificates;
use spindle_spiffe_core::pem::certificates_from_pem;
use spindle_spiffe_core::{Entropy, ErrorChain};
use tokio::time::timeout;
use zeroize::{Zeroize, Zeroizing};

use crate::call_error::CallError;
use crate::config::{AgentConfig, JoinToken, X509PopSource};
use crate::other_agent;
use crate::plugins::LivePlugins;
use crate::server::CALL_TIMEOUT;

/// The largest file read, in bytes: some dozens of certificates.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// SPIRE's name of the attestor.
const JOIN_TOKEN: &str = "join_token";

/// Where a proof comes from. A token wins over a certificate, as in SPIRE.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ProofSource<'a> {
    Token(&'a JoinToken),
    /// The certificate that is configured at the moment of use.
    X509Pop(&'a LivePlugins),
}

impl<'a> ProofSource<'a> {
    /// None when the agent has nothing to prove itself with.
    pub(crate) fn of(config: &'a AgentConfig, plugins: &'a LivePlugins) -> Option<Self> {
        let token = config.join_token.as_ref().map(Self::Token);
        token.or_else(|| plugins.load().x509pop.is_some().then_some(Self::X509Pop(plugins)))
    }

    /// SPIRE's name of the attestor.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Token(_) => "join_token",
            Self::X509Pop(_) => "x509pop",
        }
    }
}

/// A proof of the node.
pub(super) enum Proof {
    Token(JoinToken),
    X509Pop { payload: Payload, key: Arc<NodeKey> },
}

impl Proof {
    /// Takes the proof from where it is. An error is the machine's, and may pass.
    pub(super) async fn load(source: ProofSource<'_>) -> Result<Self, CallError> {
        let plugins = match source {
            ProofSource::Token(token) => return Ok(Self::Token(token.clone())),
            ProofSource::X509Pop(plugins) => plugins.load(),
        };
        match &plugins.x509pop {
            None => Err(CallError::Local("x509pop is not configured any more".to_owned())),
            Some(X509PopSource::WorkloadApi { socket }) => {
                let fetched = timeout(CALL_TIMEOUT, fetched(socket)).await;
                let late = || Err("it did not answer in time".to_owned());
                let what = |why| {
                    CallError::Local(format!("no SVID from the Workload API at {}: {why}", socket.display()))
                };
                fetched.unwrap_or_else(|_| late()).map_err(what)
            }
            Some(files @ X509PopSource::Files { .. }) => {
                let files = files.clone();
                let read = tokio::task::spawn_blocking(move || read(&files)).await;
                read.map_err(|error| CallError::local(&error))?.map_err(CallError::Local)
            }
        }
    }

    /// The attestor's name.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Token(_) => JOIN_TOKEN,
            Self::X509Pop { .. } => x509pop::NAME,
        }
    }

    /// What is shown first.
    pub(super) fn payload(&self) -> Vec<u8> {
        match self {
            Self::Token(token) => token.reveal().as_bytes().to_vec(),
            Self::X509Pop { payload, .. } => payload.to_json(),
        }
    }

    /// The answer to a challenge.
    pub(super) async fn answer(&self, challenge: &[u8], entropy: &dyn Entropy) -> Result<Vec<u8>, CallError> {
        let Self::X509Pop { key, .. } = self else {
            return Err(CallError::answer("it challenges a join token, which has no answer"));
        };
        let challenge = Challenge::parse(challenge)
            .map_err(|error| CallError::answer(format!("challenge: {}", ErrorChain(&error))))?;
        let mut nonce = [0; _];
        entropy.fill(&mut nonce);
        let key = key.clone();
        let signed = tokio::task::spawn_blocking(move || key.answer(&challenge, &nonce)).await;
        let signed = signed.map_err(|error| CallError::local(&error))?;
        Ok(signed.map_err(|error| CallError::answer(format!("challenge: {error}")))?.to_json())
    }
}

/// Reads the files once, so that an agent that could never attest again does not start.
pub(crate) fn check_files(source: &X509PopSource) -> Result<(), String> {
    match source {
        X509PopSource::Files { .. } => read(source).map(drop),
        X509PopSource::WorkloadApi { .. } => Ok(()),
    }
}

/// The proof in files; an error names the file.
fn read(source: &X509PopSource) -> Result<Proof, String> {
    let X509PopSource::Files { private_key, certificate, intermediates } = source else {
        return Err("there are no files to read".into());
    };
    let mut certificates = certificates(certificate)?;
    if let Some(path) = intermediates {
        certificates.extend(self::certificates(path)?);
    }
    let text = bytes(private_key)?;
    let key = PrivateKeyDer::from_pem_slice(&text)
        .map_err(|error| format!("no private key in {}: {error}", private_key.display()))?;
    proof(certificates, key).map_err(|why| format!("{}: {why}", private_key.display()))
}

fn proof(
    certificates: Vec<CertificateDer<'static>>,
    mut key: PrivateKeyDer<'static>,
) -> Result<Proof, String> {
    let parsed = NodeKey::from_der(&key);
    key.zeroize();
    let key = parsed.map_err(|error| error.to_string())?;
    let leaf = certificates.first().ok_or("there is no certificate")?;
    key.require_certificate(leaf).map_err(|error| error.to_string())?;
    Ok(Proof::X509Pop { payload: Payload { certificates }, key: Arc::new(key) })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    certificates_from_pem(&bytes(path)?)
        .map_err(|error| format!("no certificate in {}: {error}", path.display()))
}

fn bytes(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let unreadable = |error| format!("cannot read {}: {error}", path.display());
    let mut bytes = Zeroizing::new(Vec::new());
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{} has more than {FILE_BYTES_MAX} bytes", path.display()));
    }
    Ok(bytes)
}

/// The proof by the first SVID of a Workload API, the caller's default identity.
async fn fetched(socket: &Path) -> Result<Proof, String> {
    let svid = other_agent::x509_svids(socket).await?.svids.into_iter().next();
    let svid = svid.ok_or("it has none for this agent")?;
    let certificates = split_der_certificates(&svid.x509_svid).map_err(|error| error.to_string())?;
    proof(certificates, PrivatePkcs8KeyDer::from(svid.x509_svid_key.to_vec()).into())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use spindle_runtime::SystemEntropy;
    use spindle_testkit::{NOW, NodeKeyKind, NodePki, TestFolder};

    use super::*;
    use crate::plugins::PluginSettings;

    fn files(private_key: PathBuf, certificate: PathBuf) -> X509PopSource {
        X509PopSource::Files { private_key, certificate, intermediates: None }
    }

    fn live(source: X509PopSource) -> LivePlugins {
        LivePlugins::new(PluginSettings { x509pop: Some(source), ..PluginSettings::default() })
    }

    #[tokio::test]
    async fn a_certificate_and_its_key_are_shown_and_answer() {
        let (folder, root) = (TestFolder::new(), NodePki::root("root", NOW));
        let between = root.intermediate("between");
        for (kind, challenge) in [
            (NodeKeyKind::P256, Challenge::ecdsa(&[1; 32])),
            (NodeKeyKind::Rsa2048, Challenge::rsa(&[1; 32])),
        ] {
            let node = between.node_with(|request| request.key = kind);
            let (certificate, private_key) = node.write(&folder, "node", &[]);
            let intermediates = Some(folder.file("between.pem", between.pem()));
            let source = X509PopSource::Files { private_key, certificate, intermediates };
            check_files(&source).unwrap();
            let proof = Proof::load(ProofSource::X509Pop(&live(source))).await.unwrap();
            let certificates = vec![node.der.clone(), between.certificate().clone()];
            assert_eq!((proof.kind(), proof.payload()), ("x509pop", Payload { certificates }.to_json()));
            let entropy = SystemEntropy;
            assert!(!proof.answer(&challenge.to_json(), &entropy).await.unwrap().is_empty());
            for bad in
                [&b"not json"[..], b"{}", br#"{"rsa_signature":{"nonce":""},"ecdsa_signature":{"nonce":""}}"#]
            {
                let error = proof.answer(bad, &entropy).await.unwrap_err().to_string();
                assert!(error.contains("makes no sense: challenge: "), "{error}");
            }
        }
    }

    #[test]
    fn files_that_prove_nothing_are_named() {
        let (folder, root) = (TestFolder::new(), NodePki::root("root", NOW));
        let (certificate, key) = root.node("one").write(&folder, "one", &[]);
        let (_, other_key) = root.node("other").write(&folder, "other", &[]);
        let ed25519 = root.node_with(|request| request.key = NodeKeyKind::Ed25519);
        let (ed25519, ed25519_key) = ed25519.write(&folder, "ed25519", &[]);
        let (missing, empty) = (folder.join("missing"), folder.file("empty", ""));
        let large = folder.file("large", vec![b' '; 256 * 1024 + 1]);
        for (source, says) in [
            (
                files(other_key, certificate.clone()),
                "other.key: the private key is not the one of the certificate",
            ),
            (files(ed25519_key, ed25519), "ed25519.key: the private key is not RSA"),
            (files(missing.clone(), certificate.clone()), "cannot read"),
            (files(key.clone(), missing), "cannot read"),
            (files(empty.clone(), certificate.clone()), "no private key in"),
            (files(certificate.clone(), certificate.clone()), "no private key in"),
            (files(key.clone(), empty.clone()), "no certificate in"),
            (files(key.clone(), key.clone()), "no certificate in"),
            (files(large, certificate.clone()), "has more than"),
            (
                X509PopSource::Files { private_key: key, certificate, intermediates: Some(empty) },
                "no certificate in",
            ),
        ] {
            let error = check_files(&source).expect_err(says);
            assert!(error.contains(says), "{error}");
        }
    }

    #[tokio::test]
    async fn a_workload_api_that_is_not_there_is_named() {
        let folder = TestFolder::new();
        let source = X509PopSource::WorkloadApi { socket: folder.socket("away.sock") };
        let error = Proof::load(ProofSource::X509Pop(&live(source))).await.err().unwrap().to_string();
        assert!(error.contains("no SVID from the Workload API at") && error.contains("away.sock"), "{error}");
    }
}
