//! What must hold for any input of each parser here. Shared by the random tests and the fuzz targets in `tests/fuzz`.
#![allow(dead_code, reason = "each user takes its own part of this")]
#![allow(clippy::unwrap_used, reason = "a failing step is the finding")]

use spindle_store::{ImportError, StoreConfig, StoreKind, check_export, export, import};

/// A store made from a file exports to the same file again, but for its history. Random edits never match a checksum, so
/// the same bytes are tried with checksums that do.
pub(crate) fn exported_store(input: &[u8]) {
    imported_again(input);
    let mut sealed = input.to_vec();
    seal_parts(&mut sealed);
    imported_again(&sealed);
}

/// Head: magic, history, revision, checksum.
const HEAD: usize = 40;

/// Put the right checksum behind each part, as far as the lengths in them can be followed.
fn seal_parts(file: &mut [u8]) {
    let mut rest = file;
    let mut bytes = HEAD;
    while let Some((part, tail)) = rest.split_at_mut_checked(bytes) {
        let Some((crc, tail)) = tail.split_at_mut_checked(4) else { return };
        crc.copy_from_slice(&crc32fast::hash(part).to_be_bytes());
        rest = tail;
        bytes = match rest.first() {
            Some(1) if rest.len() >= 18 => {
                let length = |at: usize| u32::from_be_bytes(rest[at..at + 4].try_into().unwrap()) as usize;
                18_usize.saturating_add(length(10)).saturating_add(length(14))
            }
            Some(0xff) => 17,
            _ => return,
        };
    }
}

fn imported_again(input: &[u8]) {
    let config = StoreConfig { kind: StoreKind::Memory, dir: "unused".into(), history: [0x5a; 16] };
    let checked = check_export(input);
    let imported = match import(input, &config) {
        Ok(imported) => imported,
        // What is wrong with the file alone is seen without making a store.
        Err(ImportError::Target(_) | ImportError::SameHistory(_)) => return,
        Err(_) => return assert!(checked.is_err()),
    };
    let checked = checked.unwrap();
    assert_eq!((checked.records, checked.revision.number), (imported.records, imported.revision.number));
    let mut again = Vec::new();
    export(&imported.store, &mut again).unwrap();
    assert_eq!(again.len(), input.len());
    let parts = |file: &[u8]| [file[..16].to_vec(), file[32..HEAD].to_vec(), file[HEAD + 4..].to_vec()];
    assert_eq!(parts(&again), parts(input));
}
