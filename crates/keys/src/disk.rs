//! Keys in one JSON file, in SPIRE's format: `{"keys":{"<id>":"<base64 PKCS#8>"}}`.
//!
//! A generated key is on the disk before it is handed out, and a crash leaves the old or the new file, never half of one.
//! A file that cannot be understood is an error and stays as it is. Two processes must not share one file; the server's
//! lock on its data directory and the agent's on its own see to that. Start at [`DiskKeys::open`].

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::key::{Key, KeyType};
use crate::manager::{KEYS_MAX, KeyError, KeyManager, check_id, check_room};

/// The largest key file that is read: [`KEYS_MAX`] RSA-4096 keys take less than half of it.
pub const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Who may read a file: anyone but its owner.
const OTHERS: u32 = 0o077;

/// Keys kept in one file of mode 0600.
#[derive(Debug)]
pub struct DiskKeys {
    path: PathBuf,
    exposed_mode: Option<u32>,
    keys: Mutex<BTreeMap<String, Key>>,
}

/// The file as it is read. Another member would be lost on the next write, so it is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    keys: Option<BTreeMap<String, String>>,
}

impl DiskKeys {
    /// Opens the file at `path`, or starts with no keys when there is none. Missing directories are made with mode
    /// 0700. A first start writes the empty file, so that a directory which cannot be written shows at once.
    ///
    /// # Errors
    /// When the file cannot be read, is too large, or is not a key file. It is never overwritten then.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, KeyError> {
        let path = path.into();
        let (keys, mode) = match File::open(&path) {
            Ok(file) => read_keys(file, &path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_directory(directory_of(&path))?;
                write_keys(&path, &BTreeMap::new())?;
                (BTreeMap::new(), 0o600)
            }
            Err(source) => return Err(KeyError::Io { action: "open", path, source }),
        };
        let exposed_mode = (mode & OTHERS != 0).then_some(mode);
        Ok(Self { path, exposed_mode, keys: Mutex::new(keys) })
    }

    /// Where the keys are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The mode the file had at [`DiskKeys::open`] if its group or others had any right to it.
    ///
    /// Such a file is used all the same: SPIRE starts with one, and refusing it would stop a site that moves over. The
    /// caller warns; the next generated key sets the mode to 0600.
    pub fn exposed_mode(&self) -> Option<u32> {
        self.exposed_mode
    }
}

impl KeyManager for DiskKeys {
    fn generate(&self, id: &str, key_type: KeyType) -> Result<Key, KeyError> {
        check_id(id)?;
        let key = Key::generate(key_type)?;
        self.keep(id, &key)?;
        Ok(key)
    }

    fn keep(&self, id: &str, key: &Key) -> Result<(), KeyError> {
        check_id(id)?;
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        check_room(&keys, id)?;
        let mut next = keys.clone();
        next.insert(id.to_owned(), key.clone());
        write_keys(&self.path, &next)?;
        *keys = next;
        Ok(())
    }

    fn get(&self, id: &str) -> Option<Key> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    fn all(&self) -> Vec<(String, Key)> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.iter().map(|(id, key)| (id.clone(), key.clone())).collect()
    }
}

/// Reads an open key file; also tells its mode.
fn read_keys(file: File, path: &Path) -> Result<(BTreeMap<String, Key>, u32), KeyError> {
    let io = |source| KeyError::Io { action: "read", path: path.to_owned(), source };
    let bad = |why: String| KeyError::BadFile { path: path.to_owned(), why };
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(bad("it is not a regular file".into()));
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(bad(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    let mut text = Zeroizing::new(Vec::with_capacity(metadata.len() as usize + 1));
    file.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(io)?;
    let keys = parse_keys(&text).map_err(bad)?;
    Ok((keys, metadata.permissions().mode() & 0o7777))
}

/// Errors name a key by its id and say where the JSON breaks, without quoting any of it.
fn parse_keys(text: &[u8]) -> Result<BTreeMap<String, Key>, String> {
    let file: KeyFile = serde_json::from_slice(text).map_err(|error| {
        format!("its JSON cannot be read at line {}, column {}", error.line(), error.column())
    })?;
    // Every secret goes into a wiping buffer before the first check can leave this function.
    let secrets: Vec<(String, Zeroizing<String>)> =
        file.keys.unwrap_or_default().into_iter().map(|(id, secret)| (id, Zeroizing::new(secret))).collect();
    if secrets.len() > KEYS_MAX {
        return Err(format!("it holds {} keys, more than {KEYS_MAX}", secrets.len()));
    }
    secrets.into_iter().map(|(id, secret)| parse_key(id, &secret)).collect()
}

fn parse_key(id: String, secret: &str) -> Result<(String, Key), String> {
    check_id(&id).map_err(|error| error.to_string())?;
    let pkcs8 = Zeroizing::new(STANDARD.decode(secret).map_err(|_| format!("key {id:?} is not in base64"))?);
    let key = Key::from_pkcs8_der(&pkcs8).map_err(|error| format!("key {id:?}: {error}"))?;
    Ok((id, key))
}

/// Replaces the key file as a whole: a private file beside it, synced, renamed over it, and the directory synced.
fn write_keys(path: &Path, keys: &BTreeMap<String, Key>) -> Result<(), KeyError> {
    let text = print_keys(keys);
    let fresh = fresh_path(path);
    // What a crash left behind is removed, not reused: `create_new` then also refuses a planted link.
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(KeyError::Io { action: "remove", path: fresh, source: error });
        }
        _ => {}
    }
    let written = write_private(&fresh, &text).and_then(|()| std::fs::rename(&fresh, path));
    if let Err(source) = written {
        // Best effort: the old key file is still in place, and the failure is what the caller has to hear of.
        let _ = std::fs::remove_file(&fresh);
        return Err(KeyError::Io { action: "write", path: path.to_owned(), source });
    }
    let directory = directory_of(path);
    let synced = File::open(directory).and_then(|handle| handle.sync_all());
    synced.map_err(|source| KeyError::Io { action: "sync", path: directory.to_owned(), source })
}

/// The file's text; the buffer is large enough from the start, so that no half-grown copy of a secret stays behind.
fn print_keys(keys: &BTreeMap<String, Key>) -> Zeroizing<Vec<u8>> {
    let entries: Vec<(String, Zeroizing<String>)> = keys
        .iter()
        .map(|(id, key)| (id.clone(), Zeroizing::new(STANDARD.encode(key.pkcs8_der().as_slice()))))
        .collect();
    let bytes: usize = entries.iter().map(|(id, secret)| 6 * id.len() + secret.len() + 8).sum();
    let mut text = Zeroizing::new(Vec::with_capacity(bytes + 32));
    text.extend_from_slice(b"{\"keys\":{");
    for (at, (id, secret)) in entries.iter().enumerate() {
        let id = serde_json::to_string(id).expect("a string always has a JSON form");
        text.extend_from_slice(if at == 0 { b"\n\t" } else { b",\n\t" });
        text.extend_from_slice(id.as_bytes());
        text.extend_from_slice(b":\"");
        text.extend_from_slice(secret.as_bytes());
        text.extend_from_slice(b"\"");
    }
    text.extend_from_slice(b"\n}}\n");
    text
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn make_directory(directory: &Path) -> Result<(), KeyError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|source| KeyError::Io { action: "make directory", path: directory.to_owned(), source })
}

/// The directory a file lies in; `.` for a bare name.
fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn fresh_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests;
