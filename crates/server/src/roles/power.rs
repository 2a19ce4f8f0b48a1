//! Which identities are worth more than themselves.
//!
//! Who has an identity has the entries below it too: an agent gets what is registered below its aliases and below what it
//! has. So whoever may register an identity that leads to an administrator could become one. The walk goes upwards from the
//! few identities with power; it is as long as there are entries between them and the agents. An SVID that can be exchanged for
//! an agent's is found downwards, for there may be many of them. Start at [`leads_to`].

use std::collections::HashMap;

use spindle_spiffe_core::{RegistrationEntry, SpiffeId};

use super::below::Descent;
use super::book::RoleBook;
use crate::directory::View;

/// What an identity leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Power {
    /// Somebody who may administer the server, or holds a role.
    pub(crate) admin: bool,
    /// A server below this one, which signs for every name.
    pub(crate) downstream: bool,
}

impl Power {
    const ADMIN: Power = Power { admin: true, downstream: false };
    const FULL: Power = Power { admin: true, downstream: true };

    fn and(self, other: Power) -> Power {
        Power { admin: self.admin || other.admin, downstream: self.downstream || other.downstream }
    }
}

/// What whoever has `id` can get.
pub(crate) fn leads_to(view: &View, book: &RoleBook, id: &SpiffeId) -> Power {
    // Which agent an SVID is exchanged for, and what that one has, is decided when it attests: it counts as everything.
    if book.exchanges() && Descent::from(view, id).any(|below| below.map_or(true, |id| book.makes_agent(&id)))
    {
        return Power::FULL;
    }
    let mut walk = Walk::default();
    for row in view.entries_with_power() {
        let power = Power { admin: row.entry.admin, downstream: row.entry.downstream };
        walk.reach(&row.entry.spiffe_id, power);
    }
    book.named().iter().chain(view.role_holders().map(|holder| &holder.spiffe_id)).for_each(|named| {
        walk.reach(named, Power::ADMIN);
    });
    while let Some(id) = walk.news.pop() {
        let power = walk.of(&id);
        view.entries_of(&id).for_each(|row| walk.reach(&row.entry.parent_id, power));
    }
    walk.of(id)
}

/// Whether somebody gains power by this entry: who gets it, or whose parent gets it.
pub(crate) fn gives_power(view: &View, book: &RoleBook, entry: &RegistrationEntry) -> bool {
    // Without a child and a right of its own an identity leads nowhere, which spares nearly every entry the walk.
    let id = &entry.spiffe_id;
    let may_lead = || {
        view.children(id).next().is_some()
            || book.makes_agent(id)
            || book.named().contains(id)
            || view.roles_of(id).is_some()
            || view.entries_of(id).any(|row| row.entry.admin || row.entry.downstream)
    };
    entry.admin || entry.downstream || (may_lead() && leads_to(view, book, id) != Power::default())
}

#[derive(Default)]
struct Walk {
    reached: HashMap<SpiffeId, Power>,
    news: Vec<SpiffeId>,
}

impl Walk {
    fn of(&self, id: &SpiffeId) -> Power {
        self.reached.get(id).copied().unwrap_or_default()
    }

