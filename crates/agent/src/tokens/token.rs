//! A JWT-SVID as the agent holds it, and the name under which it is cached.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64_URL;
use serde::Deserialize;
use spindle_proto::convert::spiffe_id_from_proto;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::jws::TOKEN_BYTES_MAX;
use spindle_spiffe_core::{Audience, EntryId, RegistrationEntry, SpiffeId, Timestamp, Validity};
use zeroize::Zeroizing;

/// What makes two requests the same: the identity, and the set of services.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct TokenName {
    pub(super) spiffe_id: SpiffeId,
    /// Sorted, none twice.
    audience: Vec<String>,
}

impl TokenName {
    pub(super) fn new(spiffe_id: SpiffeId, audience: &Audience) -> Self {
        let mut audience = audience.values().to_vec();
        audience.sort_unstable();
        audience.dedup();
        Self { spiffe_id, audience }
    }

    /// The services, each once.
    pub(super) fn audience(&self) -> &[String] {
        &self.audience
    }
}

/// A signed token. Whoever has it can use it: it is never printed, and wiped on drop.
pub(crate) struct Token {
    text: Zeroizing<String>,
    /// The key that signed it; none when the token does not say.
    kid: Option<String>,
    entry_id: EntryId,
    ttl_secs: u32,
    spiffe_id: SpiffeId,
    issued_at: Timestamp,
    expires_at: Timestamp,
}

#[derive(Deserialize)]
struct Header {
    kid: Option<String>,
}

impl Token {
    /// Takes the server's answer for `entry`.
    ///
    /// # Errors
    /// In words, when the answer is not a living token of that entry's identity.
    pub(super) fn received(
        entry: &RegistrationEntry,
        svid: types::Jwtsvid,
        now: Timestamp,
    ) -> Result<Self, String> {
        let text = Zeroizing::new(svid.token);
        let spiffe_id = svid.id.as_ref().and_then(|id| spiffe_id_from_proto(id).ok());
        let spiffe_id = spiffe_id.ok_or("a JWT-SVID without a SPIFFE ID")?;
        if spiffe_id != entry.spiffe_id {
            return Err(format!("a JWT-SVID of {spiffe_id} for the entry of {}", entry.spiffe_id));
        }
        if text.len() > TOKEN_BYTES_MAX {
            return Err(format!("a JWT-SVID of {} bytes, at most {TOKEN_BYTES_MAX} are taken", text.len()));
        }
        let [issued_at, expires_at] = [svid.issued_at, svid.expires_at].map(Timestamp::from_unix_secs);
        if svid.issued_at <= 0 || expires_at <= issued_at || expires_at <= now {
            return Err(format!("a JWT-SVID that was issued at {issued_at} and ends at {expires_at}"));
        }
        let kid = header(&text).ok_or("a JWT-SVID that is no JWS in compact form")?.kid;
        let (entry_id, ttl_secs) = (entry.id.clone(), entry.jwt_svid_ttl_secs);
        Ok(Self { text, kid, entry_id, ttl_secs, spiffe_id, issued_at, expires_at })
    }

    /// The token in JWS compact form.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The identity it shows.
    pub(crate) fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// When it was issued, by the server's clock.
    pub(crate) fn issued_at(&self) -> Timestamp {
        self.issued_at
    }

    /// The first second in which it is not accepted any more (RFC 7519 4.1.4).
    pub(crate) fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// The seconds in which it is accepted.
    pub(super) fn validity(&self) -> Validity {
        Validity { not_before: self.issued_at, not_after: self.expires_at - 1 }
    }

    /// The key that signed it, if it says so.
    pub(super) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The entry it was signed for.
    pub(super) fn entry_id(&self) -> &EntryId {
        &self.entry_id
    }

    /// Whether `entry` still is what it was signed for.
    pub(super) fn is_of(&self, entry: &RegistrationEntry) -> bool {
        self.entry_id == entry.id
            && self.spiffe_id == entry.spiffe_id
            && self.ttl_secs == entry.jwt_svid_ttl_secs
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, until {})", self.spiffe_id, self.expires_at)
    }
}

/// The header of a token with three parts.
fn header(text: &str) -> Option<Header> {
    let (header, rest) = text.split_once('.')?;
    let (payload, signature) = rest.split_once('.')?;
    if payload.is_empty() || signature.is_empty() || signature.contains('.') {
        return None;
    }
    serde_json::from_slice(&BASE64_URL.decode(header).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use spindle_proto::convert::spiffe_id_to_proto;

    use super::*;
    use crate::fixtures::{NOW, entry};

    fn answer(header: &str) -> types::Jwtsvid {
        types::Jwtsvid {
            token: format!("{}.e30.c2ln", BASE64_URL.encode(header)),
            id: Some(spiffe_id_to_proto(&entry("a", &["unix:uid:1"]).spiffe_id)),
            expires_at: NOW.unix_secs() + 300,
            issued_at: NOW.unix_secs(),
            hint: String::new(),
        }
    }

    fn received(answer: types::Jwtsvid) -> Result<Token, String> {
        Token::received(&entry("a", &["unix:uid:1"]), answer, NOW)
    }

    #[test]
    fn a_token_tells_its_key_and_its_life_and_is_not_printed() {
        let token = received(answer(r#"{"alg":"ES256","kid":"k1","typ":"JWT"}"#)).unwrap();
        assert_eq!((token.kid(), token.expires_at()), (Some("k1"), NOW + 300));
        assert!(!format!("{token:?}").contains(token.text()));
        assert_eq!(received(answer(r#"{"alg":"ES256"}"#)).unwrap().kid(), None);
    }

    #[test]
    fn an_answer_that_is_no_living_token_of_the_entry_is_refused_in_words() {
        let good = answer("{}");
        let check = |bad: types::Jwtsvid, word: &str| {
            let why = received(bad).expect_err("must be refused");
            assert!(why.contains(word), "{why}");
        };
        check(types::Jwtsvid { id: None, ..good.clone() }, "without a SPIFFE ID");
        let other = spiffe_id_to_proto(&entry("b", &["unix:uid:1"]).spiffe_id);
        check(types::Jwtsvid { id: Some(other), ..good.clone() }, "spiffe://prod.example/b");
        check(types::Jwtsvid { expires_at: NOW.unix_secs(), ..good.clone() }, "ends at");
        check(types::Jwtsvid { issued_at: 0, ..good.clone() }, "issued at");
        check(types::Jwtsvid { issued_at: good.expires_at, ..good.clone() }, "issued at");
        for token in ["", "a", "a.b", "e30..c2ln", "e30.e30.", "!.e30.c2ln", "e30.e30.c2ln.e30.e30"] {
            check(types::Jwtsvid { token: token.into(), ..good.clone() }, "compact form");
        }
        check(types::Jwtsvid { token: "e".repeat(TOKEN_BYTES_MAX + 1), ..good.clone() }, "bytes");
    }

    #[test]
    fn an_audience_is_a_set() {
        let name = |values: &[&str]| {
            let audience = Audience::new(values.iter().map(|value| (*value).to_owned())).unwrap();
            TokenName::new(entry("a", &["unix:uid:1"]).spiffe_id, &audience)
        };
        assert_eq!(name(&["b", "a", "b"]), name(&["a", "b"]));
        assert_ne!(name(&["a"]), name(&["a", "b"]));
    }
}
