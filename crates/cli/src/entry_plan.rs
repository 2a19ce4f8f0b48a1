//! What has to be done so that a server's entries are as files say: a plan of creations, changes and deletions.
//!
//! Pure: both sides are handed in, nothing is called. An entry of the files finds its counterpart by ID, else by its
//! likeness (parent, SPIFFE ID, selectors), of which a server has one each. Ownership is in the ID: only entries whose ID
//! starts with the name of the set are ever pruned. Start at [`Plan::make`].

mod fields;

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use spindle_proto::spire::api::types;

pub(crate) use fields::Shown;
pub use fields::{FieldChange, Likeness, fields};

use crate::entry_file::Declared;
use crate::output::text;

/// The longest name of a set.
pub const SET_BYTES_MAX: usize = 63;

/// The name of the entries that one caller of `entry apply` looks after. It stands in front of their IDs, with a dot
/// behind it, and has no dot itself, so that no set's IDs start with another's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetName(String);

impl SetName {
    /// The ID of this set's entry of that name.
    pub fn id_of(&self, name: &str) -> String {
        format!("{}.{name}", self.0)
    }

    /// Whether an entry of that ID was made for this set.
    pub fn owns(&self, entry_id: &str) -> bool {
        entry_id.strip_prefix(&self.0).is_some_and(|rest| rest.starts_with('.'))
    }
}

impl FromStr for SetName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if (1..=SET_BYTES_MAX).contains(&text.len()) && text.bytes().all(known) {
            return Ok(Self(text.into()));
        }
        Err(format!("a set is named by 1 to {SET_BYTES_MAX} letters, digits, dashes and underscores"))
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a plan is made.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The set that named entries and those without an ID belong to; none leaves IDs to the server.
    pub set: Option<&'a SetName>,
    /// Whether entries of the set that the files do not name are deleted.
    pub prune: bool,
    /// Whether entries that are there and differ are changed; if not they are conflicts.
    pub change: bool,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Make this entry.
    Create(types::Entry),
    /// Make of the first entry the second, which has the same ID.
    Update(Box<[types::Entry; 2]>),
    /// Delete this entry.
    Delete(types::Entry),
}

impl Step {
    /// `create`, `update` or `delete`.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Update(_) => "update",
            Self::Delete(_) => "delete",
        }
    }

    /// The entry as it is to be, or as it is before it goes.
    pub fn entry(&self) -> &types::Entry {
        match self {
            Self::Create(entry) | Self::Delete(entry) => entry,
            Self::Update(pair) => &pair[1],
        }
    }

    /// The fields that an update changes; none for other steps.
    pub fn changes(&self) -> Vec<FieldChange> {
        match self {
            Self::Update(pair) => fields::changes(&pair[0], &pair[1]),
            Self::Create(_) | Self::Delete(_) => Vec::new(),
        }
    }
}

/// Something that cannot be done, and is left alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    /// The entry that was wanted.
    pub entry: types::Entry,
    /// What stands in the way.
    pub what: String,
    /// What to try.
    pub remedy: String,
}

/// What has to be done, in an order that leaves no gap: changes, then creations, then deletions.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// What is to be done.
    pub steps: Vec<Step>,
    /// What cannot be done.
    pub conflicts: Vec<Conflict>,
    /// Entries that are as wanted.
    pub unchanged: usize,
}

impl Plan {
    /// Compares what files declare with what a server has.
    ///
    /// # Errors
    /// When two declared entries are one: the same ID, or the same parent, SPIFFE ID and selectors.
    pub fn make(declared: &[Declared], present: &[types::Entry], rules: Rules<'_>) -> Result<Self, String> {
        check_distinct(declared, rules)?;
        let mut matching = Matching::new(present);
        let mut found: Vec<_> = declared.iter().map(|one| matching.by_id(wanted_id(one, rules))).collect();
        for (one, found) in declared.iter().zip(&mut found) {
            if found.is_none() && one.entry.id.is_empty() {
                *found = matching.by_likeness(&one.entry, rules.set);
            }
        }
        let mut plan = Self::default();
        let mut creations = Vec::new();
        for (one, found) in declared.iter().zip(found) {
            match found {
                Some(at) => plan.compare(one, &present[at], rules),
                None => match matching.stranger(&one.entry) {
                    Some(other) => plan.conflicts.push(elsewhere(one, other)),
                    None => creations.push(creation(one, rules)),
                },
            }
        }
        plan.steps.extend(creations);
        if let (true, Some(set)) = (rules.prune, rules.set) {
            let owned = matching.left_over().filter(|entry| set.owns(&entry.id));
            let mut owned: Vec<_> = owned.cloned().map(Step::Delete).collect();
            owned.sort_by(|a, b| a.entry().id.cmp(&b.entry().id));
            plan.steps.extend(owned);
        }
        Ok(plan)
    }

    /// Gives each new entry of the set that has no ID yet one that shows whose it is.
    pub fn name_new(&mut self, set: &SetName, mut fresh: impl FnMut() -> String) {
        for step in &mut self.steps {
            if let Step::Create(entry) = step
                && entry.id.is_empty()
            {
                entry.id = set.id_of(&fresh());
            }
        }
    }

