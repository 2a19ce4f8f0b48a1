//! Whether a role covers the change of an entry: pure, and the only place that decides it.
//!
//! One grant must allow all of a change: a registrar of two prefixes cannot move an entry from one into the other. The
//! refusal names the rule of the grant that came closest. Start at [`permits`].

use spindle_spiffe_core::{Reason, RegistrationEntry, SpiffeId};

use super::book::DefaultTtls;
use super::power::Power;
use super::{EntryRules, Grant, PathPrefix, Verb};

/// What the rules look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntryFacts {
    pub(crate) spiffe_id: SpiffeId,
    pub(crate) parent_id: SpiffeId,
    /// Zero means the server's default.
    pub(crate) x509_svid_ttl_secs: u32,
    /// Zero means the server's default.
    pub(crate) jwt_svid_ttl_secs: u32,
    pub(crate) admin: bool,
    pub(crate) downstream: bool,
}

impl From<&RegistrationEntry> for EntryFacts {
    fn from(entry: &RegistrationEntry) -> Self {
        Self {
            spiffe_id: entry.spiffe_id.clone(),
            parent_id: entry.parent_id.clone(),
            x509_svid_ttl_secs: entry.x509_svid_ttl_secs,
            jwt_svid_ttl_secs: entry.jwt_svid_ttl_secs,
            admin: entry.admin,
            downstream: entry.downstream,
        }
    }
}

/// What is to become of an entry.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// It is new.
    Create(EntryFacts),
    /// It is the first and is to be the second.
    Update(EntryFacts, EntryFacts),
    /// It goes.
    Delete(EntryFacts),
}

impl Change {
    pub(crate) fn verb(&self) -> Verb {
        match self {
            Self::Create(_) => Verb::Create,
            Self::Update(..) => Verb::Update,
            Self::Delete(_) => Verb::Delete,
        }
    }

    fn before(&self) -> Option<&EntryFacts> {
        match self {
            Self::Create(_) => None,
            Self::Update(old, _) | Self::Delete(old) => Some(old),
        }
    }

    fn after(&self) -> Option<&EntryFacts> {
        match self {
            Self::Create(new) | Self::Update(_, new) => Some(new),
            Self::Delete(_) => None,
        }
    }
}

/// The rule by which a role does not cover a change, in the order they are asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RoleRefusal {
    /// The caller's roles do not show the entry as it is: for the caller it is not there.
    #[error("entry not found")]
    Unseen,
    /// The caller's roles are not about entries.
    #[error("the caller's role may not change entries")]
    NoRules,
    #[error("the caller's role may not {0} entries")]
    Verb(Verb),
    #[error("SPIFFE ID {id} is outside the role's path prefix {prefix:?}")]
    Path { id: SpiffeId, prefix: Box<str> },
    #[error("SPIFFE ID {id} has {below} below it, which is outside the role's path prefix {prefix:?}")]
    Below { id: SpiffeId, below: SpiffeId, prefix: Box<str> },
    #[error(
        "SPIFFE ID {id} has more than {max} identities below it, which is more than is looked through for a role"
    )]
    TooMuchBelow { id: SpiffeId, max: usize },
    #[error("parent ID {id} is outside the role's path prefix for parents {prefix:?}")]
    Parent { id: SpiffeId, prefix: Box<str> },
    #[error("the caller's role may not handle entries with the {0} flag")]
    Flag(&'static str),
    #[error("a TTL of {secs} s for {kind}-SVIDs is beyond the role's limit of {max_secs} s")]
    Ttl { kind: &'static str, secs: i64, max_secs: u32 },
    #[error("SPIFFE ID {id} is, or leads to, {what}, which the caller's role may not give")]
    Power { id: SpiffeId, what: &'static str },
}

impl RoleRefusal {
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Unseen => Reason::EntryNotFound,
            Self::NoRules | Self::Verb(_) => Reason::RoleVerb,
            Self::Path { .. } | Self::Below { .. } | Self::TooMuchBelow { .. } => Reason::RolePath,
            Self::Parent { .. } => Reason::RoleParent,
            Self::Flag(_) => Reason::RoleFlag,
            Self::Ttl { .. } => Reason::RoleTtl,
            Self::Power { .. } => Reason::RolePower,
        }
    }

    /// How far the change got.
    fn stage(&self) -> usize {
        match self {
            Self::Unseen | Self::NoRules => 0,
            Self::Verb(_) => 1,
            Self::Path { .. } => 2,
            Self::Parent { .. } => 3,
            Self::Flag(_) => 4,
            Self::Ttl { .. } => 5,
            Self::Power { .. } => 6,
            Self::Below { .. } | Self::TooMuchBelow { .. } => 7,
        }
    }
}

/// What the rules ask about other entries than the one that changes.
#[derive(Clone, Copy)]
pub(crate) struct Others<'a> {
    /// What an identity leads to.
    pub(crate) power_of: &'a dyn Fn(&SpiffeId) -> Power,
    /// Whether everything below an identity is within a prefix.
    pub(crate) check_below: &'a dyn Fn(&SpiffeId, &PathPrefix) -> Result<(), RoleRefusal>,
}