    fn reach(&mut self, id: &SpiffeId, power: Power) {
        let now = self.of(id).and(power);
        if self.reached.insert(id.clone(), now) != Some(now) {
            self.news.push(id.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use spindle_attest::x509pop;
    use spindle_proto::convert::entry_from_proto;
    use spindle_proto::spire::api::types;

    use super::*;
    use crate::config::NodeAttestorSettings;
    use crate::fixtures::{self, create, entry, id};
    use crate::live::{LiveSettings, Reloadable};
    use crate::roles::{Grant, RoleAssignment, RoleSubject, grant};

    fn book() -> RoleBook {
        let reader = RoleAssignment { subject: RoleSubject::Identity(id("/monitor")), grant: Grant::Reader };
        let local = RoleAssignment { subject: RoleSubject::Uid(7), grant: Grant::Operator };
        let admin_ids = vec![id("/listed"), "spiffe://other.example/a".parse().unwrap()];
        RoleBook::new(LiveSettings::new(Reloadable { admin_ids, ..Reloadable::default() }), &[reader, local])
    }

    #[tokio::test]
    async fn an_svid_that_makes_an_agent_is_worth_everything_and_so_is_what_leads_to_it() {
        let directory = fixtures::directory();
        create(&directory, entry(&id("/node"), "/between", &["a:1"])).await;
        create(&directory, entry(&id("/between"), "/spire-exchange/host", &["a:1"])).await;
        create(&directory, entry(&id("/loop"), "/loop", &["a:1"])).await;
        let view = directory.view();
        let with = |mode| {
            let node_attestors = NodeAttestorSettings { x509pop: Some(x509pop::Settings::new(mode)) };
            let settings = Reloadable { node_attestors, ..Reloadable::default() };
            RoleBook::new(LiveSettings::new(settings), &[])
        };
        let exchanging = with(x509pop::Mode::Spiffe { prefix: "/spire-exchange/".into() });
        let other = with(x509pop::Mode::ExternalPki(x509pop::Roots::default()));
        for (path, expected) in [
            ("/spire-exchange/host", Power::FULL),
            ("/spire-exchange/nobody-yet", Power::FULL),
            ("/between", Power::FULL),
            ("/node", Power::FULL),
            ("/spire-exchange", Power::default()),
            ("/loop", Power::default()),
            ("/web", Power::default()),
        ] {
            assert_eq!(leads_to(&view, &exchanging, &id(path)), expected, "{path}");
            assert_eq!(leads_to(&view, &other, &id(path)), Power::default(), "{path}");
            let new = entry(&id("/new"), path, &["a:1"]);
            let new = entry_from_proto(&new, || "new".parse().unwrap()).unwrap();
            assert_eq!(gives_power(&view, &exchanging, &new), expected == Power::FULL, "{path}");
        }
    }

    #[tokio::test]
    async fn power_is_reached_through_the_entries_above_it() {
        let directory = fixtures::directory();
        let server = id("/spire/server");
        let agent = id("/spire/agent/x/1");
        let flagged =
            |path, admin| types::Entry { admin, downstream: !admin, ..entry(&id("/nested"), path, &["a:1"]) };
        create(&directory, entry(&server, "/node", &["a:1"])).await;
        create(&directory, entry(&id("/node"), "/nested", &["a:1"])).await;
        create(&directory, flagged("/admin", true)).await;
        create(&directory, flagged("/sub", false)).await;
        create(&directory, entry(&agent, "/monitor", &["a:1"])).await;
        create(&directory, entry(&agent, "/web", &["a:1"])).await;
        // Below itself, as an entry may well be.
        create(&directory, entry(&id("/loop"), "/loop", &["a:1"])).await;
        let (view, book) = (directory.view(), book());
        let admin = Power::ADMIN;
        let downstream = Power { admin: false, downstream: true };
        for (path, expected) in [
            ("/admin", admin),
            ("/sub", downstream),
            ("/nested", admin.and(downstream)),
            ("/node", admin.and(downstream)),
            ("/listed", admin),
            ("/monitor", admin),
            ("/spire/agent/x/1", admin),
            ("/web", Power::default()),
            ("/loop", Power::default()),
            ("/nobody", Power::default()),
        ] {
            assert_eq!(leads_to(&view, &book, &id(path)), expected, "{path}");
            let entry = entry(&id("/new"), path, &["a:1"]);
            if let Ok(entry) = entry_from_proto(&entry, || "new".parse().unwrap()) {
                assert_eq!(gives_power(&view, &book, &entry), expected != Power::default(), "{path}");
            }
        }
        grant(&directory, &id("/loop"), Grant::Reader).await.unwrap();
        assert_eq!(leads_to(&directory.view(), &book, &id("/loop")), admin);
    }
}
