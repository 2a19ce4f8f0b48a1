//! What the caller of a method may do to entries, and which it sees: everything, or what its roles cover.

use spindle_proto::refusal::refusal;
use spindle_spiffe_core::{Reason, RegistrationEntry, SpiffeId};
use tonic::{Code, Status};

use super::caller::Caller;
use crate::attestation::tells_token;
use crate::context::Context;
use crate::directory::View;
use crate::entries::Permitted;
use crate::roles::{
    Change, EntryFacts, Grant, Others, RoleBook, RoleRefusal, check_below, gives_power, leads_to, permits,
    sees,
};

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
            Caller::Downstream(_) | Caller::Agent(_) | Caller::Stranger => {
                let message = "caller may not manage entries";
                Err(refusal(Code::PermissionDenied, Reason::MethodNotAllowed, message))
            }
        }
    }

    /// Whether no role limits the caller.
    pub(crate) fn is_everything(&self) -> bool {
        matches!(self, Self::Everything(_))
    }

    /// Whether the caller is shown this entry, as things stand in the view.
    pub(crate) fn sees(&self, view: &View, entry: &RegistrationEntry) -> bool {
        match self {
            Self::Everything(_) => true,
            Self::Roles(grants, _) => is_shown(grants, view, entry),
        }
    }

    /// Whether the caller is shown this identity: tokens that nobody has used yet are for those who may do everything.
    pub(crate) fn sees_id(&self, view: &View, id: &SpiffeId) -> bool {
        self.is_everything() || !tells_token(view, id)
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
                    if old.is_some_and(|old| !is_shown(grants, view, old)) {
                        return Err(RoleRefusal::Unseen);
                    }
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

/// Whether the roles show an entry in this view.
pub(crate) fn is_shown(grants: &[Grant], view: &View, entry: &RegistrationEntry) -> bool {
    sees(grants, entry, &|id| tells_token(view, id))
}

/// Whether the roles cover a change in this view; the one place where rules, defaults and power come together.
pub(crate) fn may_change(
    grants: &[Grant],
    book: &RoleBook,
    view: &View,
    change: &Change,
) -> Result<(), RoleRefusal> {
    let others = Others {
        power_of: &|id| leads_to(view, book, id),
        check_below: &|id, prefix| check_below(view, id, prefix),
    };
    permits(grants, change, book.defaults(), others)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use spindle_proto::convert::existing_entry_from_proto;
    use spindle_proto::spire::api::types;
    use spindle_testkit::ManualClock;

    use super::*;
    use crate::fixtures::{context, create, entry, id};

    fn of_wire(wire: &types::Entry) -> RegistrationEntry {
        existing_entry_from_proto(&types::Entry { id: "new".into(), ..wire.clone() }).unwrap()
    }

    #[tokio::test]
    async fn what_a_role_permits_holds_while_power_stays_and_a_gain_of_power_is_told_by_everybody() {
        let context = context(&ManualClock::default()).await;
        let admin = types::Entry { admin: true, ..entry(&id("/node"), "/admin", &["a:1"]) };
        create(&context.directory, admin.clone()).await;
        let view = context.directory.view();
        let plain = of_wire(&entry(&id("/node"), "/web", &["a:1"]));
        let leads = of_wire(&entry(&id("/edge"), "/node", &["a:1"]));
        let asked = |caller: &Caller, new: &RegistrationEntry| {
            let access = EntryAccess::of(caller, &context).unwrap();
            let permitted = access.permit()(&view, None, Some(new))?;
            Ok::<_, RoleRefusal>((permitted.only_while_power_stays, permitted.gives_power))
        };
        let operator = Caller::Roles(Arc::new([Grant::Operator]));
        assert_eq!(asked(&operator, &plain), Ok((true, false)));
        assert!(matches!(asked(&operator, &leads), Err(RoleRefusal::Power { .. })));
        for caller in [Caller::Local, Caller::Admin] {
            assert_eq!(asked(&caller, &plain), Ok((false, false)));
            assert_eq!(asked(&caller, &leads), Ok((false, true)));
            assert_eq!(asked(&caller, &of_wire(&admin)), Ok((false, true)));
        }
        assert!(EntryAccess::of(&Caller::Stranger, &context).is_err());
    }
}
