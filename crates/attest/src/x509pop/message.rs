//! The three JSON messages, with SPIRE's member names: byte strings are base64 with padding, and unknown members are passed
//! over, as Go's decoder does.

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::proof::Nonce;

/// The longest message taken, in bytes: five certificates with RSA keys of 8192 bits, twice over.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Why bytes are not the message that is expected.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Longer than [`MESSAGE_BYTES_MAX`].
    #[error("a message has at most {MESSAGE_BYTES_MAX} bytes, this one has {0}")]
    Length(usize),
    /// Not JSON, or a member of another kind than it must be.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A certificate that is not base64.
    #[error("certificate {0} is not base64")]
    Certificate(usize),
}

/// What a node shows first: its chain, leaf first, without the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// DER, not yet looked at.
    pub certificates: Vec<CertificateDer<'static>>,
}

#[derive(Serialize, Deserialize)]
struct PayloadText<'a> {
    #[serde(borrow, default)]
    certificates: Option<Vec<Cow<'a, str>>>,
}

impl Payload {
    /// The message for the wire.
    pub fn to_json(&self) -> Vec<u8> {
        let texts = self.certificates.iter().map(|der| BASE64_STANDARD.encode(der).into()).collect();
        json(&PayloadText { certificates: Some(texts) })
    }

    /// Reads a message. How many certificates there are, and what is in them, is judged later.
    ///
    /// # Errors
    /// When it is too long, not JSON, or a certificate not base64.
    pub fn parse(message: &[u8]) -> Result<Self, MessageError> {
        let texts = bounded::<PayloadText<'_>>(message)?.certificates.unwrap_or_default();
        let decode = |(index, text): (usize, Cow<'_, str>)| {
            let der = BASE64_STANDARD.decode(text.as_bytes()).map_err(|_| MessageError::Certificate(index));
            der.map(CertificateDer::from)
        };
        let certificates = texts.into_iter().enumerate().map(decode).collect::<Result<_, _>>()?;
        Ok(Self { certificates })
    }
}

/// What a server asks to be signed. A node takes the member for its kind of key; servers fill in only that one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// For RSA keys.
    #[serde(default)]
    pub rsa_signature: Option<Asked>,
    /// For EC keys.
    #[serde(default)]
    pub ecdsa_signature: Option<Asked>,
}

/// One member of a challenge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The server's nonce.
    #[serde(default, serialize_with = "to_text", deserialize_with = "from_text")]
    pub nonce: Vec<u8>,
}

/// A node's answer, with the member that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// By an RSA key.
    #[serde(default)]
    pub rsa_signature: Option<RsaProof>,
    /// By an EC key.
    #[serde(default)]
    pub ecdsa_signature: Option<EcdsaProof>,
}

/// RSA-PSS over both nonces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RsaProof {
    /// The node's nonce.
    #[serde(default, serialize_with = "to_text", deserialize_with = "from_text")]
    pub nonce: Vec<u8>,
    /// The signature.
    #[serde(default, serialize_with = "to_text", deserialize_with = "from_text")]
    pub signature: Vec<u8>,
}

/// ECDSA over both nonces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EcdsaProof {
    /// The node's nonce.
    #[serde(default, serialize_with = "to_text", deserialize_with = "from_text")]
    pub nonce: Vec<u8>,
    /// Big-endian, without leading zeros.
    #[serde(default, serialize_with = "to_text", deserialize_with = "from_text")]
    pub r: Vec<u8>,
    /// Big-endian, without leading zeros.
    #[serde(default, serialize_with = "to_text", deserialize_with = "from_text")]
    pub s: Vec<u8>,
}

impl Challenge {
    /// One for an RSA key.
    pub fn rsa(nonce: &Nonce) -> Self {
        Self { rsa_signature: Some(Asked { nonce: nonce.to_vec() }), ecdsa_signature: None }
    }

    /// One for an EC key.
    pub fn ecdsa(nonce: &Nonce) -> Self {
        Self { rsa_signature: None, ecdsa_signature: Some(Asked { nonce: nonce.to_vec() }) }
    }

