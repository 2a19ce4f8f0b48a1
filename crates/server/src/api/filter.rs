//! The list filters that entries and agents share: how two sets are compared, and how pages are cut.

use spindle_proto::refusal::refusal;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::{EntryId, Reason, Selectors};
use tonic::{Code, Status};

/// How the set on record must relate to the set given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetMatch {
    /// Both are the same.
    Exact,
    /// The set on record is within the given one, and not empty: as in SPIRE, one at least has to match.
    Subset,
    /// The set on record holds all of the given one.
    Superset,
    /// They share at least one.
    Any,
}

impl SetMatch {
    /// The wire value, which selector and trust domain filters share.
    pub(crate) fn from_wire(value: i32) -> Result<Self, Status> {
        match value {
            0 => Ok(Self::Exact),
            1 => Ok(Self::Subset),
            2 => Ok(Self::Superset),
            3 => Ok(Self::Any),
            other => Err(refusal(
                Code::InvalidArgument,
                Reason::BadRequest,
                &format!("match behavior {other} is not one of 0 to 3"),
            )),
        }
    }

    /// Whether a set on record passes, by its size, the size of the given set and how many members they share.
    ///
    /// Sizes are enough and cost nothing to find: a list may look at a hundred thousand sets.
    pub(crate) fn passes(self, on_record: usize, given: usize, shared: usize) -> bool {
        match self {
            Self::Exact => shared == on_record && shared == given,
            Self::Subset => shared == on_record && shared > 0,
            Self::Superset => shared == given,
            Self::Any => shared > 0,
        }
    }
}

/// A checked selector filter.
pub(crate) struct SelectorFilter {
    selectors: Selectors,
    how: SetMatch,
}

impl SelectorFilter {
    pub(crate) fn from_wire(wire: &types::SelectorMatch) -> Result<Self, Status> {
        let how = SetMatch::from_wire(wire.r#match)?;
        let selectors = spindle_proto::convert::selectors_from_proto(&wire.selectors)
            .map_err(|error| bad_request(&format!("malformed selector filter: {error}")))?;
        if selectors.is_empty() {
            return Err(bad_request("malformed selector filter: empty selector set"));
        }
        Ok(Self { selectors, how })
    }

    pub(crate) fn passes(&self, on_record: &Selectors) -> bool {
        let shared = on_record.iter().filter(|selector| self.selectors.contains(selector)).count();
        self.how.passes(on_record.len(), self.selectors.len(), shared)
    }
}

/// Most items in one batch: SPIRE's clients send 50 to 500.
pub(crate) const BATCH_ITEMS_MAX: usize = 10_000;

/// Refuses a batch of too many items.
pub(crate) fn check_batch(items: usize) -> Result<(), Status> {
    if items > BATCH_ITEMS_MAX {
        let message = format!("a batch has at most {BATCH_ITEMS_MAX} items, this one has {items}");
        return Err(refusal(Code::InvalidArgument, Reason::MessageTooLarge, &message));
    }
    Ok(())
}

/// A malformed request.
pub(crate) fn bad_request(message: &str) -> Status {
    refusal(Code::InvalidArgument, Reason::BadRequest, message)
}

/// Where a page of entries ends: the row of its last entry, and which one that is. Rows are counted anew at each start; the
/// entry finds its place again. Only one that was deleted before a restart leaves the next page a little off.
pub(crate) fn page_token(row: u64, id: &EntryId) -> String {
    format!("{row}:{id}")
}

/// The row of its token after which a page starts, and the entry that was there; none for the first page.
pub(crate) fn parse_page_token(token: &str) -> Result<Option<(u64, EntryId)>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let parse = || {
        let (row, id) = token.split_once(':')?;
        Some((row.parse().ok()?, id.parse().ok()?))
    };
    parse().map(Some).ok_or_else(|| bad_page_token(token))
}

/// A page token that no list has given out; SPIRE answers INTERNAL too.
pub(crate) fn bad_page_token(token: &str) -> Status {
    refusal(Code::Internal, Reason::BadRequest, &format!("could not parse token '{token}'"))
}

/// The size of a page, none when the caller wants all in one.
pub(crate) fn page_size(wire: i32) -> Option<usize> {
    usize::try_from(wire).ok().filter(|&size| size > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_match_compares_the_record_with_the_filter() {
        let check = |how: SetMatch, record: &[u8], given: &[u8], expected: bool| {
            let shared = record.iter().filter(|item| given.contains(item)).count();
            let passes = how.passes(record.len(), given.len(), shared);
            assert_eq!(passes, expected, "{how:?} {record:?} {given:?}");
        };
        check(SetMatch::Exact, &[1, 2], &[1, 2], true);
        check(SetMatch::Exact, &[1], &[1, 2], false);
        check(SetMatch::Subset, &[1], &[1, 2], true);
        check(SetMatch::Subset, &[1, 3], &[1, 2], false);
        check(SetMatch::Subset, &[], &[1, 2], false);
        check(SetMatch::Superset, &[1, 2, 3], &[1, 2], true);
        check(SetMatch::Superset, &[1], &[1, 2], false);
        check(SetMatch::Any, &[2, 3], &[1, 2], true);
        check(SetMatch::Any, &[3], &[1, 2], false);
    }

    #[test]
    fn a_token_reads_back() {
        for id in ["a", "a.b-c_d", "0"] {
            let id: EntryId = id.parse().unwrap();
            assert_eq!(parse_page_token(&page_token(7, &id)).unwrap(), Some((7, id)));
        }
        assert_eq!(parse_page_token("").unwrap(), None);
    }

    #[test]
    fn a_token_that_is_no_number_is_refused_by_name() {
        let status = parse_page_token("abc").expect_err("not a number");
        assert!(status.code() == Code::Internal && status.message().contains("abc"));
    }
}
