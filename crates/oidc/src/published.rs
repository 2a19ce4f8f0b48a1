//! The keys that clients are shown now, and how fresh they are. The source's task writes, everybody else reads.

use std::sync::Arc;

use bytes::Bytes;
use spindle_spiffe_core::{Clock, Timestamp};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::keys::{WebKey, to_jwks};

/// What readers see.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// The last good answer of the source; none before the first.
    pub(crate) keys: Option<Published>,
    /// When the source was last heard.
    pub(crate) heard: Heard,
}

/// When a source was last heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Not yet.
    Never,
    /// Then.
    At(Instant),
    /// It stands: changes are pushed.
    Now,
}

/// A rendered JWK Set.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// The document.
    pub(crate) body: Bytes,
    /// Whether it holds no key: the trust domain issues no JWT-SVIDs.
    pub(crate) is_empty: bool,
    /// When its keys last changed.
    pub(crate) modified: Timestamp,
}

/// The writing half.
pub(crate) struct Publisher {
    state: watch::Sender<State>,
    keys: Option<Vec<WebKey>>,
    set_key_use: bool,
    clock: Arc<dyn Clock>,
}

/// The reading half.
pub(crate) type Reader = watch::Receiver<State>;

/// Both halves, with nothing published.
pub(crate) fn channel(set_key_use: bool, clock: Arc<dyn Clock>) -> (Publisher, Reader) {
    let (state, reader) = watch::channel(State { keys: None, heard: Heard::Never });
    (Publisher { state, keys: None, set_key_use, clock }, reader)
}

impl Publisher {
    /// Shows these keys from now on. Whether they are new is told.
    pub(crate) fn publish(&mut self, keys: Vec<WebKey>, heard: Heard) -> bool {
        let is_new = self.keys.as_ref() != Some(&keys);
        self.state.send_modify(|state| {
            state.heard = heard;
            if is_new {
                let (body, is_empty) = (to_jwks(&keys, self.set_key_use), keys.is_empty());
                state.keys = Some(Published { body, is_empty, modified: self.clock.now() });
            }
        });
        if is_new {
            self.keys = Some(keys);
        }
        is_new
    }

    /// A source that stood has gone away now.
    pub(crate) fn lost(&self) {
        self.state.send_if_modified(|state| {
            let stood = state.heard == Heard::Now;
            if stood {
                state.heard = Heard::At(Instant::now());
            }
            stood
        });
    }
}

#[cfg(test)]
mod tests {
    use spindle_testkit::ManualClock;

    use super::*;
    use crate::keys::tests::web_key;

    #[tokio::test]
    async fn keys_that_have_not_changed_keep_their_time() {
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix_secs(1000)));
        let (mut publisher, reader) = channel(false, clock.clone());
        assert!(reader.borrow().keys.is_none());
        let modified = || reader.borrow().keys.as_ref().map(|keys| keys.modified.unix_secs());
        let key = web_key("a");
        assert!(publisher.publish(vec![key.clone()], Heard::Now));
        clock.advance(5);
        assert!(!publisher.publish(vec![key], Heard::Now));
        assert_eq!(modified(), Some(1000));
        assert!(publisher.publish(vec![], Heard::Now));
        assert_eq!(modified(), Some(1005));
        assert!(reader.borrow().keys.as_ref().is_some_and(|keys| keys.is_empty));
    }

    #[tokio::test]
    async fn a_source_that_went_away_was_heard_until_then_and_its_keys_stay() {
        let (mut publisher, reader) = channel(false, Arc::new(ManualClock::at(Timestamp::from_unix_secs(0))));
        publisher.lost();
        assert_eq!(reader.borrow().heard, Heard::Never);
        publisher.publish(vec![web_key("a")], Heard::Now);
        publisher.lost();
        assert!(matches!(reader.borrow().heard, Heard::At(_)) && reader.borrow().keys.is_some());
    }
}
