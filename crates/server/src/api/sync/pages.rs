//! Cuts an update into messages that every receiver takes.
//!
//! A message is closed when its parts reach a size or a number, so it is larger by at most its last part. Nothing is made
//! before the reader is ready for it.

use std::collections::VecDeque;
use std::sync::Arc;

use prost::Message;
use spindle_proto::convert::entry_to_proto;
use spindle_proto::spire::api::types;
use spindle_proto::sync::v1 as wire;

use super::sent::Update;
use crate::directory::EntryRow;

/// Parts of one kind in one page: about 200 KiB of ordinary entries.
const PAGE_PARTS: usize = 500;

/// A page is closed at this size, in bytes. No entry or bundle is larger than a request, so it stays far below the 16 MiB
/// that our agents take.
const PAGE_BYTES: usize = 1024 * 1024;

/// An update on its way, page by page; there is at least one.
pub(super) struct Pages {
    revision: wire::Revision,
    snapshot: bool,
    entries: VecDeque<Arc<EntryRow>>,
    removed: VecDeque<String>,
    own_bundle: Option<types::Bundle>,
    federated: VecDeque<types::Bundle>,
    unfederated: VecDeque<String>,
    done: bool,
}

impl Pages {
    pub(super) fn of(update: Update, history: &[u8]) -> Self {
        Self {
            revision: wire::Revision { history: history.to_vec().into(), number: update.revision },
            snapshot: update.snapshot,
            entries: update.changed.into(),
            removed: update.removed.iter().map(ToString::to_string).collect(),
            own_bundle: update.own_bundle,
            federated: update.federated.into(),
            unfederated: update.unfederated.iter().map(ToString::to_string).collect(),
            done: false,
        }
    }
}

impl Iterator for Pages {
    type Item = wire::FollowResponse;

    fn next(&mut self) -> Option<wire::FollowResponse> {
        if self.done {
            return None;
        }
        let mut page = wire::FollowResponse {
            revision: Some(self.revision.clone()),
            snapshot: self.snapshot,
            bundle: self.own_bundle.take(),
            ..Default::default()
        };
        let mut room = Room { bytes: page.encoded_len() };
        room.fill(&mut page.federated_bundles, &mut self.federated, Message::encoded_len, |bundle| bundle);
        room.fill(&mut page.removed_federated_trust_domains, &mut self.unfederated, String::len, |name| name);
        room.fill(&mut page.removed_entry_ids, &mut self.removed, String::len, |id| id);
        room.fill(&mut page.entries, &mut self.entries, Message::encoded_len, |row| {
            entry_to_proto(&row.entry)
        });
        self.done = self.federated.is_empty()
            && self.unfederated.is_empty()
            && self.removed.is_empty()
            && self.entries.is_empty();
        page.last = self.done;
        Some(page)
    }
}

/// How much is in a page.
struct Room {
    bytes: usize,
}

impl Room {
    /// Moves parts into the page while there is room.
    fn fill<P, T>(
        &mut self,
        page: &mut Vec<P>,
        parts: &mut VecDeque<T>,
        size: impl Fn(&P) -> usize,
        make: impl Fn(T) -> P,
    ) {
        while self.bytes < PAGE_BYTES && page.len() < PAGE_PARTS {
            let Some(part) = parts.pop_front() else { return };
            let part = make(part);
            // A tag and a length come with each.
            self.bytes += size(&part) + 8;
            page.push(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{create, directory, entry, id};

    fn pages(update: Update) -> Vec<wire::FollowResponse> {
        let pages: Vec<_> = Pages::of(update, &[7; 16]).collect();
        let (last, others) = pages.split_last().unwrap();
        assert!(last.last && others.iter().all(|page| !page.last));
        assert!(pages.iter().all(|page| page.encoded_len() < 2 * PAGE_BYTES + PAGE_BYTES));
        pages
    }

    #[test]
    fn an_update_of_nothing_is_one_page() {
        let page = pages(Update { revision: 5, ..Update::default() }).remove(0);
        assert_eq!(page.revision, Some(wire::Revision { history: vec![7; 16].into(), number: 5 }));
    }

    #[test]
    fn removals_and_bundles_are_spread_over_pages() {
        let id = |n: usize| format!("{n:0255}").parse().unwrap();
        let bundle = |n: usize| types::Bundle {
            trust_domain: format!("d{n}.example"),
            x509_authorities: vec![types::X509Certificate { asn1: vec![0; 400_000].into(), tainted: false }],
            ..Default::default()
        };
        let update = Update {
            removed: (0..1200).map(id).collect(),
            federated: (0..7).map(bundle).collect(),
            unfederated: vec!["gone.example".parse().unwrap()],
            ..Update::default()
        };
        let pages = pages(update);
        let counts: Vec<_> =
            pages.iter().map(|page| (page.federated_bundles.len(), page.removed_entry_ids.len())).collect();
        assert_eq!(counts, [(3, 0), (3, 0), (1, 500), (0, 500), (0, 200)]);
        assert_eq!(pages.iter().map(|page| page.removed_federated_trust_domains.len()).sum::<usize>(), 1);
    }

    #[tokio::test]
    async fn large_entries_make_small_pages() {
        let directory = directory();
        let selectors: Vec<String> = (0..100).map(|n| format!("a:{n:04000}")).collect();
        let selectors: Vec<&str> = selectors.iter().map(String::as_str).collect();
        for n in 0..7 {
            create(&directory, entry(&id("/node"), &format!("/w{n}"), &selectors)).await;
        }
        let changed = directory.view().entries_after(0).cloned().collect();
        let counts: Vec<_> =
            pages(Update { changed, ..Update::default() }).iter().map(|p| p.entries.len()).collect();
        assert_eq!(counts, [3, 3, 1]);
    }
}
