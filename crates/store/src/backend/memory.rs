//! Records in memory only, for tests and development. They end with the store.

use std::collections::BTreeMap;

use super::{Backend, BackendError, Visit, Write};

#[derive(Default)]
pub(crate) struct MemoryBackend(BTreeMap<Vec<u8>, Vec<u8>>);

impl Backend for MemoryBackend {
    fn scan(&mut self, visit: &mut Visit<'_>) -> Result<(), BackendError> {
        self.0.iter().try_for_each(|(key, value)| visit(key, value))
    }

    fn apply(&mut self, writes: &[Write]) -> Result<(), BackendError> {
        for Write { key, value } in writes {
            match value {
                Some(value) => self.0.insert(key.clone(), value.clone()),
                None => self.0.remove(key),
            };
        }
        Ok(())
    }
}
