//! The claims of a token by name, each with the form that RFC 7519 4.1 gives it.

use serde_json::{Map, Value};

use crate::jws::TokenError;
use crate::spiffe_id::SpiffeId;
use crate::time::Timestamp;

/// The difference between clocks that is forgiven when nobody says another.
pub const LEEWAY_SECS_DEFAULT: u32 = 60;

/// The largest difference between clocks that can be forgiven (WIT-SVID 3.4: up to about two minutes).
pub const LEEWAY_SECS_MAX: u32 = 120;

/// How much clocks may differ, in seconds: by that much a token may be past its end or before its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leeway(u32);

/// More leeway than [`LEEWAY_SECS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the leeway for clocks is at most {LEEWAY_SECS_MAX} seconds, not {0}")]
pub struct LeewayError(u32);

impl Leeway {
    /// No leeway at all.
    pub const NONE: Leeway = Leeway(0);

    /// A leeway of 0 to [`LEEWAY_SECS_MAX`] seconds.
    ///
    /// # Errors
    /// When it is more.
    pub fn from_secs(secs: u32) -> Result<Self, LeewayError> {
        if secs > LEEWAY_SECS_MAX { Err(LeewayError(secs)) } else { Ok(Self(secs)) }
    }

    /// The seconds.
    pub fn secs(self) -> i64 {
        i64::from(self.0)
    }
}

impl Default for Leeway {
    fn default() -> Self {
        Self(LEEWAY_SECS_DEFAULT)
    }
}

/// The members of a payload.
pub(crate) struct Claims(Map<String, Value>);

impl Claims {
    pub(super) fn new(members: Map<String, Value>) -> Self {
        Self(members)
    }

    /// The claim as it stands.
    pub(crate) fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    pub(crate) fn into_members(self) -> Map<String, Value> {
        self.0
    }

    /// A claim that is a text, if it is there.
    pub(crate) fn text(&self, name: &'static str) -> Result<Option<&str>, TokenError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(TokenError::Claim { name, form: "a text" }),
        }
    }

    /// The subject. It may be without a path: no text of the standards demands one in tokens.
    pub(crate) fn subject(&self) -> Result<SpiffeId, TokenError> {
        let text = self.text("sub")?.ok_or(TokenError::NoClaim("sub"))?;
        text.parse().map_err(TokenError::Subject)
    }

    /// The audience, of one value or a list of them (RFC 7519 4.1.3); none when the claim is missing.
    pub(crate) fn audience(&self) -> Result<Option<Vec<String>>, TokenError> {
        let malformed = || TokenError::Claim { name: "aud", form: "a text or a list of texts" };
        match self.value("aud") {
            None => Ok(None),
            Some(Value::String(one)) => Ok(Some(vec![one.clone()])),
            Some(Value::Array(many)) => {
                let texts = many.iter().map(|value| value.as_str().map(str::to_owned));
                texts.collect::<Option<Vec<_>>>().map(Some).ok_or_else(malformed)
            }
            Some(_) => Err(malformed()),
        }
    }

    /// When the token was issued, if it says so. Nothing depends on it.
    pub(crate) fn issued_at(&self) -> Result<Option<Timestamp>, TokenError> {
        self.date("iat", f64::floor)
    }

    /// The first second at which it is valid, if it says so. Times are whole seconds here, so a fraction rounds up.
    pub(crate) fn not_before(&self) -> Result<Option<Timestamp>, TokenError> {
        self.date("nbf", f64::ceil)
    }

    /// The first second at which it is no longer valid, which must be there.
    pub(crate) fn expires_at(&self) -> Result<Timestamp, TokenError> {
        self.date("exp", f64::ceil)?.ok_or(TokenError::NoClaim("exp"))
    }

    /// Checks that the token has begun and not ended (RFC 7519 4.1.4, 4.1.5), and tells when it ends.
    pub(crate) fn check_time(&self, now: Timestamp, leeway: Leeway) -> Result<Timestamp, TokenError> {
        let expires_at = self.expires_at()?;
        if now >= expires_at + leeway.secs() {
            return Err(TokenError::Expired { expires_at, now });
        }
        match self.not_before()? {
            Some(not_before) if now < not_before - leeway.secs() => {
                Err(TokenError::NotYetValid { not_before, now })
            }
            _ => Ok(expires_at),
        }
    }

    /// A NumericDate (RFC 7519 2), an integer or with a fraction, that fits 63 bits of seconds.
    fn date(&self, name: &'static str, round: fn(f64) -> f64) -> Result<Option<Timestamp>, TokenError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let secs = value.as_i64().or_else(|| {
            let number = round(value.as_f64()?);
            // 2^63, the first number that does not fit.
            (number.abs() < 9_223_372_036_854_775_808.0).then_some(number as i64)
        });
        let secs = secs.ok_or(TokenError::Claim { name, form: "a number of seconds since 1970" })?;
        Ok(Some(Timestamp::from_unix_secs(secs)))
    }
}
