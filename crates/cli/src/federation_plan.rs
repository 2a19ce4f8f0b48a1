//! What has to be done so that a server has the bundles and federation relationships of another.
//!
//! Pure, as `entry_plan`. Nothing that is here is changed unless that is asked for, and a bundle that is newer here than
//! there never is. Start at [`FederationPlan::make`].

use std::collections::{BTreeMap, BTreeSet};

use spindle_proto::spire::api::types;
use spindle_proto::spire::api::types::federation_relationship::BundleEndpointProfile;

/// The bundles of other trust domains, and the relationships with them.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Federation {
    /// Bundles of other trust domains.
    pub bundles: Vec<types::Bundle>,
    /// How they are kept up to date; without bundles.
    pub relationships: Vec<types::FederationRelationship>,
}

/// One thing that is set.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// The bundle of a trust domain.
    Bundle(types::Bundle),
    /// The relationship with a trust domain.
    Relationship(types::FederationRelationship),
}

impl Item {
    /// What it is, in words.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Bundle(_) => "bundle",
            Self::Relationship(_) => "relationship",
        }
    }

    /// The other trust domain.
    pub fn trust_domain(&self) -> &str {
        match self {
            Self::Bundle(bundle) => &bundle.trust_domain,
            Self::Relationship(relationship) => &relationship.trust_domain,
        }
    }
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub struct FederationStep {
    /// As it is to be.
    pub item: Item,
    /// How what is here differs; empty when nothing is here.
    pub changes: Vec<String>,
}

impl FederationStep {
    /// `create` or `update`.
    pub fn verb(&self) -> &'static str {
        if self.changes.is_empty() { "create" } else { "update" }
    }
}

/// Something that is left alone.
#[derive(Debug, Clone, PartialEq)]
pub struct FederationConflict {
    /// What was wanted.
    pub item: Item,
    /// What stands in the way.
    pub what: String,
    /// What to try.
    pub remedy: &'static str,
}

/// What has to be done: bundles, then relationships.
#[derive(Debug, Default, PartialEq)]
pub struct FederationPlan {
    /// What is to be done.
    pub steps: Vec<FederationStep>,
    /// What is not.
    pub conflicts: Vec<FederationConflict>,
    /// What is here as it is there.
    pub unchanged: usize,
}

impl FederationPlan {
    /// Compares. With `change`, what is here and differs is changed.
    pub fn make(theirs: Federation, here: &Federation, change: bool) -> Self {
        let mut plan = Self::default();
        let bundles: BTreeMap<_, _> =
            here.bundles.iter().map(|bundle| (bundle.trust_domain.as_str(), bundle)).collect();
        for bundle in theirs.bundles {
            match bundles.get(bundle.trust_domain.as_str()) {
                None => plan.step(Item::Bundle(bundle), Vec::new()),
                Some(here) => plan.bundle(bundle, here, change),
            }
        }
        let relationships: BTreeMap<_, _> =
            here.relationships.iter().map(|one| (one.trust_domain.as_str(), one)).collect();
        for mut relationship in theirs.relationships {
            relationship.trust_domain_bundle = None;
            match relationships.get(relationship.trust_domain.as_str()) {
                None => plan.step(Item::Relationship(relationship), Vec::new()),
                Some(here) => {
                    let changes = relationship_changes(here, &relationship);
                    plan.differs(Item::Relationship(relationship), changes, change);
                }
            }
        }
        plan
    }

    /// Trust domains whose bundle the plan sets.
    pub fn new_bundles(&self) -> BTreeSet<String> {
        let bundles = self.steps.iter().filter(|step| matches!(step.item, Item::Bundle(_)));
        bundles.map(|step| step.item.trust_domain().to_owned()).collect()
    }

    fn bundle(&mut self, theirs: types::Bundle, here: &types::Bundle, change: bool) {
        let changes = bundle_changes(here, &theirs);
        if !changes.is_empty() && here.sequence_number > theirs.sequence_number {
            self.conflicts.push(FederationConflict {
                what: format!(
                    "the bundle here is newer: it has sequence number {}, the other one {}",
                    here.sequence_number, theirs.sequence_number
                ),
                item: Item::Bundle(theirs),
                remedy: "keep it, or delete it here first",
            });
            return;
        }
        self.differs(Item::Bundle(theirs), changes, change);
    }