    /// Takes out the creations and changes for which `fault` finds something, and names them as conflicts.
    pub fn set_aside(&mut self, fault: impl Fn(&types::Entry) -> Option<(String, String)>) {
        let steps = std::mem::take(&mut self.steps);
        for step in steps {
            match (&step, fault(step.entry())) {
                (Step::Create(_) | Step::Update(_), Some((what, remedy))) => {
                    self.conflicts.push(Conflict { entry: step.entry().clone(), what, remedy });
                }
                _ => self.steps.push(step),
            }
        }
    }

    /// How many steps have that verb.
    pub fn count(&self, verb: &str) -> usize {
        self.steps.iter().filter(|step| step.verb() == verb).count()
    }

    fn compare(&mut self, one: &Declared, present: &types::Entry, rules: Rules<'_>) {
        let wanted = types::Entry {
            id: present.id.clone(),
            revision_number: present.revision_number,
            created_at: present.created_at,
            ..one.entry.clone()
        };
        let changes = fields::changes(present, &wanted);
        if changes.is_empty() {
            self.unchanged += 1;
        } else if rules.change {
            self.steps.push(Step::Update(Box::new([present.clone(), wanted])));
        } else {
            let differing: Vec<_> = changes.iter().map(FieldChange::to_string).collect();
            let what = format!("entry {} is there and differs: {}", present.id, differing.join(", "));
            let remedy = "change one of the two, or let -update change the one that is there".into();
            self.conflicts.push(Conflict { entry: wanted, what, remedy });
        }
    }
}

fn creation(one: &Declared, rules: Rules<'_>) -> Step {
    let id = wanted_id(one, rules).unwrap_or_default();
    Step::Create(types::Entry { id, revision_number: 0, ..one.entry.clone() })
}

fn elsewhere(one: &Declared, other: &types::Entry) -> Conflict {
    Conflict {
        entry: one.entry.clone(),
        what: format!("entry {} has the same parent, SPIFFE ID and selectors under another ID", other.id),
        remedy: format!("delete entry {}, or take its ID", other.id),
    }
}

/// The ID an entry must have; none when any will do.
fn wanted_id(one: &Declared, rules: Rules<'_>) -> Option<String> {
    match (&one.name, rules.set) {
        _ if !one.entry.id.is_empty() => Some(one.entry.id.clone()),
        (Some(name), Some(set)) => Some(set.id_of(name)),
        _ => None,
    }
}

fn check_distinct(declared: &[Declared], rules: Rules<'_>) -> Result<(), String> {
    let (mut ids, mut likenesses) = (HashMap::new(), HashMap::new());
    for one in declared {
        if let Some(id) = wanted_id(one, rules)
            && let Some(first) = ids.insert(id.clone(), &one.place)
        {
            return Err(format!("{} has the ID {id} of {first}", one.place));
        }
        if let Some(first) = likenesses.insert(Likeness::of(&one.entry), &one.place) {
            let id = text::id(&one.entry.spiffe_id);
            return Err(format!("{} ({id}) has the parent, SPIFFE ID and selectors of {first}", one.place));
        }
    }
    Ok(())
}

/// Which present entries have found their counterpart.
struct Matching<'a> {
    present: &'a [types::Entry],
    ids: HashMap<&'a str, usize>,
    likenesses: HashMap<Likeness, Vec<usize>>,
    taken: Vec<bool>,
}

impl<'a> Matching<'a> {
    fn new(present: &'a [types::Entry]) -> Self {
        let mut likenesses: HashMap<_, Vec<_>> = HashMap::new();
        for (at, entry) in present.iter().enumerate() {
            likenesses.entry(Likeness::of(entry)).or_default().push(at);
        }
        let ids = present.iter().enumerate().map(|(at, entry)| (entry.id.as_str(), at)).collect();
        Self { present, ids, likenesses, taken: vec![false; present.len()] }
    }

    fn by_id(&mut self, id: Option<String>) -> Option<usize> {
        let at = *self.ids.get(id?.as_str())?;
        self.taken[at] = true;
        Some(at)
    }

    /// Of several (SPIRE's updates can make two alike) the set's own comes first.
    fn by_likeness(&mut self, entry: &types::Entry, set: Option<&SetName>) -> Option<usize> {
        let alike = self.likenesses.get(&Likeness::of(entry))?.iter().copied();
        let free = alike.filter(|at| !self.taken[*at]);
        let at = free.min_by_key(|at| !set.is_some_and(|set| set.owns(&self.present[*at].id)))?;
        self.taken[at] = true;
        Some(at)
    }

    /// An entry like this one that nothing declared is the counterpart of. One that has a counterpart is about to change.
    fn stranger(&self, entry: &types::Entry) -> Option<&'a types::Entry> {
        let alike = self.likenesses.get(&Likeness::of(entry))?;
        alike.iter().find(|at| !self.taken[**at]).map(|at| &self.present[*at])
    }

    fn left_over(&self) -> impl Iterator<Item = &'a types::Entry> {
        self.present.iter().zip(&self.taken).filter(|(_, taken)| !**taken).map(|(entry, _)| entry)
    }
}

#[cfg(test)]
mod tests;
