//! The filter flags that `entry show` and `entry count` share.

use spindle_proto::spire::api::server::entry::v1::{count_entries_request, list_entries_request};
use spindle_proto::spire::api::types;

use crate::args::set;
use crate::error::Failure;
use crate::input::{self, Match};

#[derive(Debug, Clone, clap::Args)]
pub(super) struct FilterFlags {
    /// Only entries below this parent.
    #[arg(long = "parentID", value_name = "ID")]
    pub(super) parent_id: Option<String>,
    /// Only entries that give this SPIFFE ID.
    #[arg(long = "spiffeID", value_name = "ID")]
    pub(super) spiffe_id: Option<String>,
    /// Only entries for downstream servers; without it, entries of both kinds.
    #[arg(long = "downstream")]
    pub(super) downstream: bool,
    /// A selector in the form type:value; can be repeated.
    #[arg(long = "selector", value_name = "SELECTOR")]
    pub(super) selectors: Vec<String>,
    /// A trust domain that entries federate with, as its SPIFFE ID; can be repeated.
    #[arg(long = "federatesWith", value_name = "ID")]
    pub(super) federates_with: Vec<String>,
    /// How -federatesWith is compared: exact, any, superset or subset.
    #[arg(long = "matchFederatesWithOn", value_name = "MATCH", default_value = "superset")]
    pub(super) match_federates_with_on: Match,
    /// How -selector is compared: exact, any, superset or subset.
    #[arg(long = "matchSelectorsOn", value_name = "MATCH", default_value = "superset")]
    pub(super) match_selectors_on: Match,
    /// Only entries with this hint.
    #[arg(long = "hint", value_name = "TEXT")]
    pub(super) hint: Option<String>,
}

impl FilterFlags {
    /// The filter. A `by_downstream` of false is sent as SPIRE's tool sends it, and means no filter to both servers.
    pub(super) fn list(&self) -> Result<list_entries_request::Filter, Failure> {
        let id = |name, text: &Option<String>| set(text).map(|text| input::spiffe_id(name, text)).transpose();
        let federates_with = types::FederatesWithMatch {
            trust_domains: self.federates_with.clone(),
            r#match: self.match_federates_with_on as i32,
        };
        Ok(list_entries_request::Filter {
            by_spiffe_id: id("spiffeID", &self.spiffe_id)?,
            by_parent_id: id("parentID", &self.parent_id)?,
            by_selectors: input::selector_match(&self.selectors, self.match_selectors_on)?,
            by_federates_with: (!self.federates_with.is_empty()).then_some(federates_with),
            by_hint: set(&self.hint).map(str::to_owned),
            by_downstream: Some(self.downstream),
        })
    }

    /// The same filter for counting.
    pub(super) fn count(&self) -> Result<count_entries_request::Filter, Failure> {
        let filter = self.list()?;
        Ok(count_entries_request::Filter {
            by_spiffe_id: filter.by_spiffe_id,
            by_parent_id: filter.by_parent_id,
            by_selectors: filter.by_selectors,
            by_federates_with: filter.by_federates_with,
            by_hint: filter.by_hint,
            by_downstream: filter.by_downstream,
        })
    }
}
