//! The filter flags that `agent list` and `agent count` share.

use std::convert::Infallible;
use std::str::FromStr;

use spindle_proto::spire::api::server::agent::v1::{count_agents_request, list_agents_request};

use crate::args::set;
use crate::error::Failure;
use crate::input::{self, Match};

#[derive(Debug, Clone, clap::Args)]
pub(super) struct FilterFlags {
    /// A selector in the form type:value; can be repeated.
    #[arg(long = "selector", value_name = "SELECTOR")]
    selectors: Vec<String>,
    /// Only agents attested this way, like join_token.
    #[arg(long = "attestationType", value_name = "TYPE")]
    attestation_type: Option<String>,
    /// true: only agents that can attest again; false: only others; else all.
    #[arg(long = "canReattest", value_name = "BOOL", default_value = "")]
    can_reattest: ThreeWay,
    /// true: only banned agents; false: only others; else all.
    #[arg(long = "banned", value_name = "BOOL", default_value = "")]
    banned: ThreeWay,
    /// Only agents whose SVID ends before this time, like "2026-01-02 15:04:05 +0000 +00".
    #[arg(long = "expiresBefore", value_name = "TIME")]
    expires_before: Option<String>,
    /// How -selector is compared: exact, any, superset or subset.
    #[arg(long = "matchSelectorsOn", value_name = "MATCH", default_value = "superset")]
    match_selectors_on: Match,
}

/// True, false, or no matter; any other word means no matter, as with SPIRE's tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ThreeWay(Option<bool>);

impl FromStr for ThreeWay {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(match text {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }))
    }
}

impl FilterFlags {
    pub(super) fn list(&self) -> Result<list_agents_request::Filter, Failure> {
        let expires_before = set(&self.expires_before).unwrap_or_default();
        check_time(expires_before)?;
        Ok(list_agents_request::Filter {
            by_attestation_type: self.attestation_type.clone().unwrap_or_default(),
            by_selector_match: input::selector_match(&self.selectors, self.match_selectors_on)?,
            by_banned: self.banned.0,
            by_can_reattest: self.can_reattest.0,
            by_expires_before: expires_before.into(),
        })
    }

    pub(super) fn count(&self) -> Result<count_agents_request::Filter, Failure> {
        let filter = self.list()?;
        Ok(count_agents_request::Filter {
            by_attestation_type: filter.by_attestation_type,
            by_selector_match: filter.by_selector_match,
            by_banned: filter.by_banned,
            by_can_reattest: filter.by_can_reattest,
            by_expires_before: filter.by_expires_before,
        })
    }
}

/// Go's layout `2006-01-02 15:04:05 -0700 -07`; the server reads it for itself, so this only tells a mistake early.
fn check_time(text: &str) -> Result<(), Failure> {
    if text.is_empty() {
        return Ok(());
    }
    let format = time::macros::format_description!(
        "[year]-[month]-[day] [hour]:[minute]:[second] [offset_hour sign:mandatory][offset_minute]"
    );
    let read = text.rsplit_once(' ').filter(|(_, zone)| is_zone(zone)).map(|(time, _)| time);
    match read.map(|time| time::OffsetDateTime::parse(time, format)) {
        Some(Ok(_)) => Ok(()),
        _ => Err(Failure::new(format!("-expiresBefore {text:?} is not a time"))
            .try_this("write it like \"2026-01-02 15:04:05 +0000 +00\"")),
    }
}

/// A sign and two digits.
fn is_zone(text: &str) -> bool {
    matches!(text.as_bytes(), [b'+' | b'-', tens, ones] if tens.is_ascii_digit() && ones.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_gos_layout_is_a_time() {
        check_time("").unwrap();
        check_time("2026-01-02 15:04:05 +0000 +00").unwrap();
        check_time("2026-01-02 15:04:05 -0700 -07").unwrap();
        for text in ["soon", "2026-01-02", "2026-01-02 15:04:05 +0000 UTC", "2026-13-02 15:04:05 +0000 +00"] {
            assert!(check_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn any_other_word_than_true_or_false_means_all() {
        let read = |text: &str| text.parse::<ThreeWay>().unwrap().0;
        assert_eq!(
            (read("true"), read("false"), read("all"), read("")),
            (Some(true), Some(false), None, None)
        );
    }
}
