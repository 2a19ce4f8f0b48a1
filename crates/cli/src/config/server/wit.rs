//! The keys of `server { experimental { … } }` that are about WIT-SVIDs: SPIRE's feature flag, and what it switches on.

use spindle_keys::KeyType;
use spindle_server::WitSettings;

use crate::config::ConfigError;
use crate::config::section::Section;
use crate::config::values::key_type;

/// Names that `feature_flags` may hold, SPIRE's; the second is for its own tests and does nothing.
const FLAGS: [&str; 2] = [WIT_SVID, "i_am_a_test_flag"];

/// Switches WIT-SVIDs on.
const WIT_SVID: &str = "wit-svid";

/// The keys as written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RawWit {
    /// `wit_key_type`.
    pub key_type: Option<String>,
    /// `wit_issuer`.
    pub issuer: Option<String>,
    /// `feature_flags`.
    pub flags: Option<Vec<String>>,
}

impl RawWit {
    /// Reads them out of `experimental { … }`.
    pub(super) fn read(experimental: &Section<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            key_type: experimental.text("wit_key_type")?,
            issuer: experimental.text("wit_issuer")?,
            flags: experimental.texts("feature_flags")?,
        })
    }

    /// The settings. A key type that is not written is that of X.509 authorities.
    pub(super) fn ready(
        self,
        ca_key_type: KeyType,
        notes: &mut Vec<String>,
    ) -> Result<WitSettings, ConfigError> {
        let flags = self.flags.unwrap_or_default();
        if let Some(unknown) = flags.iter().find(|flag| !FLAGS.contains(&flag.as_str())) {
            let known = FLAGS.join(", ");
            return Err(ConfigError::value(
                "server.experimental.feature_flags",
                format!("unknown feature flag {unknown:?}; there are {known}"),
            ));
        }
        let enabled = flags.iter().any(|flag| flag == WIT_SVID);
        let written = [("wit_key_type", &self.key_type), ("wit_issuer", &self.issuer)];
        for (key, _) in written.iter().filter(|(_, value)| value.is_some() && !enabled) {
            notes.push(format!(
                "server.experimental.{key} has no effect: feature_flags does not name {WIT_SVID:?}, so there are no WIT-SVIDs"
            ));
        }
        let issuer = self.issuer.filter(|issuer| !issuer.is_empty());
        if let Some(issuer) = issuer.as_deref().filter(|issuer| enabled && is_web(issuer)) {
            notes.push(format!(
                "server.experimental.wit_issuer is {issuer:?}: a receiver could take it for an OpenID Connect provider, and WIT-SVIDs \
                 are none of its tokens (WIT-SVID 3.7)"
            ));
        }
        Ok(WitSettings {
            enabled,
            key_type: match &self.key_type {
                Some(text) => key_type("server.experimental.wit_key_type", Some(text))?,
                None => ca_key_type,
            },
            issuer,
        })
    }
}

/// Whether OpenID Connect Discovery could be tried on it, which asks for an https URL.
fn is_web(issuer: &str) -> bool {
    issuer.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(raw: RawWit) -> (Result<WitSettings, ConfigError>, Vec<String>) {
        let mut notes = Vec::new();
        (raw.ready(KeyType::EcP384, &mut notes), notes)
    }

    fn flags(names: &[&str]) -> RawWit {
        RawWit { flags: Some(names.iter().map(|name| (*name).to_owned()).collect()), ..RawWit::default() }
    }

    #[test]
    fn gen_05_there_are_no_wit_svids_unless_the_feature_flag_is_set() {
        let off = WitSettings { enabled: false, key_type: KeyType::EcP384, issuer: None };
        for raw in [RawWit::default(), flags(&[]), flags(&["i_am_a_test_flag"])] {
            let (settings, notes) = ready(raw);
            assert_eq!((settings.unwrap(), notes), (off.clone(), vec![]));
        }
        let (settings, notes) = ready(flags(&["i_am_a_test_flag", "wit-svid"]));
        assert_eq!((settings.unwrap(), notes), (WitSettings { enabled: true, ..off }, vec![]));
    }

    #[test]
    fn an_unknown_flag_and_an_unknown_key_type_are_refused_by_key() {
        let (fault, _) = ready(flags(&["wit-svid", "wit"]));
        let fault = fault.unwrap_err().to_string();
        assert!(fault.contains("feature_flags") && fault.contains("unknown feature flag \"wit\""), "{fault}");
        let (fault, _) = ready(RawWit { key_type: Some("ed25519".into()), ..flags(&["wit-svid"]) });
        assert!(fault.unwrap_err().to_string().contains("wit_key_type"));
    }

    #[test]
    fn wit_33_a_key_of_each_kind_signs_by_a_permitted_algorithm_and_other_kinds_are_refused() {
        for kind in KeyType::ALL {
            let raw = RawWit { key_type: Some(kind.to_string()), ..flags(&["wit-svid"]) };
            assert_eq!(ready(raw).0.unwrap().key_type, kind);
        }
        for other in ["ed25519", "ec-p521", "rsa-1024"] {
            assert!(ready(RawWit { key_type: Some(other.into()), ..flags(&["wit-svid"]) }).0.is_err());
        }
    }

    #[test]
    fn wit_29_an_issuer_that_discovery_could_use_is_noted_and_keys_without_effect_too() {
        let with = |issuer: &str| RawWit { issuer: Some(issuer.into()), ..flags(&["wit-svid"]) };
        for (issuer, noted) in
            [("spiffe://example.org", false), ("https://issuer.example", true), ("", false)]
        {
            let (settings, notes) = ready(with(issuer));
            assert_eq!(notes.iter().any(|note| note.contains("WIT-SVID 3.7")), noted, "{issuer}");
            assert_eq!(settings.unwrap().issuer.as_deref(), Some(issuer).filter(|text| !text.is_empty()));
        }
        let (_, notes) = ready(RawWit { flags: None, ..with("x") });
        assert!(notes.len() == 1 && notes[0].contains("wit_issuer has no effect"), "{notes:?}");
    }
}
