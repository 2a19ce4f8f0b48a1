//! The keys of `server { … }` that are about JWT-SVIDs.

use spindle_keys::KeyType;
use spindle_server::JwtSettings;

use super::note_lifetime;
use crate::config::ConfigError;
use crate::config::section::Section;
use crate::config::values::{key_type, lifetime_secs};

/// The keys as written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RawJwt {
    /// `jwt_key_type`.
    pub key_type: Option<String>,
    /// `default_jwt_svid_ttl`.
    pub default_ttl: Option<String>,
    /// `jwt_issuer`.
    pub issuer: Option<String>,
    /// `disable_jwt_svids`.
    pub disabled: Option<bool>,
}

impl RawJwt {
    /// Reads them out of `server { … }`.
    pub(super) fn read(server: &Section<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            key_type: server.text("jwt_key_type")?,
            default_ttl: server.text("default_jwt_svid_ttl")?,
            issuer: server.text("jwt_issuer")?,
            disabled: server.switch("disable_jwt_svids")?,
        })
    }

    /// The settings. A key type that is not written is that of X.509 authorities.
    pub(super) fn ready(
        self,
        ca_key_type: KeyType,
        ca_ttl_secs: i64,
        notes: &mut Vec<String>,
    ) -> Result<JwtSettings, ConfigError> {
        let ttl_key = "server.default_jwt_svid_ttl";
        let settings = JwtSettings {
            enabled: !self.disabled.unwrap_or(false),
            key_type: match &self.key_type {
                Some(text) => key_type("server.jwt_key_type", Some(text))?,
                None => ca_key_type,
            },
            default_ttl_secs: lifetime_secs(ttl_key, self.default_ttl.as_deref(), JwtSettings::TTL_SECS)?,
            issuer: self.issuer.filter(|issuer| !issuer.is_empty()),
        };
        if settings.enabled {
            note_lifetime(ttl_key, settings.default_ttl_secs, ca_ttl_secs, notes);
        }
        Ok(settings)
    }
}
