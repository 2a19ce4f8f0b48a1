//! Which authority signs and which comes next: two slots that take turns, alike for X.509, JWT and WIT authorities.
//!
//! Pure: the caller carries out the step it is told and reports back. Promises that a new authority signs only after it
//! was published, unless the active one has ended; and that there is an active one whenever each step was carried out in
//! time. Thresholds are SPIRE's. An authority that is not valid yet, because the clock was set back, is as absent as one
//! that has ended. Start at [`AuthoritySlots::step`].

use spindle_spiffe_core::Timestamp;

use crate::journal::{AuthorityStatus, AuthorityTrust, CaCertificate, JOURNAL_ENTRIES_MAX, JournalEntry};

const DAY_SECS: i64 = 24 * 60 * 60;

/// The next authority is prepared no earlier than this before the active one ends, in seconds.
const PREPARE_SECS_MAX: i64 = 30 * DAY_SECS;

/// The next authority takes over no earlier than this before the active one ends, in seconds.
const ACTIVATE_SECS_MAX: i64 = 7 * DAY_SECS;

/// What authorities sign. Each family has slots and keys of its own and rotates by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// X509-SVIDs. Keys `x509-CA-A` and `x509-CA-B`.
    X509,
    /// JWT-SVIDs. Keys `JWT-Signer-A` and `JWT-Signer-B`.
    Jwt,
    /// WIT-SVIDs. Keys `WIT-Signer-A` and `WIT-Signer-B`.
    Wit,
}

/// One of a family's two places for an authority, each with a key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The first, which a first start uses.
    A,
    /// The second.
    B,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotStep {
    /// No authority can sign. Resume one of [`AuthoritySlots::resumable`]; when there is none, make one with this slot's
    /// key, publish it, report it prepared and activate it at once.
    PrepareAndActivate(Slot),
    /// Make the next authority with this slot's key, publish it and report it.
    Prepare(Slot),
    /// Let the prepared authority sign, and report that.
    Activate {
        /// The slot of the prepared authority.
        slot: Slot,
        /// Whether not everybody has it yet, but the active one has ended. Worth a warning.
        forced: bool,
    },
    /// Nothing until then, or until the prepared authority is published everywhere. Later than `now`.
    Wait(Timestamp),
}

/// Why an event does not fit the state of the slots.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// The slot's key is in use.
    #[error("slot {0:?} holds the active authority; its key cannot be replaced")]
    SlotInUse(Slot),
    /// Nothing is prepared there.
    #[error("slot {0:?} holds no prepared authority")]
    NotPrepared(Slot),
    /// No such authority.
    #[error("there is no authority {0}")]
    Unknown(String),
    /// Its key is another one's by now, or it is not trusted any more.
    #[error("authority {0} cannot sign again")]
    NotResumable(String),
    /// Only an old authority can be tainted.
    #[error("authority {0} is not old; activate another one first")]
    NotOld(String),
    /// Only a tainted authority can be revoked.
    #[error("authority {0} is not tainted; taint it first, so that what it signed is replaced")]
    NotTainted(String),
}

/// The authorities of one family of one server, with a history of at most [`JOURNAL_ENTRIES_MAX`]. `P` is what is public of
/// an authority; the slots pass it on and never look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthoritySlots<P = CaCertificate> {
    /// Oldest first. At most one is active and at most one prepared, in different slots.
    entries: Vec<JournalEntry<P>>,
}