    /// The message for the wire.
    pub fn to_json(&self) -> Vec<u8> {
        json(self)
    }

    /// Reads a message.
    ///
    /// # Errors
    /// When it is too long or not JSON.
    pub fn parse(message: &[u8]) -> Result<Self, MessageError> {
        bounded(message)
    }
}

impl Response {
    /// The message for the wire.
    pub fn to_json(&self) -> Vec<u8> {
        json(self)
    }

    /// Reads a message.
    ///
    /// # Errors
    /// When it is too long or not JSON.
    pub fn parse(message: &[u8]) -> Result<Self, MessageError> {
        bounded(message)
    }
}

fn json(message: &impl Serialize) -> Vec<u8> {
    // Texts, lists and byte strings in structs: nothing that JSON cannot say.
    serde_json::to_vec(message).expect("these messages are always JSON")
}

fn bounded<'a, T: Deserialize<'a>>(message: &'a [u8]) -> Result<T, MessageError> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(MessageError::Length(message.len()));
    }
    Ok(serde_json::from_slice(message)?)
}

fn to_text<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
}

/// A byte string; `null` is an empty one, as in Go.
fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = Option::<Cow<'de, str>>::deserialize(deserializer)?.unwrap_or_default();
    BASE64_STANDARD.decode(text.as_bytes()).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_look_as_spires_do() {
        let certificates = vec![vec![1, 2, 3].into(), vec![4].into()];
        assert_eq!(Payload { certificates }.to_json(), br#"{"certificates":["AQID","BA=="]}"#);
        let challenge = String::from_utf8(Challenge::rsa(&[0; 32]).to_json()).unwrap();
        let nonce = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let expected = format!(r#"{{"rsa_signature":{{"nonce":"{nonce}"}},"ecdsa_signature":null}}"#);
        assert_eq!(challenge, expected);
        let proof = EcdsaProof { nonce: vec![1], r: vec![2], s: vec![] };
        let response = Response { rsa_signature: None, ecdsa_signature: Some(proof) };
        let expected = br#"{"rsa_signature":null,"ecdsa_signature":{"nonce":"AQ==","r":"Ag==","s":""}}"#;
        assert_eq!(response.to_json(), expected);
    }

    #[test]
    fn what_go_takes_is_taken() {
        for text in [r#"{}"#, r#"{"certificates":null}"#, r#"{"certificates":[],"more":[1]}"#] {
            assert_eq!(Payload::parse(text.as_bytes()).unwrap().certificates, [], "{text}");
        }
        let escaped = Payload::parse(br#"{"certificates":["A\u0051ID"]}"#).unwrap();
        assert_eq!(escaped.certificates, [CertificateDer::from(vec![1, 2, 3])]);
        let response = Response::parse(br#"{"rsa_signature":{"nonce":null,"signature":"AQ=="}}"#).unwrap();
        assert_eq!(response.rsa_signature, Some(RsaProof { nonce: vec![], signature: vec![1] }));
        assert_eq!(Challenge::parse(b"{}").unwrap(), Challenge::default());
    }

    #[test]
    fn what_is_not_the_message_is_refused() {
        for text in ["", "{", "null", "7", r#"{"certificates":"AQID"}"#, r#"{"certificates":[1]}"#] {
            let refused = Payload::parse(text.as_bytes());
            assert!(matches!(refused, Err(MessageError::Json(_))), "{text}: {refused:?}");
        }
        let refused = Payload::parse(br#"{"certificates":["AQID","%"]}"#);
        assert!(matches!(refused, Err(MessageError::Certificate(1))), "{refused:?}");
        assert!(Response::parse(br#"{"ecdsa_signature":{"r":"!"}}"#).is_err());
        assert!(Challenge::parse(br#"{"ecdsa_signature":7}"#).is_err());
        let long = vec![b' '; MESSAGE_BYTES_MAX + 1];
        assert!(matches!(Challenge::parse(&long), Err(MessageError::Length(_))));
    }
}
