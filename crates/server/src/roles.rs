//! Roles: callers that may do less than everything.
//!
//! An administrator, by the flag of an entry, by the configuration or by the local socket, may do everything that is open to
//! administrators at all. A role opens a part of that: which methods stands in the one table (`api/authorization.rs`), which
//! entries a pure rule decides (`roles/rules.rs`). Nobody has a role who was not given one. Start at [`Grant`].

mod below;
mod book;
mod change;
mod message;
mod power;
mod rules;

use std::fmt;
use std::str::FromStr;

use spindle_spiffe_core::SpiffeId;
use spindle_spiffe_core::spiffe_id::{ID_BYTES_MAX, SpiffeIdError};

pub(crate) use below::check_below;
pub(crate) use book::RoleBook;
pub(crate) use change::{GrantFault, grant, revoke};
pub(crate) use message::{grant_from_record, grant_from_wire, grant_to_record, grant_to_wire};
pub(crate) use power::{gives_power, leads_to};
pub(crate) use rules::{Change, EntryFacts, Others, RoleRefusal, permits, sees};

/// What there is to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Lists, gets, counts and shows, and changes nothing.
    Reader,
    /// Creates, updates and deletes entries within limits, and sees those.
    Registrar,
    /// Runs the trust domain from day to day: agents, tokens, and entries that give nobody power over the server.
    Operator,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 3] = [Role::Reader, Role::Registrar, Role::Operator];

    /// Its name in files, messages and commands.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Registrar => "registrar",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What may be done to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Make a new one.
    Create,
    /// Change one.
    Update,
    /// Take one away.
    Delete,
}

impl Verb {
    /// All of them.
    pub const ALL: [Verb; 3] = [Verb::Create, Verb::Update, Verb::Delete];

    /// Its name in files, messages and commands.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a role is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoleError {
    /// No such role.
    #[error("{0:?} is not a role: write reader, registrar or operator")]
    Role(String),
    /// No such verb.
    #[error("{0:?} is nothing that is done to entries: write create, update or delete")]
    Verb(String),
    /// Nothing could be done with it.
    #[error("a registrar needs at least one of the verbs create, update and delete")]
    NoVerbs,
    /// A prefix that no path can have.
    #[error("{0:?} is not a path prefix such as /ci/: {1}")]
    Prefix(String, SpiffeIdError),
    /// Limits of registrars on another role.
    #[error("only a registrar has path prefixes, verbs and limits, not a {0}")]
    NoLimits(Role),
    /// Neither a SPIFFE ID nor a local user or group.
    #[error("{0:?} is neither a SPIFFE ID nor unix:uid:NUMBER or unix:gid:NUMBER")]
    Subject(String),
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| RoleError::Role(text.to_owned()))
    }
}

impl FromStr for Verb {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        Self::ALL
            .into_iter()
            .find(|verb| verb.as_str() == text)
            .ok_or_else(|| RoleError::Verb(text.to_owned()))
    }
}

/// A part of a trust domain's paths: `/ci/` is what lies below `/ci`, `/ci` is that path too, `/` is all. Segments count
/// whole, so neither covers `/cider`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPrefix(Box<str>);

impl PathPrefix {
    /// All paths.
    pub fn all() -> Self {
        Self("/".into())
    }

    /// Whether it is [`PathPrefix::all`].
    pub fn is_all(&self) -> bool {
        &*self.0 == "/"
    }

    /// The prefix as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the path of `id` is in this part.
    pub fn covers(&self, id: &SpiffeId) -> bool {
        let below = |stem: &str| id.path().strip_prefix(stem).is_some_and(|rest| rest.starts_with('/'));
        match self.0.strip_suffix('/') {
            Some(stem) => below(stem),
            None => id.path() == &*self.0 || below(&self.0),
        }
    }
}

impl FromStr for PathPrefix {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        let fault = |error| RoleError::Prefix(text.chars().take(100).collect(), error);
        if !text.starts_with('/') {
            return Err(fault(SpiffeIdError::PathStart));
        }
        if text.len() > ID_BYTES_MAX {
            return Err(fault(SpiffeIdError::Length(text.len())));
        }
        // Whatever the trust domain: the rules for paths are the same in all.
        let stem = text.strip_suffix('/').unwrap_or(text);
        format!("spiffe://x{stem}").parse::<SpiffeId>().map_err(fault)?;
        Ok(Self(text.into()))
    }
}

/// What a registrar may do to which entries. All of it must hold for an entry, as it is and as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryRules {
    /// SPIFFE IDs that entries may give.
    pub path_prefix: PathPrefix,
    /// Parents that entries may have.
    pub parent_path_prefix: PathPrefix,
    /// What may be done.
    pub verbs: Vec<Verb>,
    /// The longest lifetime of X509-SVIDs in seconds.
    pub max_x509_svid_ttl_secs: Option<u32>,
    /// The longest lifetime of JWT-SVIDs in seconds.
    pub max_jwt_svid_ttl_secs: Option<u32>,
    /// Whether entries may have the admin flag, or give an identity that leads to it.
    pub allow_admin: bool,
    /// The same for the downstream flag.
    pub allow_downstream: bool,
}

/// A role as it was given to somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// [`Role::Reader`].
    Reader,
    /// [`Role::Registrar`], within these rules.
    Registrar(EntryRules),
    /// [`Role::Operator`].
    Operator,
}

impl Grant {
    /// Its role.
    pub fn role(&self) -> Role {
        match self {
            Self::Reader => Role::Reader,
            Self::Registrar(_) => Role::Registrar,
            Self::Operator => Role::Operator,
        }
    }
}

/// Whom the configuration gives a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleSubject {
    /// An identity, which may be of another trust domain.
    Identity(SpiffeId),
    /// A user of this machine, who then has this role over the local socket instead of everything.
    Uid(u32),
    /// A group of this machine, likewise.
    Gid(u32),
}

impl FromStr for RoleSubject {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        let fault = || RoleError::Subject(text.chars().take(100).collect());
        let number = |digits: &str| digits.parse().map_err(|_| fault());
        match (text.strip_prefix("unix:uid:"), text.strip_prefix("unix:gid:")) {
            (Some(uid), _) => Ok(Self::Uid(number(uid)?)),
            (_, Some(gid)) => Ok(Self::Gid(number(gid)?)),
            _ => text.parse().map(Self::Identity).map_err(|_| fault()),
        }
    }
}

impl fmt::Display for RoleSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(id) => id.fmt(f),
            Self::Uid(uid) => write!(f, "unix:uid:{uid}"),
            Self::Gid(gid) => write!(f, "unix:gid:{gid}"),
        }
    }
}

/// One role given by the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleAssignment {
    /// To whom.
    pub subject: RoleSubject,
    /// What.
    pub grant: Grant,
}

#[cfg(test)]
mod tests;
