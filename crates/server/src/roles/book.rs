//! Who has which role: what the configuration says, and on top of it what is stored.

use std::collections::HashMap;
use std::sync::Arc;

use spindle_spiffe_core::SpiffeId;

use super::{Grant, RoleAssignment, RoleSubject};
use crate::directory::View;
use crate::live::LiveSettings;

/// Lifetimes of SVIDs whose entry names none, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DefaultTtls {
    pub(crate) x509_svid_secs: i64,
    pub(crate) jwt_svid_secs: i64,
}

/// What the configuration says about callers.
#[derive(Debug)]
pub(crate) struct RoleBook {
    /// Who is an administrator, how long SVIDs live and which of them make agents may change while the server runs.
    live: LiveSettings,
    identities: HashMap<SpiffeId, Vec<Grant>>,
    uids: HashMap<u32, Vec<Grant>>,
    gids: HashMap<u32, Vec<Grant>>,
    assignments: Vec<RoleAssignment>,
}

impl RoleBook {
    pub(crate) fn new(live: LiveSettings, assignments: &[RoleAssignment]) -> Self {
        let mut book = Self {
            live,
            identities: HashMap::new(),
            uids: HashMap::new(),
            gids: HashMap::new(),
            assignments: assignments.to_vec(),
        };
        for RoleAssignment { subject, grant } in assignments {
            let grants = match subject {
                RoleSubject::Identity(id) => book.identities.entry(id.clone()).or_default(),
                RoleSubject::Uid(uid) => book.uids.entry(*uid).or_default(),
                RoleSubject::Gid(gid) => book.gids.entry(*gid).or_default(),
            };
            grants.push(grant.clone());
        }
        book
    }

    pub(crate) fn defaults(&self) -> DefaultTtls {
        let live = self.live.load();
        DefaultTtls {
            x509_svid_secs: live.default_x509_svid_ttl_secs,
            jwt_svid_secs: live.default_jwt_svid_ttl_secs,
        }
    }

    /// In the order of the file.
    pub(crate) fn assignments(&self) -> &[RoleAssignment] {
        &self.assignments
    }

    /// Whether an SVID makes an agent of anybody.
    pub(crate) fn exchanges(&self) -> bool {
        self.live.load().node_attestors.exchange_prefix().is_some()
    }

    /// Whether the SVID of this identity, which is one of ours, makes an agent of whoever has it.
    pub(crate) fn makes_agent(&self, id: &SpiffeId) -> bool {
        let live = self.live.load();
        live.node_attestors.exchange_prefix().is_some_and(|prefix| id.path().starts_with(prefix))
    }

    /// Whether `admin_ids` names it.
    pub(crate) fn is_admin(&self, id: &SpiffeId) -> bool {
        self.live.load().admin_ids.contains(id)
    }

    /// The identities that are administrators or have a role by the configuration.
    pub(crate) fn named(&self) -> Vec<SpiffeId> {
        let admin_ids = self.live.load().admin_ids.clone();
        admin_ids.into_iter().chain(self.identities.keys().cloned()).collect()
    }

    /// The roles of an identity, those of the configuration and those that are stored.
    pub(crate) fn grants_of<'a>(&'a self, view: &'a View, id: &SpiffeId) -> impl Iterator<Item = &'a Grant> {
        let stored = view.roles_of(id).map(|holder| &holder.grants);
        self.identities.get(id).into_iter().chain(stored).flatten()
    }

    /// The roles of a caller over the local socket; none when no role names its user or group: it may do everything.
    pub(crate) fn local_grants(&self, uid: u32, gid: u32) -> Option<Arc<[Grant]>> {
        let of_user = self.uids.get(&uid);
        let of_group = self.gids.get(&gid);
        let is_named = of_user.is_some() || of_group.is_some();
        is_named.then(|| of_user.into_iter().chain(of_group).flatten().cloned().collect())
    }
}