    fn differs(&mut self, item: Item, changes: Vec<String>, change: bool) {
        if changes.is_empty() {
            self.unchanged += 1;
        } else if change {
            self.step(item, changes);
        } else {
            let what = format!("it is here and differs: {}", changes.join(", "));
            let remedy = "change one of the two, or let -update change the one that is here";
            self.conflicts.push(FederationConflict { item, what, remedy });
        }
    }

    fn step(&mut self, item: Item, changes: Vec<String>) {
        self.steps.push(FederationStep { item, changes });
    }
}

/// Which lists of keys differ, by how many there are. Sequence numbers are each server's own count.
fn bundle_changes(here: &types::Bundle, theirs: &types::Bundle) -> Vec<String> {
    let x509 = |bundle: &types::Bundle| -> BTreeSet<_> {
        bundle.x509_authorities.iter().map(|one| (one.asn1.clone(), one.tainted)).collect()
    };
    let jwt = |bundle: &types::Bundle| -> BTreeSet<_> {
        let keys = bundle.jwt_authorities.iter();
        keys.map(|one| (one.key_id.clone(), one.public_key.clone(), one.expires_at, one.tainted)).collect()
    };
    let wit = |bundle: &types::Bundle| -> BTreeSet<_> {
        let keys = bundle.wit_authorities.iter();
        keys.map(|one| (one.key_id.clone(), one.public_key.clone(), one.expires_at, one.tainted)).collect()
    };
    let hint = |bundle: &types::Bundle| bundle.refresh_hint;
    let mut changes = Vec::new();
    changes.extend(set_change("x509_authorities", &x509(here), &x509(theirs)));
    changes.extend(set_change("jwt_authorities", &jwt(here), &jwt(theirs)));
    changes.extend(set_change("wit_authorities", &wit(here), &wit(theirs)));
    if hint(here) != hint(theirs) {
        changes.push(format!("refresh_hint {} -> {}", hint(here), hint(theirs)));
    }
    changes
}

fn set_change<T: Ord>(name: &str, here: &BTreeSet<T>, theirs: &BTreeSet<T>) -> Option<String> {
    let (gone, new) = (here.difference(theirs).count(), theirs.difference(here).count());
    (gone + new > 0).then(|| format!("{name} (of {}, {gone} go and {new} come)", here.len()))
}

fn relationship_changes(
    here: &types::FederationRelationship,
    theirs: &types::FederationRelationship,
) -> Vec<String> {
    let mut changes = Vec::new();
    if here.bundle_endpoint_url != theirs.bundle_endpoint_url {
        changes.push(format!(
            "bundle_endpoint_url {} -> {}",
            here.bundle_endpoint_url, theirs.bundle_endpoint_url
        ));
    }
    let (old, new) = (profile(here), profile(theirs));
    if old != new {
        changes.push(format!("bundle_endpoint_profile {old} -> {new}"));
    }
    changes
}

