//! redb: one file, one table, durable as shipped.

use std::path::Path;

use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Backend, BackendError, Visit, Write};

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
/// All reads are served from the memory of the layer above.
const CACHE_BYTES: usize = 8 << 20;

pub(crate) struct RedbBackend(Database);

impl RedbBackend {
    /// Make a new database file, which must not exist.
    pub(crate) fn create(path: &Path) -> Result<Self, BackendError> {
        let db = Builder::new().set_cache_size(CACHE_BYTES).create(path);
        Ok(Self(db.map_err(|e| failed("create", e))?))
    }

    /// Open a database file. A missing or empty one is refused.
    pub(crate) fn open(path: &Path) -> Result<Self, BackendError> {
        let db = Builder::new().set_cache_size(CACHE_BYTES).open(path);
        Ok(Self(db.map_err(|e| failed("open", e))?))
    }
}

impl Backend for RedbBackend {
    fn scan(&mut self, visit: &mut Visit<'_>) -> Result<(), BackendError> {
        let read = self.0.begin_read().map_err(|e| failed("read", e))?;
        let table = match read.open_table(TABLE) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
            table => table.map_err(|e| failed("read", e))?,
        };
        for pair in table.iter().map_err(|e| failed("read", e))? {
            let (key, value) = pair.map_err(|e| failed("read", e))?;
            visit(key.value(), value.value())?;
        }
        Ok(())
    }

    fn apply(&mut self, writes: &[Write]) -> Result<(), BackendError> {
        let transaction = self.0.begin_write().map_err(|e| failed("write", e))?;
        {
            let mut table = transaction.open_table(TABLE).map_err(|e| failed("write", e))?;
            for Write { key, value } in writes {
                let done = match value {
                    Some(value) => table.insert(key.as_slice(), value.as_slice()).map(|_| ()),
                    None => table.remove(key.as_slice()).map(|_| ()),
                };
                done.map_err(|e| failed("write", e))?;
            }
        }
        transaction.commit().map_err(|e| failed("commit", e))
    }
}

fn failed(what: &str, error: impl Into<redb::Error>) -> BackendError {
    match error.into() {
        redb::Error::Io(error) => BackendError::io(what, &error),
        error @ redb::Error::Corrupted(_) => BackendError::Damaged(format!("{what}: {error}")),
        error => BackendError::Failed(format!("{what}: {error}")),
    }
}
