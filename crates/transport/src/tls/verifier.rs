//! rustls verifiers that apply SPIFFE's rules instead of the Web's.
//!
//! One verifier serves one handshake: it keeps what it found, so that the outcome of the check and not a second reading of
//! the certificate names the peer, and a refusal keeps its full cause. Names in the TLS sense are never looked at.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use spindle_spiffe_core::{Clock, Reason, VerifyError, X509Svid, verify_x509_svid};

use super::dial::ExpectedServer;
use super::live::LiveBundles;
use super::provider;

/// What a verifier found, to be asked for after the handshake. Empty when no certificate was presented.
pub(super) type Verdict = OnceLock<Result<X509Svid, VerifyError>>;

/// What a peer's chain is held against.
pub(super) enum Anchors {
    /// The bundles of the moment.
    Bundles(LiveBundles),
    /// Nothing: only the leaf's form and its SPIFFE ID are checked.
    Unchecked,
}

/// Verifies one peer.
pub(super) struct SpiffeVerifier {
    anchors: Anchors,
    /// Which server it has to be; clients may be anyone who is trusted.
    expected: Option<ExpectedServer>,
    /// Whether a client has to present a certificate.
    is_mandatory: bool,
    clock: Arc<dyn Clock>,
    algorithms: WebPkiSupportedAlgorithms,
    verdict: Verdict,
}

impl SpiffeVerifier {
    pub(super) fn new(anchors: Anchors, expected: Option<ExpectedServer>, clock: Arc<dyn Clock>) -> Self {
        let algorithms = provider().signature_verification_algorithms;
        Self { anchors, expected, is_mandatory: false, clock, algorithms, verdict: Verdict::new() }
    }

    /// Lets no client in without a certificate.
    pub(super) fn demanding(self, is_mandatory: bool) -> Self {
        Self { is_mandatory, ..self }
    }

    /// What the handshake found. The peer has also proven its key if, and only if, the handshake was completed.
    pub(super) fn verdict(&self) -> Option<&Result<X509Svid, VerifyError>> {
        self.verdict.get()
    }

    fn verify(&self, leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Result<(), Error> {
        let chain: Vec<CertificateDer<'_>> = std::iter::once(leaf)
            .chain(intermediates)
            .map(|der| CertificateDer::from(der.as_ref()))
            .collect();
        match self.verdict.get_or_init(|| self.judge(&chain)) {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::InvalidCertificate(alert_for(error))),
        }
    }

    fn judge(&self, chain: &[CertificateDer<'_>]) -> Result<X509Svid, VerifyError> {
        let svid = match &self.anchors {
            Anchors::Bundles(bundles) => verify_x509_svid(chain, &bundles.load(), self.clock.now())?,
            Anchors::Unchecked => {
                X509Svid::parse(chain.iter().map(|der| der.clone().into_owned()).collect())?
            }
        };
        match &self.expected {
            None => Ok(svid),
            Some(expected) => expected.check(&svid).map(|()| svid),
        }
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }
}

/// rustls tells the peer by alert what was wrong, in the words of TLS; everything else stays on our side.
fn alert_for(error: &VerifyError) -> CertificateError {
    match error.reason() {
        Reason::PeerExpired => CertificateError::Expired,
        Reason::PeerWrongId => CertificateError::ApplicationVerificationFailure,
        _ if matches!(error, VerifyError::Svid(_)) => CertificateError::BadEncoding,
        _ => CertificateError::UnknownIssuer,
    }
}

/// Only TLS 1.3 is configured.
fn no_tls12() -> Error {
    Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13)
}

impl fmt::Debug for SpiffeVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpiffeVerifier").field("expected", &self.expected).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for SpiffeVerifier {
    /// Not at a server: agents without an identity must be able to attest.
    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    /// No hints: the roots change, and a client has one identity to offer anyway.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(leaf, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for SpiffeVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(leaf, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
