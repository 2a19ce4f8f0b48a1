//! Puts the pages of one update together. Nothing is applied before the last page is here.
//!
//! Pure. Entries and foreign bundles that cannot be understood are left out with a warning; pages that contradict each
//! other, or too many of them, are an error. Start at [`Collector::add`].

use spindle_proto::convert::{bundle_from_proto, existing_entry_from_proto};
use spindle_proto::sync::v1 as wire;
use spindle_spiffe_core::{Bundle, EntryId, RegistrationEntry, TrustDomain};
use tracing::{error, warn};

use super::revision::Revision;

/// The most entries in one update: more than a node can hold workloads, little enough to fit in memory.
const ENTRIES_MAX: usize = 100_000;

/// The length of a history id, in bytes.
const HISTORY_BYTES: usize = 16;

/// A whole update.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Collected {
    pub(super) revision: Revision,
    pub(super) snapshot: bool,
    pub(super) entries: Vec<RegistrationEntry>,
    pub(super) removed: Vec<EntryId>,
    pub(super) own_bundle: Option<Bundle>,
    pub(super) federated: Vec<Bundle>,
    /// Those that are there, but cannot be understood.
    pub(super) unreadable_federated: Vec<TrustDomain>,
    pub(super) removed_federated: Vec<TrustDomain>,
}

/// The pages of the update that is under way.
#[derive(Debug, Default)]
pub(super) struct Collector(Option<Collected>);

impl Collector {
    /// Adds a page; returns the update when it was the last one.
    pub(super) fn add(&mut self, page: wire::FollowResponse) -> Result<Option<Collected>, String> {
        let revision = page.revision.ok_or("a page without a revision")?;
        if revision.history.len() != HISTORY_BYTES {
            return Err(format!("a history id of {} bytes", revision.history.len()));
        }
        let revision = Revision { history: revision.history, number: revision.number };
        let update = self.0.get_or_insert_with(|| Collected::begin(revision.clone(), page.snapshot));
        if (&update.revision, update.snapshot) != (&revision, page.snapshot) {
            return Err("pages of two updates are mixed".into());
        }
        if update.entries.len() + page.entries.len() > ENTRIES_MAX {
            return Err(format!("an update of more than {ENTRIES_MAX} entries"));
        }
        for wire in &page.entries {
            match entry(wire) {
                Some(entry) => update.entries.push(entry),
                // What it was before must not be served either.
                None => update.removed.extend(wire.id.parse().ok()),
            }
        }
        // An id that is not well formed names nothing that is held.
        update.removed.extend(page.removed_entry_ids.iter().filter_map(|id| id.parse().ok()));
        if let Some(bundle) = &page.bundle {
            update.own_bundle = read_bundle(bundle).or(update.own_bundle.take());
        }
        for wire in &page.federated_bundles {
            match read_bundle(wire) {
                Some(bundle) => update.federated.push(bundle),
                None => update.unreadable_federated.extend(wire.trust_domain.parse().ok()),
            }
        }
        let gone = page.removed_federated_trust_domains.iter().filter_map(|name| name.parse().ok());
        update.removed_federated.extend(gone);
        Ok(if page.last { self.0.take() } else { None })
    }
}

impl Collected {
    fn begin(revision: Revision, snapshot: bool) -> Self {
        Self {
            revision,
            snapshot,
            entries: Vec::new(),
            removed: Vec::new(),
            own_bundle: None,
            federated: Vec::new(),
            unreadable_federated: Vec::new(),
            removed_federated: Vec::new(),
        }
    }
}

/// An entry out of a message; none, with a warning, when it cannot be understood.
pub(super) fn entry(wire: &spindle_proto::spire::api::types::Entry) -> Option<RegistrationEntry> {
    existing_entry_from_proto(wire)
        .inspect_err(|error| {
            warn!(entry_id = wire.id, %error, "an entry cannot be understood and is left out");
        })
        .ok()
}

/// A bundle out of a message; none, with an error in the log, when it cannot be understood.
pub(super) fn read_bundle(wire: &spindle_proto::spire::api::types::Bundle) -> Option<Bundle> {
    bundle_from_proto(wire)
        .inspect_err(|error| {
            error!(trust_domain_id = wire.trust_domain, %error, "a bundle cannot be understood; the old one stays");
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use spindle_proto::convert::{bundle_to_proto, entry_to_proto};

    use super::*;
    use crate::fixtures;

    fn page(number: u64, snapshot: bool, last: bool, ids: &[&str]) -> wire::FollowResponse {
        let entries = ids.iter().map(|id| entry_to_proto(&fixtures::entry(id, &["unix:uid:1"])));
        wire::FollowResponse {
            revision: Some(wire::Revision { history: Bytes::from_static(&[7; 16]), number }),
            snapshot,
            last,
            entries: entries.collect(),
            ..Default::default()
        }
    }

    fn ids(update: &Collected) -> Vec<&str> {
        update.entries.iter().map(|entry| entry.id.as_str()).collect()
    }

    #[test]
    fn nothing_is_there_before_the_last_page() {
        let mut collector = Collector::default();
        assert_eq!(collector.add(page(3, true, false, &["a", "b"])), Ok(None));
        let update = collector.add(page(3, true, true, &["c"])).unwrap().expect("the last page");
        assert_eq!((ids(&update), update.revision.number), (vec!["a", "b", "c"], 3));
        let next = collector.add(page(4, false, true, &["d"])).unwrap().expect("a whole update");
        assert_eq!((ids(&next), next.snapshot), (vec!["d"], false));
    }

    #[test]
    fn pages_of_different_updates_are_refused() {
        for second in [page(4, true, true, &[]), page(3, false, true, &[])] {
            let mut collector = Collector::default();
            collector.add(page(3, true, false, &[])).unwrap();
            assert!(collector.add(second).is_err());
        }
    }

    #[test]
    fn a_page_without_a_good_revision_is_refused() {
        let mut none = page(1, true, true, &[]);
        none.revision = None;
        let mut short = page(1, true, true, &[]);
        short.revision.as_mut().unwrap().history = Bytes::from_static(b"short");
        for bad in [none, short] {
            assert!(Collector::default().add(bad).is_err());
        }
    }

    #[test]
    fn an_entry_that_cannot_be_understood_is_left_out_alone() {
        let mut bad = page(1, true, true, &["a", "b"]);
        bad.entries[0].spiffe_id = None;
        let update = Collector::default().add(bad).unwrap().unwrap();
        assert_eq!(ids(&update), ["b"]);
        assert_eq!(update.removed, ["a".parse().unwrap()], "what it was is not served on");
    }

    #[test]
    fn a_bundle_that_cannot_be_understood_is_left_out_alone() {
        let mut bundle = Bundle::new(fixtures::trust_domain());
        bundle.x509_authorities =
            fixtures::Authority::new(&bundle.trust_domain).bundle.authorities().to_vec();
        let mut both = page(1, true, true, &[]);
        both.bundle = Some(bundle_to_proto(&bundle));
        let bad = spindle_proto::spire::api::types::X509Certificate {
            asn1: Bytes::from_static(b"bad"),
            tainted: false,
        };
        both.federated_bundles = vec![
            spindle_proto::spire::api::types::Bundle::default(),
            spindle_proto::spire::api::types::Bundle {
                trust_domain: "partner.example".into(),
                x509_authorities: vec![bad],
                ..Default::default()
            },
        ];
        let update = Collector::default().add(both).unwrap().unwrap();
        assert_eq!((update.own_bundle.is_some(), update.federated.len()), (true, 0));
        assert_eq!(update.unreadable_federated, ["partner.example".parse().unwrap()]);
    }
}