/// Whether one of the grants covers the whole change.
pub(crate) fn permits(
    grants: &[Grant],
    change: &Change,
    defaults: DefaultTtls,
    others: Others<'_>,
) -> Result<(), RoleRefusal> {
    let mut closest = RoleRefusal::NoRules;
    for grant in grants {
        let outcome = match grant {
            Grant::Reader => Err(RoleRefusal::NoRules),
            Grant::Registrar(rules) => check(rules, change, defaults, others),
            Grant::Operator => check(&operators_rules(), change, defaults, others),
        };
        match outcome {
            Ok(()) => return Ok(()),
            Err(refusal) if refusal.stage() > closest.stage() => closest = refusal,
            Err(_) => {}
        }
    }
    Err(closest)
}

/// Whether one of the grants shows this entry: a registrar sees what it could have made. `is_secret` tells which identities
/// no role shows; an entry can name one as its parent or in a selector.
pub(crate) fn sees(
    grants: &[Grant],
    entry: &RegistrationEntry,
    is_secret: &dyn Fn(&SpiffeId) -> bool,
) -> bool {
    let names_secret = || {
        let named = entry.selectors.iter().filter(|selector| selector.kind() == "spiffe_id");
        is_secret(&entry.parent_id)
            || named.filter_map(|selector| selector.value().parse().ok()).any(|id| is_secret(&id))
    };
    let is_covered = grants.iter().any(|grant| match grant {
        Grant::Reader | Grant::Operator => true,
        Grant::Registrar(rules) => {
            rules.path_prefix.covers(&entry.spiffe_id) && rules.parent_path_prefix.covers(&entry.parent_id)
        }
    });
    is_covered && !names_secret()
}

/// An operator may do everything to entries but give power.
fn operators_rules() -> EntryRules {
    EntryRules {
        path_prefix: PathPrefix::all(),
        parent_path_prefix: PathPrefix::all(),
        verbs: Verb::ALL.to_vec(),
        max_x509_svid_ttl_secs: None,
        max_jwt_svid_ttl_secs: None,
        allow_admin: false,
        allow_downstream: false,
    }
}

fn check(
    rules: &EntryRules,
    change: &Change,
    defaults: DefaultTtls,
    others: Others<'_>,
) -> Result<(), RoleRefusal> {
    if !rules.verbs.contains(&change.verb()) {
        return Err(RoleRefusal::Verb(change.verb()));
    }
    let both = || change.before().into_iter().chain(change.after());
    both().try_for_each(|entry| check_path(rules, entry))?;
    both().try_for_each(|entry| check_flags(rules, entry))?;
    let Some(new) = change.after() else { return Ok(()) };
    check_ttls(rules, new, defaults)?;
    // Also of the entry as it was: other selectors for a powerful identity give it to others.
    both().try_for_each(|entry| check_power(rules, &entry.spiffe_id, (others.power_of)(&entry.spiffe_id)))?;
    // Whoever gets the identity gets what is below it.
    (others.check_below)(&new.spiffe_id, &rules.path_prefix)
}

fn check_path(rules: &EntryRules, entry: &EntryFacts) -> Result<(), RoleRefusal> {
    if !rules.path_prefix.covers(&entry.spiffe_id) {
        let (id, prefix) = (entry.spiffe_id.clone(), rules.path_prefix.as_str().into());
        return Err(RoleRefusal::Path { id, prefix });
    }
    if !rules.parent_path_prefix.covers(&entry.parent_id) {
        let (id, prefix) = (entry.parent_id.clone(), rules.parent_path_prefix.as_str().into());
        return Err(RoleRefusal::Parent { id, prefix });
    }
    Ok(())
}

fn check_flags(rules: &EntryRules, entry: &EntryFacts) -> Result<(), RoleRefusal> {
    if entry.admin && !rules.allow_admin {
        return Err(RoleRefusal::Flag("admin"));
    }
    if entry.downstream && !rules.allow_downstream {
        return Err(RoleRefusal::Flag("downstream"));
    }
    Ok(())
}

fn check_ttls(rules: &EntryRules, entry: &EntryFacts, defaults: DefaultTtls) -> Result<(), RoleRefusal> {
    let within = |kind, secs: u32, default_secs: i64, max_secs: Option<u32>| {
        let secs = if secs == 0 { default_secs } else { i64::from(secs) };
        match max_secs {
            Some(max_secs) if secs > i64::from(max_secs) => Err(RoleRefusal::Ttl { kind, secs, max_secs }),
            _ => Ok(()),
        }
    };
    within("X509", entry.x509_svid_ttl_secs, defaults.x509_svid_secs, rules.max_x509_svid_ttl_secs)?;
    within("JWT", entry.jwt_svid_ttl_secs, defaults.jwt_svid_secs, rules.max_jwt_svid_ttl_secs)
}

fn check_power(rules: &EntryRules, id: &SpiffeId, power: Power) -> Result<(), RoleRefusal> {
    let refused = |what| Err(RoleRefusal::Power { id: id.clone(), what });
    if power.admin && !rules.allow_admin {
        return refused("an identity that may administer the server");
    }
    if power.downstream && !rules.allow_downstream {
        return refused("a downstream server");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