/// The profile in words.
pub fn profile(relationship: &types::FederationRelationship) -> String {
    match &relationship.bundle_endpoint_profile {
        Some(BundleEndpointProfile::HttpsWeb(_)) => "https_web".into(),
        Some(BundleEndpointProfile::HttpsSpiffe(spiffe)) => {
            format!("https_spiffe {}", spiffe.endpoint_spiffe_id)
        }
        None => "none".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(name: &str, keys: &[u8], sequence_number: u64) -> types::Bundle {
        let authority = |key: &u8| types::X509Certificate { asn1: vec![*key].into(), tainted: false };
        types::Bundle {
            trust_domain: name.into(),
            x509_authorities: keys.iter().map(authority).collect(),
            sequence_number,
            ..types::Bundle::default()
        }
    }

    fn relationship(name: &str, url: &str) -> types::FederationRelationship {
        types::FederationRelationship {
            trust_domain: name.into(),
            bundle_endpoint_url: url.into(),
            bundle_endpoint_profile: Some(BundleEndpointProfile::HttpsWeb(types::HttpsWebProfile {})),
            trust_domain_bundle: Some(bundle(name, &[9], 9)),
        }
    }

    fn federation(bundles: &[types::Bundle], relationships: &[types::FederationRelationship]) -> Federation {
        Federation { bundles: bundles.to_vec(), relationships: relationships.to_vec() }
    }

    /// The plan in short, once without and once with leave to change.
    #[track_caller]
    fn check(theirs: &Federation, here: &Federation, kept: &[&str], changed: &[&str]) {
        for (change, expected) in [(false, kept), (true, changed)] {
            let plan = FederationPlan::make(theirs.clone(), here, change);
            let name = |item: &Item| format!("{} {}", item.kind(), item.trust_domain());
            let steps = plan.steps.iter().map(|step| format!("{} {}", step.verb(), name(&step.item)));
            let conflicts = plan.conflicts.iter().map(|one| format!("conflict {}", name(&one.item)));
            let short: Vec<_> =
                steps.chain(conflicts).chain([format!("{} unchanged", plan.unchanged)]).collect();
            assert_eq!(short, expected, "change: {change}");
        }
    }

    #[test]
    fn what_is_not_here_is_made_and_what_is_the_same_is_not() {
        let theirs = federation(&[bundle("a", &[1, 2], 5)], &[relationship("a", "https://a")]);
        let all = &["create bundle a", "create relationship a", "0 unchanged"];
        check(&theirs, &Federation::default(), all, all);
        // Order and sequence numbers are each server's own; the bundle of a relationship stands by itself.
        let mut here = federation(&[bundle("a", &[2, 1], 3)], &[relationship("a", "https://a")]);
        here.relationships[0].trust_domain_bundle = None;
        check(&theirs, &here, &["2 unchanged"], &["2 unchanged"]);
    }

    #[test]
    fn what_differs_is_changed_only_when_that_is_asked_for() {
        let theirs = federation(&[bundle("a", &[1, 2], 5)], &[relationship("a", "https://b")]);
        let here = federation(&[bundle("a", &[1], 5)], &[relationship("a", "https://a")]);
        check(
            &theirs,
            &here,
            &["conflict bundle a", "conflict relationship a", "0 unchanged"],
            &["update bundle a", "update relationship a", "0 unchanged"],
        );
        let plan = FederationPlan::make(theirs, &here, true);
        assert_eq!(plan.steps[0].changes, ["x509_authorities (of 1, 0 go and 1 come)"]);
        assert_eq!(plan.steps[1].changes, ["bundle_endpoint_url https://a -> https://b"]);
        assert_eq!(plan.new_bundles(), BTreeSet::from(["a".to_owned()]));
    }

    #[test]
    fn a_newer_bundle_never_gives_way_to_an_older_one() {
        let (theirs, here) =
            (federation(&[bundle("a", &[1], 5)], &[]), federation(&[bundle("a", &[2], 6)], &[]));
        let conflict = &["conflict bundle a", "0 unchanged"];
        check(&theirs, &here, conflict, conflict);
    }

    #[test]
    fn every_part_of_a_bundle_and_a_relationship_counts() {
        let plain = bundle("a", &[1], 0);
        let differs = |change: fn(&mut types::Bundle)| {
            let mut other = plain.clone();
            change(&mut other);
            !bundle_changes(&plain, &other).is_empty()
        };
        assert!(differs(|bundle| bundle.x509_authorities[0].tainted = true));
        assert!(differs(|bundle| bundle.refresh_hint = 60));
        assert!(differs(|bundle| bundle.jwt_authorities.push(types::JwtKey::default())));
        assert!(differs(|bundle| bundle.wit_authorities.push(types::WitKey::default())));
        let web = relationship("a", "https://a");
        let endpoint_spiffe_id = "spiffe://a/b".to_owned();
        let spiffe = types::FederationRelationship {
            bundle_endpoint_profile: Some(BundleEndpointProfile::HttpsSpiffe(types::HttpsspiffeProfile {
                endpoint_spiffe_id,
            })),
            ..web.clone()
        };
        assert_eq!(
            relationship_changes(&web, &spiffe),
            ["bundle_endpoint_profile https_web -> https_spiffe spiffe://a/b"]
        );
    }
}
