//! One call of a connection at a time: the others wait here, before they get into the line that everybody shares.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Below so many lanes nobody looks for those that are no longer used.
const CLEAN_FROM: usize = 1024;

/// The connections that have calls waiting.
#[derive(Debug, Default)]
pub(super) struct Lanes(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    by_connection: HashMap<SocketAddr, Weak<Semaphore>>,
    /// How many were left after the last look.
    in_use: usize,
}

impl Lanes {
    /// Waits until no other call of `connection` is in the line. Calls are let in in order.
    pub(super) async fn enter(&self, connection: SocketAddr) -> Option<OwnedSemaphorePermit> {
        let lane = self.0.lock().unwrap_or_else(PoisonError::into_inner).of(connection);
        // Nobody closes a lane, so there always is a permit in the end.
        lane.acquire_owned().await.ok()
    }
}

impl Known {
    fn of(&mut self, connection: SocketAddr) -> Arc<Semaphore> {
        if let Some(lane) = self.by_connection.get(&connection).and_then(Weak::upgrade) {
            return lane;
        }
        // Twice as many as were in use: each look is paid for by the lanes that came since.
        if self.by_connection.len() >= CLEAN_FROM.max(2 * self.in_use) {
            self.by_connection.retain(|_, lane| lane.strong_count() > 0);
            self.in_use = self.by_connection.len();
        }
        let lane = Arc::new(Semaphore::new(1));
        self.by_connection.insert(connection, Arc::downgrade(&lane));
        lane
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures_util::FutureExt;

    use super::*;

    fn connection(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }

    #[tokio::test]
    async fn the_calls_of_one_connection_go_one_by_one_and_others_pass() {
        let lanes = Lanes::default();
        let first = lanes.enter(connection(1)).await;
        assert!(lanes.enter(connection(1)).now_or_never().is_none());
        assert!(lanes.enter(connection(2)).now_or_never().is_some());
        drop(first);
        assert!(lanes.enter(connection(1)).now_or_never().is_some());
    }

    #[tokio::test]
    async fn connections_that_have_gone_are_forgotten() {
        let lanes = Lanes::default();
        let kept = lanes.enter(connection(1)).await;
        for port in 2..20_000 {
            lanes.enter(connection(port)).await;
        }
        assert!(lanes.0.lock().unwrap().by_connection.len() <= CLEAN_FROM);
        assert!(lanes.enter(connection(1)).now_or_never().is_none(), "and who waits is not");
        drop(kept);
    }
}
