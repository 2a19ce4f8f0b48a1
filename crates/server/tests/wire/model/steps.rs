//! The steps of a sequence, from small pools so that they meet often and shrink to something that can be read.

use proptest::prelude::*;

/// What callers do, one after the other.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// One batch.
    Create(Vec<Draft>),
    /// The entry at this place of the list, counted round, gets these fields: all of them, or the hint alone.
    Update(usize, Draft, HowMuch),
    /// Entries at these places, in one batch.
    Delete(Vec<usize>),
    List(Filter, i32),
    MakeToken(u8),
    Attest(u8),
    Ban(u8),
    Evict(u8),
    /// The agent asks which entries it may have.
    Ask(u8),
    ListAgents(Option<bool>, i32),
    /// A second passes.
    Wait,
    /// A bundle of another trust domain is stored.
    SetBundle(&'static str),
    DeleteBundle(&'static str, Mode),
    /// The server is gone in the middle of everything, and comes back on what it left on the disk.
    Kill,
}

/// The fields of an entry that a caller sends.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// An id of the caller's choice.
    pub(super) id: Option<&'static str>,
    pub(super) parent: &'static str,
    pub(super) path: &'static str,
    pub(super) selectors: Vec<&'static str>,
    pub(super) hint: &'static str,
    pub(super) downstream: bool,
    pub(super) federates_with: Vec<&'static str>,
}

/// What becomes of the entries that federate with a bundle which is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Restrict,
    Delete,
    Dissociate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HowMuch {
    All,
    Hint,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub(super) parent: Option<&'static str>,
    pub(super) path: Option<&'static str>,
    /// How sets are compared, as on the wire, and with what.
    pub(super) selectors: Option<(i32, Vec<&'static str>)>,
    pub(super) hint: Option<&'static str>,
    pub(super) downstream: bool,
    /// Federates with at least this one.
    pub(super) federates_with: Option<&'static str>,
}

const PARENTS: [&str; 5] =
    ["/node", "/a", "/b", "/spire/agent/join_token/token-0", "/spire/agent/join_token/token-1"];
const PATHS: [&str; 3] = ["/a", "/b", "/c"];
const SELECTORS: [&str; 3] = ["s:1", "s:2", "s:3"];
const HINTS: [&str; 2] = ["", "hint"];
const IDS: [&str; 3] = ["id-1", "id-2", "id-3"];
const DOMAINS: [&str; 2] = ["one.example", "two.example"];

fn one_of<const N: usize>(pool: &'static [&'static str; N]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(pool.as_slice())
}

fn selectors() -> impl Strategy<Value = Vec<&'static str>> {
    prop::sample::subsequence(SELECTORS.to_vec(), 1..=SELECTORS.len())
}

fn draft() -> impl Strategy<Value = Draft> {
    let id = prop::option::weighted(0.4, one_of(&IDS));
    let domains = prop_oneof![3 => Just(Vec::new()), 2 => prop::sample::subsequence(DOMAINS.to_vec(), 1..=2)];
    let flag = prop::bool::weighted(0.2);
    (id, one_of(&PARENTS), one_of(&PATHS), selectors(), one_of(&HINTS), flag, domains).prop_map(
        |(id, parent, path, selectors, hint, downstream, federates_with)| Draft {
            id,
            parent,
            path,
            selectors,
            hint,
            downstream,
            federates_with,
        },
    )
}

fn filter() -> impl Strategy<Value = Filter> {
    use prop::option::weighted;
    let by_selectors = weighted(0.4, (0..4_i32, selectors()));
    (
        weighted(0.3, one_of(&PARENTS)),
        weighted(0.3, one_of(&PATHS)),
        by_selectors,
        weighted(0.2, one_of(&HINTS)),
        prop::bool::weighted(0.2),
        weighted(0.2, one_of(&DOMAINS)),
    )
        .prop_map(|(parent, path, selectors, hint, downstream, federates_with)| Filter {
            parent,
            path,
            selectors,
            hint,
            downstream,
            federates_with,
        })
}

fn step() -> impl Strategy<Value = Step> {
    let token = || 0..3_u8;
    let page = || 0..4_i32;
    prop_oneof![
        6 => prop::collection::vec(draft(), 1..4).prop_map(Step::Create),
        4 => (0..6_usize, draft(), prop_oneof![Just(HowMuch::All), Just(HowMuch::Hint)])
            .prop_map(|(place, draft, how_much)| Step::Update(place, draft, how_much)),
        2 => prop::collection::vec(0..6_usize, 1..3).prop_map(Step::Delete),
        5 => (filter(), page()).prop_map(|(filter, page)| Step::List(filter, page)),
        3 => token().prop_map(Step::MakeToken),
        4 => token().prop_map(Step::Attest),
        1 => token().prop_map(Step::Ban),
        1 => token().prop_map(Step::Evict),
        4 => token().prop_map(Step::Ask),
        2 => (prop::option::of(any::<bool>()), page()).prop_map(|(banned, page)| Step::ListAgents(banned, page)),
        1 => Just(Step::Wait),
        3 => one_of(&DOMAINS).prop_map(Step::SetBundle),
        2 => (one_of(&DOMAINS), prop_oneof![Just(Mode::Restrict), Just(Mode::Delete), Just(Mode::Dissociate)])
            .prop_map(|(name, mode)| Step::DeleteBundle(name, mode)),
        2 => Just(Step::Kill),
    ]
}

/// A sequence.
pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..30)
}
