//! Puts the agent's identity on disk, and later what the disk refused.
//!
//! A full disk takes the identity away from no running agent: it goes on with what is in memory and says that a restart
//! would lose it. The key goes first, so that no certificate on disk is without its key. Start at [`Keeper::keep`].

use std::sync::Arc;

use spindle_keys::{Key, KeyError, KeyManager};
use spindle_spiffe_core::ErrorChain;
use tracing::{error, info};

use super::state::{State, StateError, StateFile};

/// A key that is not on disk, and the name it should have there.
pub(super) type OwedKey = (&'static str, Key);

/// The disk's side of the node identity.
pub(super) struct Keeper {
    file: StateFile,
    keys: Arc<dyn KeyManager>,
    owed_key: Option<OwedKey>,
    is_behind: bool,
}

/// Why the disk does not have what it should.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error("the key cannot be written")]
    Key(#[from] KeyError),
    #[error("the SVID and the bundle cannot be written")]
    State(#[from] StateError),
    #[error("the writing broke: {0}")]
    Broke(String),
}

impl Keeper {
    pub(super) fn new(file: StateFile, keys: Arc<dyn KeyManager>) -> Self {
        Self { file, keys, owed_key: None, is_behind: false }
    }

    /// Keeps `state`, whose SVID belongs to `owed_key` if that could not be written yet.
    pub(super) async fn keep_with(&mut self, state: &State, owed_key: Option<OwedKey>) {
        self.owed_key = owed_key;
        self.keep(state).await;
    }

    /// Keeps `state`, or says that it cannot and tries again at [`Keeper::catch_up`].
    pub(super) async fn keep(&mut self, state: &State) {
        if let Err(error) = self.write(state).await {
            self.is_behind = true;
            error!(error = %ErrorChain(&error),
                "the agent's identity cannot be kept on disk, trying again; a restart before that has to attest anew");
        }
    }

    /// Writes what could not be written before. To be called now and then.
    pub(super) async fn catch_up(&mut self, state: &State) {
        if self.is_behind && self.write(state).await.is_ok() {
            info!("the agent's identity is on disk now");
        }
    }

    async fn write(&mut self, state: &State) -> Result<(), KeepError> {
        let (file, keys, owed_key) = (self.file.clone(), self.keys.clone(), self.owed_key.clone());
        let state = state.clone();
        let written = tokio::task::spawn_blocking(move || {
            if let Some((id, key)) = owed_key {
                keys.keep(id, &key)?;
            }
            Ok(file.store(&state)?)
        });
        written.await.unwrap_or_else(|error| Err(KeepError::Broke(error.to_string())))?;
        (self.owed_key, self.is_behind) = (None, false);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use spindle_keys::{DiskKeys, KeyType};
    use spindle_testkit::TestFolder;

    use super::*;
    use crate::fixtures::{Authority, NOW, trust_domain};

    #[tokio::test]
    async fn what_a_full_disk_refused_is_written_later_and_never_a_certificate_without_its_key() {
        let folder = TestFolder::new();
        let file = StateFile::open(folder.path(), trust_domain()).unwrap();
        let keys = Arc::new(DiskKeys::open(folder.join("keys.json")).unwrap());
        let key = Key::generate(KeyType::EcP256).unwrap();
        let authority = Authority::new(&trust_domain());
        let id = trust_domain().member("/spire/agent/join_token/t").unwrap();
        let svid = authority.sign(&id, key.spki_der(), NOW, 60);
        let state = State { svid: Some(svid), bundle: Some(authority.bundle), ..State::default() };
        let mut keeper = Keeper::new(file.clone(), keys.clone());

        // A directory in the way of its file, which stops the superuser too.
        fs::create_dir(folder.join("keys.json.tmp")).unwrap();
        keeper.keep_with(&state, Some(("agent-svid-B", key.clone()))).await;
        keeper.catch_up(&state).await;
        assert_eq!(file.load().unwrap(), State::default());
        fs::remove_dir(folder.join("keys.json.tmp")).unwrap();
        keeper.catch_up(&state).await;
        assert_eq!(file.load().unwrap(), state);
        let again = DiskKeys::open(folder.join("keys.json")).unwrap();
        assert_eq!(again.get("agent-svid-B").unwrap().spki_der(), key.spki_der());
    }
}
