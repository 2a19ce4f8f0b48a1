//! A WIT-SVID and its proof in the fields of an HTTP request. There is no way to send or to read one without the other.

use std::fmt;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};

use crate::jws::{Bundles, Compact, SignatureAlgorithm};
use crate::reason::Reason;
use crate::wit_proof::{ProofError, ProofRequest, ProofValidation};
use crate::wit_svid::{ProvenWit, WIT_TYPE, WitSvidError, WitValidation, validate_wit_svid};

/// The HTTP field that carries a WIT-SVID.
pub const WORKLOAD_IDENTITY_TOKEN_FIELD: HeaderName = HeaderName::from_static("workload-identity-token");

/// The HTTP field that carries its proof.
pub const WORKLOAD_PROOF_TOKEN_FIELD: HeaderName = HeaderName::from_static("workload-proof-token");

/// A WIT-SVID with a proof of possession.
#[derive(Clone, PartialEq, Eq)]
pub struct Presentation {
    wit_svid: String,
    proof: String,
}

/// Why a request does not show who sends it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PresentationError {
    /// A WIT-SVID where bearer tokens stand (WIT-SVID 5).
    #[error("a WIT-SVID is no bearer token and does not stand in the field \"authorization\"")]
    InAuthorization,
    /// The field with the WIT-SVID is not there once.
    #[error("the field \"workload-identity-token\" is to stand in the request once, not {0} times")]
    WitCount(usize),
    /// The field with the proof is not there once (WIT-SVID 4).
    #[error("the field \"workload-proof-token\" is to stand in the request once, not {0} times")]
    ProofCount(usize),
    /// A field that is not of visible ASCII characters.
    #[error("the field {0:?} does not hold a token")]
    NoToken(&'static str),
    /// The WIT-SVID is not valid.
    #[error("the WIT-SVID is not valid")]
    Wit(#[from] WitSvidError),
    /// The proof does not fit.
    #[error("the WIT-SVID is not accepted from this sender")]
    Proof(#[from] ProofError),
}

impl PresentationError {
    /// The rule that refused, for the status detail and the log.
    pub fn reason(&self) -> Reason {
        match self {
            Self::ProofCount(0) => Reason::ProofMissing,
            Self::Wit(error) => error.reason(),
            Self::Proof(error) => error.reason(),
            _ => Reason::TokenMalformed,
        }
    }
}

impl Presentation {
    /// A client's: the WIT-SVID with a fresh proof for one request; see [`ProofRequest::sign`].
    ///
    /// # Errors
    /// Those of `sign`.
    pub fn sign<E>(
        wit_svid: &str,
        algorithm: SignatureAlgorithm,
        request: &ProofRequest<'_>,
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let proof = request.sign(wit_svid, algorithm, sign)?;
        Ok(Self { wit_svid: wit_svid.to_owned(), proof })
    }

    /// Puts both into the fields of a request, in place of any that stood there.
    ///
    /// # Errors
    /// When the WIT-SVID is no text that fits an HTTP field.
    pub fn write(&self, fields: &mut HeaderMap) -> Result<(), InvalidHeaderValue> {
        let (mut wit_svid, mut proof) =
            (HeaderValue::from_str(&self.wit_svid)?, HeaderValue::from_str(&self.proof)?);
        wit_svid.set_sensitive(true);
        proof.set_sensitive(true);
        fields.insert(WORKLOAD_IDENTITY_TOKEN_FIELD, wit_svid);
        fields.insert(WORKLOAD_PROOF_TOKEN_FIELD, proof);
        Ok(())
    }

    /// A server's: what stands in the fields of a request, of which nothing was checked yet.
    ///
    /// # Errors
    /// When either field does not stand there exactly once, or a WIT-SVID stands where bearer tokens do.
    pub fn read(fields: &HeaderMap) -> Result<Self, PresentationError> {
        if fields.get_all(AUTHORIZATION).iter().any(holds_wit_svid) {
            return Err(PresentationError::InAuthorization);
        }
        let wit_svid = only(fields, &WORKLOAD_IDENTITY_TOKEN_FIELD, PresentationError::WitCount)?;
        let proof = only(fields, &WORKLOAD_PROOF_TOKEN_FIELD, PresentationError::ProofCount)?;
        let text = |value: &HeaderValue, name| {
            value.to_str().map(str::to_owned).map_err(|_| PresentationError::NoToken(name))
        };
        Ok(Self {
            wit_svid: text(wit_svid, "workload-identity-token")?,
            proof: text(proof, "workload-proof-token")?,
        })
    }

    /// Accepts the sender, if the WIT-SVID is valid and the proof fits it and the request.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn verify(
        &self,
        bundles: &(impl Bundles + ?Sized),
        wit: &WitValidation,
        proof: &ProofValidation<'_>,
    ) -> Result<ProvenWit, PresentationError> {
        Ok(validate_wit_svid(&self.wit_svid, bundles, wit)?.prove(&self.proof, proof)?)
    }
}

impl fmt::Debug for Presentation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Presentation")
    }
}

fn only<'f>(
    fields: &'f HeaderMap,
    name: &HeaderName,
    fault: fn(usize) -> PresentationError,
) -> Result<&'f HeaderValue, PresentationError> {
    let mut values = fields.get_all(name).iter();
    match (values.next(), values.count()) {
        (Some(value), 0) => Ok(value),
        (first, more) => Err(fault(usize::from(first.is_some()) + more)),
    }
}

/// Whether any word of the value says of itself that it is a WIT-SVID, whatever the scheme in front of it.
fn holds_wit_svid(value: &HeaderValue) -> bool {
    let text = value.to_str().unwrap_or_default();
    text.split([' ', '\t', ',']).any(|word| {
        let header = Compact::parse(word).and_then(|token| token.header());
        header.is_ok_and(|header| header.token_type() == Ok(Some(WIT_TYPE)))
    })
}
