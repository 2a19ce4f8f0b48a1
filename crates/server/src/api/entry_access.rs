//! What the caller of a method may do to entries, and which it sees: everything, or what its roles cover.

use spindle_proto::refusal::refusal;
use spindle_spiffe_core::{Reason, RegistrationEntry};
use tonic::{Code, Status};

use super::caller::Caller;
use crate::context::Context;
use crate::directory::View;
use crate::entries::Permitted;
use crate::roles::{Change, EntryFacts, Grant, RoleBook, RoleRefusal, gives_power, leads_to, permits, sees};

/// The caller's hold on entries.
pub(crate) enum EntryAccess<'a> {
    /// All of them.
    Everything(&'a RoleBook),
    /// What these roles cover.
    Roles(&'a [Grant], &'a RoleBook),
}

impl<'a> EntryAccess<'a> {
    /// The hold of the caller whom the gate let in.
    pub(crate) fn of(caller: &'a Caller, context: &'a Context) -> Result<Self, Status> {
        match caller {
            Caller::Local | Caller::Admin => Ok(Self::Everything(&context.roles)),
            Caller::Roles(grants) => Ok(Self::Roles(grants, &context.roles)),
            Caller::Agent(_) | Caller::Stranger => {
                let message = "caller may not manage entries";
                Err(refusal(Code::PermissionDenied, Reason::MethodNotAllowed, message))
            }
        }
    }

    /// Whether no role limits the caller.
    pub(crate) fn is_everything(&self) -> bool {
        matches!(self, Self::Everything(_))
    }

    /// Whether the caller is shown this entry.
    pub(crate) fn sees(&self, entry: &RegistrationEntry) -> bool {
        match self {
            Self::Everything(_) => true,
            Self::Roles(grants, _) => sees(grants, entry),
        }
    }

    /// What the transactions of `entries` ask.
    pub(crate) fn permit(
        &self,
    ) -> impl Fn(&View, Option<&RegistrationEntry>, Option<&RegistrationEntry>) -> Result<Permitted, RoleRefusal>
    {
        |view, old, new| {
            let book = match self {
                Self::Everything(book) => book,
                Self::Roles(grants, book) => {
                    let change = match (old.map(EntryFacts::from), new.map(EntryFacts::from)) {
                        (None, Some(new)) => Change::Create(new),
                        (Some(old), Some(new)) => Change::Update(old, new),
                        (Some(old), None) => Change::Delete(old),
                        (None, None) => return Ok(Permitted::default()),
                    };
                    may_change(grants, book, view, &change)?;
                    book
                }
            };
            Ok(Permitted {
                only_while_power_stays: !self.is_everything(),
                gives_power: new.is_some_and(|new| gives_power(view, book, new)),
            })
        }
    }
}

/// Whether the roles cover a change in this view; the one place where rules, defaults and power come together.
pub(crate) fn may_change(
    grants: &[Grant],
    book: &RoleBook,
    view: &View,
    change: &Change,
) -> Result<(), RoleRefusal> {
    permits(grants, change, book.defaults(), &|id| leads_to(view, book, id))
}
