//! The state-of-the-world variant: each request holds the whole list of names, each answer all the resources. Pure.
//!
//! As SPIRE, with two differences: an answer that would say the same again is not sent, and an empty list of names stands
//! for everything only until names have been given on the stream, as the protocol has it.

use std::collections::BTreeSet;
use std::time::Duration;

use spindle_proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};

use super::catalog::{Catalog, Missing, Resource, Version};
use super::exchange::{
    BadRequest, COMPLETE_WAIT, Exchange, FIRST_WAIT, NAMES_MAX, Refused, Step, WILDCARD, check_name,
    check_type,
};
use super::secret::SECRET_TYPE;
use super::validation::Validation;

/// What one proxy wants and has.
pub(super) struct Sotw {
    validation: Validation,
    configured: Validation,
    wanted: Option<Wanted>,
    has_named: bool,
    /// Answers sent; the last one's version and nonce are made from it.
    answers: u64,
    has: Option<Vec<(String, Version)>>,
    is_single: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Named(BTreeSet<String>),
}

impl Sotw {
    /// For a stream.
    pub(super) fn new(configured: Validation) -> Self {
        let (wanted, has) = (None, None);
        Self {
            validation: configured,
            configured,
            wanted,
            has_named: false,
            answers: 0,
            has,
            is_single: false,
        }
    }

    /// For one question and one answer, which has neither version nor nonce.
    pub(super) fn single(configured: Validation) -> Self {
        Self { is_single: true, ..Self::new(configured) }
    }

    fn nonce(&self, answer: u64) -> String {
        if self.is_single { String::new() } else { format!("{answer:08x}") }
    }

    fn version_info(&self, answer: u64) -> String {
        if self.is_single { String::new() } else { answer.to_string() }
    }

    /// What is wanted by these names.
    fn wanted(&self, names: Vec<String>) -> Result<Wanted, BadRequest> {
        let names: BTreeSet<String> = names.into_iter().filter(|name| !name.is_empty()).collect();
        if names.len() > NAMES_MAX {
            return Err(BadRequest::TooMany);
        }
        names.iter().try_for_each(|name| check_name(name))?;
        let is_everything = names.contains(WILDCARD) || (names.is_empty() && !self.has_named);
        Ok(if is_everything { Wanted::All } else { Wanted::Named(names) })
    }

    fn send(&self, found: &[Resource<'_>]) -> Step<DiscoveryResponse, Vec<(String, Version)>> {
        let sent: Vec<(String, Version)> =
            found.iter().map(|resource| (resource.name.clone(), resource.version())).collect();
        if self.has.as_ref() == Some(&sent) {
            return Step::Nothing;
        }
        let answer = self.answers + 1;
        let response = DiscoveryResponse {
            version_info: self.version_info(answer),
            resources: found.iter().map(Resource::encode).collect(),
            type_url: SECRET_TYPE.to_owned(),
            nonce: self.nonce(answer),
        };
        Step::Send { response, sent, unknown: Vec::new() }
    }
}

impl Exchange for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;
    type Sent = Vec<(String, Version)>;

    fn take(&mut self, request: DiscoveryRequest) -> Result<Option<String>, BadRequest> {
        check_type(&request.type_url)?;
        let rejected = request.error_detail.map(|detail| detail.message);
        let is_stale = self.answers > 0 && request.response_nonce != self.nonce(self.answers);
        if is_stale {
            return Ok(rejected);
        }
        if let Some(node) = &request.node {
            self.validation = Validation::of(node, self.configured);
        }
        let wanted = self.wanted(request.resource_names)?;
        self.has_named |= matches!(&wanted, Wanted::Named(names) if !names.is_empty());
        self.wanted = Some(wanted);
        Ok(rejected)
    }

    fn has_request(&self) -> bool {
        self.wanted.is_some()
    }

    fn validation(&self) -> Validation {
        self.validation
    }

    fn step(&self, catalog: &Catalog<'_>, waited: Duration) -> Step<DiscoveryResponse, Self::Sent> {
        let names = match &self.wanted {
            None => return Step::Nothing,
            Some(Wanted::Named(names)) if names.is_empty() => return Step::Nothing,
            Some(Wanted::Named(names)) => Some(names),
            Some(Wanted::All) => None,
        };
        if catalog.is_empty() {
            return Step::Refuse(Refused::Starting);
        }
        let found = match names {
            None => catalog.all(),
            Some(names) => match find_each(catalog, names) {
                Ok(found) => found,
                Err(Why::Refused(refused)) => return Step::Refuse(refused),
                Err(Why::Signing) if waited < FIRST_WAIT => return Step::WaitUpTo(FIRST_WAIT),
                Err(Why::Signing) => return Step::Refuse(Refused::NotReady),
            },
        };
        // One more identity can change what these stand for.
        let may_grow = names.is_none_or(|names| names.iter().any(|name| catalog.is_default(name)));
        if self.has.is_none() && may_grow && catalog.is_signing() && waited < COMPLETE_WAIT {
            return Step::WaitUpTo(COMPLETE_WAIT);
        }
        self.send(&found)
    }

    fn note(&mut self, sent: Self::Sent) {
        self.answers += 1;
        self.has = Some(sent);
    }
}

/// Why not all of the names can be given.
enum Why {
    Signing,
    Refused(Refused),
}

/// All or nothing. Unknown names come first: no waiting makes them known.
fn find_each<'a>(catalog: &Catalog<'a>, names: &BTreeSet<String>) -> Result<Vec<Resource<'a>>, Why> {
    let (mut found, mut unknown, mut late) = (Vec::new(), Vec::new(), None);
    for name in names {
        match catalog.find(name) {
            Ok(resource) => found.push(resource),
            Err(Missing::Unknown) => unknown.push(name.clone()),
            Err(Missing::NeedsValidator) => return Err(Why::Refused(Refused::NeedsValidator(name.clone()))),
            Err(Missing::Unsigned) => late = Some(Why::Refused(Refused::NotReady)),
            Err(Missing::Signing) => late = late.or(Some(Why::Signing)),
        }
    }
    match late {
        _ if !unknown.is_empty() => Err(Why::Refused(Refused::Unknown(unknown))),
        Some(why) => Err(why),
        None => Ok(found),
    }
}
