//! The incremental variant: requests change the set of names, answers hold what is new or gone. Pure.
//!
//! A name that stands for nothing is reported as removed and stays subscribed: it is sent as soon as there is something. The
//! stream goes on, where the other variant has to refuse.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use spindle_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource as Named,
};

use super::catalog::{Catalog, Missing, Resource, Version};
use super::exchange::{
    BadRequest, COMPLETE_WAIT, Exchange, NAMES_MAX, Refused, Step, WILDCARD, check_name, check_type,
};
use super::secret::SECRET_TYPE;
use super::validation::Validation;

/// What one proxy wants and has.
pub(super) struct Delta {
    validation: Validation,
    configured: Validation,
    has_request: bool,
    wants_all: bool,
    names: BTreeSet<String>,
    /// What the proxy was told of each name: a version, or that there is nothing.
    told: BTreeMap<String, Option<Version>>,
    answers: u64,
}

/// What the proxy has been told with an answer.
pub(super) type Told = Vec<(String, Option<Version>)>;

impl Delta {
    pub(super) fn new(configured: Validation) -> Self {
        Self {
            validation: configured,
            configured,
            has_request: false,
            wants_all: false,
            names: BTreeSet::new(),
            told: BTreeMap::new(),
            answers: 0,
        }
    }

    /// What is subscribed again is sent again, for the proxy may have dropped it.
    fn subscribe(&mut self, names: Vec<String>) -> Result<(), BadRequest> {
        for name in names.into_iter().filter(|name| !name.is_empty()) {
            check_name(&name)?;
            if name == WILDCARD {
                self.wants_all = true;
                continue;
            }
            self.told.remove(&name);
            self.names.insert(name);
        }
        if self.names.len() > NAMES_MAX { Err(BadRequest::TooMany) } else { Ok(()) }
    }

    /// What the wildcard still covers is told anew, so that the proxy knows whether there is such a thing.
    fn unsubscribe(&mut self, names: &[String]) {
        for name in names {
            if name == WILDCARD {
                self.wants_all = false;
                self.told.retain(|name, _| self.names.contains(name));
            }
            self.names.remove(name);
            self.told.remove(name);
        }
    }

    /// Versions that the proxy kept from an earlier stream, of what it still wants.
    fn remember(&mut self, versions: BTreeMap<String, String>) -> Result<(), BadRequest> {
        if versions.len() > NAMES_MAX {
            return Err(BadRequest::TooMany);
        }
        for (name, version) in versions {
            check_name(&name)?;
            if self.wants_all || self.names.contains(&name) {
                self.told.insert(name, Some(Version::reported(version)));
            }
        }
        Ok(())
    }

    /// Everything wanted that there is, and the names of what there is not.
    fn survey<'a>(&self, catalog: &Catalog<'a>) -> Result<Survey<'a>, Refused> {
        let mut survey = Survey { found: BTreeMap::new(), unknown: Vec::new(), late: BTreeSet::new() };
        if self.wants_all {
            survey.found.extend(catalog.all().into_iter().map(|one| (one.name.clone(), one)));
        }
        for name in &self.names {
            match catalog.find(name) {
                Ok(resource) => {
                    survey.found.insert(name.clone(), resource);
                }
                Err(Missing::Signing) => {
                    survey.late.insert(name.clone());
                }
                Err(Missing::Unknown | Missing::Unsigned) => survey.unknown.push(name.clone()),
                Err(Missing::NeedsValidator) => return Err(Refused::NeedsValidator(name.clone())),
            }
        }
        Ok(survey)
    }

    /// What differs from what the proxy was told.
    fn difference(&self, survey: &Survey<'_>) -> (Vec<Named>, Told, Vec<String>) {
        let (mut resources, mut told) = (Vec::new(), Told::new());
        for (name, resource) in &survey.found {
            let version = resource.version();
            if self.told.get(name) != Some(&Some(version.clone())) {
                resources.push(Named {
                    version: version.to_string(),
                    resource: Some(resource.encode()),
                    name: name.clone(),
                });
                told.push((name.clone(), Some(version)));
            }
        }
        let gone = self.told.iter().filter(|(name, version)| {
            let is_there = survey.found.contains_key(*name) || survey.late.contains(*name);
            version.is_some() && !is_there
        });
        let never = survey.unknown.iter().filter(|name| !self.told.contains_key(*name));
        let removed: Vec<String> = gone.map(|(name, _)| name).chain(never).cloned().collect();
        told.extend(removed.iter().map(|name| (name.clone(), None)));
        (resources, told, removed)
    }
}

/// What the wanted names stand for.
struct Survey<'a> {
    found: BTreeMap<String, Resource<'a>>,
    unknown: Vec<String>,
    /// Being signed: to be told when that is done, and till then what the proxy has is not taken from it.
    late: BTreeSet<String>,
}

impl Exchange for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;
    type Sent = Told;

    fn take(&mut self, request: DeltaDiscoveryRequest) -> Result<Option<String>, BadRequest> {
        check_type(&request.type_url)?;
        if let Some(node) = &request.node {
            self.validation = Validation::of(node, self.configured);
        }
        let is_first = !std::mem::replace(&mut self.has_request, true);
        self.wants_all |= is_first && request.resource_names_subscribe.is_empty();
        self.subscribe(request.resource_names_subscribe)?;
        if is_first {
            self.remember(request.initial_resource_versions)?;
        }
        self.unsubscribe(&request.resource_names_unsubscribe);
        Ok(request.error_detail.map(|detail| detail.message))
    }

    fn has_request(&self) -> bool {
        self.has_request
    }

    fn validation(&self) -> Validation {
        self.validation
    }

    fn step(&self, catalog: &Catalog<'_>, waited: Duration) -> Step<DeltaDiscoveryResponse, Told> {
        if !self.wants_all && self.names.is_empty() {
            return Step::Nothing;
        }
        if catalog.is_empty() {
            return Step::Refuse(Refused::Starting);
        }
        let survey = match self.survey(catalog) {
            Ok(survey) => survey,
            Err(refused) => return Step::Refuse(refused),
        };
        // One more identity can change what these stand for.
        let may_grow = self.wants_all || self.names.iter().any(|name| catalog.is_default(name));
        if self.answers == 0 && may_grow && catalog.is_signing() && waited < COMPLETE_WAIT {
            return Step::WaitUpTo(COMPLETE_WAIT);
        }
        let (resources, sent, removed) = self.difference(&survey);
        if resources.is_empty() && removed.is_empty() {
            return Step::Nothing;
        }
        let answer = self.answers + 1;
        let response = DeltaDiscoveryResponse {
            system_version_info: answer.to_string(),
            resources,
            type_url: SECRET_TYPE.to_owned(),
            nonce: format!("{answer:08x}"),
            removed_resources: removed.clone(),
        };
        Step::Send { response, sent, unknown: removed }
    }

    fn note(&mut self, sent: Told) {
        self.answers += 1;
        for (name, version) in sent {
            if version.is_some() || self.names.contains(&name) {
                self.told.insert(name, version);
            } else {
                self.told.remove(&name);
            }
        }
    }
}
