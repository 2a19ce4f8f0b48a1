//! How many connections each user has, so that one user cannot take all the process has room for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections of one user at a time. Each costs three descriptors and some 30 KiB, so this is 12,000 descriptors and
/// 120 MiB; a node runs a few hundred workloads, a test of a whole fleet a few thousand.
pub(crate) const CONNECTIONS_PER_USER_MAX: usize = 4096;

/// The connections of one listener by user.
#[derive(Clone, Debug, Default)]
pub(crate) struct Users(Arc<Mutex<HashMap<u32, usize>>>);

/// One connection's place among its user's, given back on drop.
#[derive(Debug)]
pub(crate) struct Place {
    users: Users,
    uid: u32,
}

impl Users {
    /// A place for one more connection of `uid`, if there is room.
    pub(super) fn take(&self, uid: u32) -> Option<Place> {
        let mut users = self.lock();
        let count = users.entry(uid).or_insert(0);
        if *count >= CONNECTIONS_PER_USER_MAX {
            return None;
        }
        *count += 1;
        Some(Place { users: self.clone(), uid })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut users = self.users.lock();
        if let Some(count) = users.get_mut(&self.uid) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                users.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_has_so_many_connections_and_no_more_and_another_his_own() {
        let users = Users::default();
        let mut places: Vec<Place> = std::iter::from_fn(|| users.take(1)).collect();
        assert_eq!(places.len(), CONNECTIONS_PER_USER_MAX);
        assert!(users.take(2).is_some());
        places.pop();
        assert!(users.take(1).is_some());
        drop(places);
        assert!(users.lock().is_empty(), "users who left are forgotten");
    }
}