impl Slot {
    /// The name of its key in the key manager, SPIRE's.
    pub const fn key_id(self, family: Family) -> &'static str {
        match (family, self) {
            (Family::X509, Self::A) => "x509-CA-A",
            (Family::X509, Self::B) => "x509-CA-B",
            (Family::Jwt, Self::A) => "JWT-Signer-A",
            (Family::Jwt, Self::B) => "JWT-Signer-B",
            (Family::Wit, Self::A) => "WIT-Signer-A",
            (Family::Wit, Self::B) => "WIT-Signer-B",
        }
    }

    /// The slot of that family whose key has that name.
    pub fn of_key_id(family: Family, key_id: &str) -> Option<Self> {
        [Self::A, Self::B].into_iter().find(|slot| slot.key_id(family) == key_id)
    }

    /// The other slot.
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl<P> Default for AuthoritySlots<P> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<P> AuthoritySlots<P> {
    /// No authority yet, as at a first start.
    pub fn new() -> Self {
        Self::default()
    }

    /// From entries that `journal::restore` has cleaned.
    pub(crate) fn from_entries(entries: Vec<JournalEntry<P>>) -> Self {
        Self { entries }
    }

    /// The journal to store, oldest entry first.
    pub fn entries(&self) -> &[JournalEntry<P>] {
        &self.entries
    }

    /// The authority that signs.
    pub fn active(&self) -> Option<&JournalEntry<P>> {
        self.with_status(AuthorityStatus::Active)
    }

    /// The authority that signs next.
    pub fn prepared(&self) -> Option<&JournalEntry<P>> {
        self.with_status(AuthorityStatus::Prepared)
    }

    /// What stands in the slot that the active authority does not use: the prepared authority, or the one that signed
    /// before. That is as far back as SPIRE's tools look.
    pub fn next(&self) -> Option<&JournalEntry<P>> {
        let active = self.active()?;
        self.entries.iter().rfind(|entry| entry.slot != active.slot)
    }

    /// What to do at `now`. `published` tells whether everybody who must know the prepared authority does, or the grace
    /// for that is over; it does not matter while none is prepared. Asking changes nothing.
    pub fn step(&self, now: Timestamp, published: bool) -> SlotStep {
        let active = self.active().filter(|entry| entry.is_valid(now));
        let prepared = self.prepared().filter(|entry| entry.is_valid(now));
        match (active, prepared) {
            (None, None) => SlotStep::PrepareAndActivate(self.free_slot()),
            (None, Some(next)) => SlotStep::Activate { slot: next.slot, forced: !published },
            (Some(active), None) => match wait_until(prepare_after(active), now) {
                Some(wait) => wait,
                None => SlotStep::Prepare(active.slot.other()),
            },
            (Some(active), Some(next)) => match wait_until(activate_after(active), now) {
                Some(wait) => wait,
                None if published => SlotStep::Activate { slot: next.slot, forced: false },
                None if now >= active.not_after => SlotStep::Activate { slot: next.slot, forced: true },
                None => SlotStep::Wait(active.not_after),
            },
        }
    }

    /// An authority was made and is in the bundle. It takes the place of another prepared one.
    ///
    /// # Errors
    /// When its slot holds the active authority.
    pub fn on_prepared(&mut self, entry: JournalEntry<P>) -> Result<(), SlotError> {
        if self.active().is_some_and(|active| active.slot == entry.slot && active.is_valid(entry.issued_at)) {
            return Err(SlotError::SlotInUse(entry.slot));
        }
        for other in &mut self.entries {
            // An active authority whose slot is taken again cannot sign any more: its key is gone.
            if other.status == AuthorityStatus::Prepared || other.slot == entry.slot {
                other.status = AuthorityStatus::Old;
            }
        }
        self.entries.push(JournalEntry { status: AuthorityStatus::Prepared, ..entry });
        self.forget_oldest();
        Ok(())
    }

    /// The prepared authority of `slot` signs from now on; the active one is old.
    ///
    /// # Errors
    /// When no authority is prepared there.
    pub fn on_activated(&mut self, slot: Slot) -> Result<(), SlotError> {
        if !self.prepared().is_some_and(|entry| entry.slot == slot) {
            return Err(SlotError::NotPrepared(slot));
        }
        for entry in &mut self.entries {
            entry.status = match entry.status {
                AuthorityStatus::Prepared => AuthorityStatus::Active,
                AuthorityStatus::Active | AuthorityStatus::Old => AuthorityStatus::Old,
            };
        }
        Ok(())
    }

    /// Authorities that could sign at `now` although none is to: old ones that are valid and trusted and whose key was not
    /// replaced. There are some after the clock was set, forward and back. Newest first.
    pub fn resumable(&self, now: Timestamp) -> impl Iterator<Item = &JournalEntry<P>> {
        self.newest_of_slots().filter(move |entry| {
            entry.status == AuthorityStatus::Old
                && entry.trust == AuthorityTrust::Trusted
                && entry.is_valid(now)
        })
    }

    /// An old authority signs again; the active one is old.
    ///
    /// # Errors
    /// When it is none of [`AuthoritySlots::resumable`].
    pub fn on_resumed(&mut self, authority_id: &str, now: Timestamp) -> Result<(), SlotError> {
        if !self.resumable(now).any(|entry| entry.authority_id == authority_id) {
            return Err(SlotError::NotResumable(authority_id.to_owned()));
        }
        for entry in &mut self.entries {
            if entry.authority_id == authority_id {
                entry.status = AuthorityStatus::Active;
            } else if entry.status == AuthorityStatus::Active {
                entry.status = AuthorityStatus::Old;
            }
        }
        Ok(())
    }

    /// The last entry of each slot, which is the one that the slot's key belongs to. Newest first.
    pub(crate) fn newest_of_slots(&self) -> impl Iterator<Item = &JournalEntry<P>> {
        let mut seen = Vec::new();
        self.entries.iter().rev().filter(move |entry| {
            let is_newest = !seen.contains(&entry.slot);
            seen.push(entry.slot);
            is_newest
        })
    }

    /// What the authority signed is to be replaced everywhere.
    ///
    /// # Errors
    /// When there is no such authority or it is not old.
    pub fn taint(&mut self, authority_id: &str) -> Result<(), SlotError> {
        let entry = self.old(authority_id)?;
        if entry.trust == AuthorityTrust::Trusted {
            entry.trust = AuthorityTrust::Tainted;
        }
        Ok(())
    }

    /// The authority leaves the bundle.
    ///
    /// # Errors
    /// When there is no such authority, it is not old, or it was not tainted first.
    pub fn revoke(&mut self, authority_id: &str) -> Result<(), SlotError> {
        let entry = self.old(authority_id)?;
        if entry.trust == AuthorityTrust::Trusted {
            return Err(SlotError::NotTainted(authority_id.to_owned()));
        }
        entry.trust = AuthorityTrust::Revoked;
        Ok(())
    }

    fn with_status(&self, status: AuthorityStatus) -> Option<&JournalEntry<P>> {
        self.entries.iter().rfind(|entry| entry.status == status)
    }

    fn old(&mut self, authority_id: &str) -> Result<&mut JournalEntry<P>, SlotError> {
        let found = self.entries.iter_mut().rfind(|entry| entry.authority_id == authority_id);
        match found {
            None => Err(SlotError::Unknown(authority_id.to_owned())),
            Some(entry) if entry.status == AuthorityStatus::Old => Ok(entry),
            Some(_) => Err(SlotError::NotOld(authority_id.to_owned())),
        }
    }

    /// The slot that was used longest ago, so that the newest key is replaced last.
    fn free_slot(&self) -> Slot {
        self.entries.last().map_or(Slot::A, |entry| entry.slot.other())
    }

    fn forget_oldest(&mut self) {
        while self.entries.len() > JOURNAL_ENTRIES_MAX {
            let Some(at) = self.entries.iter().position(|entry| entry.status == AuthorityStatus::Old) else {
                return;
            };
            self.entries.remove(at);
        }
    }
}

/// The longest lifetime every SVID is sure to get from authorities of that lifetime, both in seconds: what is left of one
/// when the next takes over. A longer TTL may be cut short.
pub fn guaranteed_svid_ttl_secs(ca_ttl_secs: i64) -> i64 {
    (ca_ttl_secs / 6).min(ACTIVATE_SECS_MAX)
}

/// Past this second the next authority is prepared.
fn prepare_after<P>(active: &JournalEntry<P>) -> Timestamp {
    active.not_after - (lifetime_secs(active) / 2).min(PREPARE_SECS_MAX)
}

/// Past this second the next authority takes over.
fn activate_after<P>(active: &JournalEntry<P>) -> Timestamp {
    active.not_after - guaranteed_svid_ttl_secs(lifetime_secs(active))
}

fn lifetime_secs<P>(entry: &JournalEntry<P>) -> i64 {
    entry.not_after.secs_since(entry.issued_at).max(0)
}

fn wait_until(threshold: Timestamp, now: Timestamp) -> Option<SlotStep> {
    (now <= threshold).then(|| SlotStep::Wait(threshold + 1))
}

#[cfg(test)]
mod tests;
