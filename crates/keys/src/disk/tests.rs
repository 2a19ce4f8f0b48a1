//! The disk key manager against real files in a temporary directory.

use std::fs::{self, Permissions};
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

fn file_in(directory: &TempDir) -> PathBuf {
    directory.path().join("data").join("keys.json")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_key_survives_reopening() {
    let directory = TempDir::new().unwrap();
    let keys = DiskKeys::open(file_in(&directory)).unwrap();
    let a = keys.generate("x509-CA-A", KeyType::EcP256).unwrap();
    let b = keys.generate("x509-CA-B", KeyType::EcP384).unwrap();
    drop(keys);
    let again = DiskKeys::open(file_in(&directory)).unwrap();
    assert_eq!(again.get("x509-CA-A").unwrap().spki_der(), a.spki_der());
    assert_eq!(again.get("x509-CA-B").unwrap().spki_der(), b.spki_der());
    assert_eq!(again.all().into_iter().map(|(id, _)| id).collect::<Vec<_>>(), ["x509-CA-A", "x509-CA-B"]);
}

#[test]
fn a_first_start_makes_a_private_directory_and_a_private_file() {
    let directory = TempDir::new().unwrap();
    let keys = DiskKeys::open(file_in(&directory)).unwrap();
    assert_eq!(mode(&directory.path().join("data")), 0o700);
    assert_eq!(mode(keys.path()), 0o600);
    keys.generate("a", KeyType::EcP256).unwrap();
    assert_eq!(mode(keys.path()), 0o600);
    assert_eq!(keys.exposed_mode(), None);
    assert_eq!(fs::read_dir(directory.path().join("data")).unwrap().count(), 1, "no temporary file stays");
}

#[test]
fn the_file_is_what_spire_reads_and_writes() {
    let directory = TempDir::new().unwrap();
    let path = file_in(&directory);
    let keys = DiskKeys::open(&path).unwrap();
    let key = keys.generate("agent-svid-A", KeyType::EcP256).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let pkcs8 = STANDARD.decode(json["keys"]["agent-svid-A"].as_str().unwrap()).unwrap();
    assert_eq!(pkcs8, *key.pkcs8_der());
    // The layout SPIRE writes: indented by tabs, padded standard base64.
    let theirs =
        format!("{{\n\t\"keys\": {{\n\t\t\"agent-svid-A\": \"{}\"\n\t}}\n}}", STANDARD.encode(&pkcs8));
    fs::write(&path, theirs).unwrap();
    let again = DiskKeys::open(&path).unwrap();
    assert_eq!(again.get("agent-svid-A").unwrap().spki_der(), key.spki_der());
}

#[test]
fn an_empty_or_null_key_map_is_an_empty_manager() {
    let directory = TempDir::new().unwrap();
    for text in ["{}", "{\"keys\":null}", "{\"keys\":{}}"] {
        let path = directory.path().join("keys.json");
        fs::write(&path, text).unwrap();
        assert!(DiskKeys::open(path).unwrap().all().is_empty());
    }
}

#[test]
fn a_file_that_is_not_a_key_file_is_refused_by_name_and_left_alone() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("keys.json");
    let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let foreign = format!("{{\"keys\":{{\"a\":\"{}\"}}}}", STANDARD.encode(ed25519.serialized_der()));
    let cases = [
        ("", "line 1"),
        ("not json", "line 1"),
        ("[]", "line 1"),
        ("{\"keys\":{\"a\":7}}", "line 1"),
        ("{\"keys\":{},\"more\":1}", "line 1"),
        ("{\"keys\":{\"a\":\"***\"}}", "key \"a\" is not in base64"),
        ("{\"keys\":{\"a\":\"QUJD\"}}", "key \"a\": the private key is not in PKCS#8"),
        ("{\"keys\":{\"\":\"QUJD\"}}", "1 to 255 bytes"),
        (&foreign, "none of ec-p256"),
    ];
    for (text, expected) in cases {
        fs::write(&path, text).unwrap();
        let error = DiskKeys::open(&path).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(path.to_str().unwrap()), "{text}: {error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn no_error_quotes_a_secret() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("keys.json");
    for text in ["{\"keys\":{\"a\":\"c2VjcmV0Cg==\"}}", "{\"keys\":\"c2VjcmV0Cg==\"}", "c2VjcmV0Cg=="] {
        fs::write(&path, text).unwrap();
        let error = DiskKeys::open(&path).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("c2Vj"), "{error:?}");
    }
}

#[test]
fn a_file_too_large_or_not_regular_is_refused() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("keys.json");
    File::create(&path).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
    assert!(DiskKeys::open(&path).unwrap_err().to_string().contains("larger than"));
    let error = DiskKeys::open(directory.path()).unwrap_err().to_string();
    assert!(error.contains("not a regular file"), "{error}");
}

#[test]
fn a_file_others_may_read_is_used_reported_and_tightened_by_the_next_write() {
    let directory = TempDir::new().unwrap();
    let path = file_in(&directory);
    DiskKeys::open(&path).unwrap().generate("a", KeyType::EcP256).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let keys = DiskKeys::open(&path).unwrap();
    assert_eq!(keys.exposed_mode(), Some(0o644));
    assert!(keys.get("a").is_some());
    keys.generate("b", KeyType::EcP256).unwrap();
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn a_failed_write_keeps_the_former_key_in_memory_and_on_disk() {
    let directory = TempDir::new().unwrap();
    let path = file_in(&directory);
    let keys = DiskKeys::open(&path).unwrap();
    let former = keys.generate("a", KeyType::EcP256).unwrap();
    // A directory in the place of the temporary file makes the write fail, also for root.
    fs::create_dir(fresh_path(&path)).unwrap();
    let error = keys.generate("a", KeyType::EcP256).unwrap_err();
    assert!(matches!(error, KeyError::Io { .. }), "{error:?}");
    assert_eq!(keys.get("a").unwrap().spki_der(), former.spki_der());
    assert_eq!(DiskKeys::open(&path).unwrap().get("a").unwrap().spki_der(), former.spki_der());
    fs::remove_dir(fresh_path(&path)).unwrap();
    assert!(keys.generate("a", KeyType::EcP256).is_ok(), "the next correct call works");
}

#[test]
fn what_a_crash_left_beside_the_file_is_never_written_through() {
    let directory = TempDir::new().unwrap();
    let path = file_in(&directory);
    let keys = DiskKeys::open(&path).unwrap();
    let elsewhere = directory.path().join("elsewhere");
    fs::write(&elsewhere, "untouched").unwrap();
    symlink(&elsewhere, fresh_path(&path)).unwrap();
    keys.generate("a", KeyType::EcP256).unwrap();
    assert_eq!(fs::read_to_string(elsewhere).unwrap(), "untouched");
    assert!(!fs::symlink_metadata(&path).unwrap().is_symlink());
    assert!(DiskKeys::open(&path).unwrap().get("a").is_some());
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error_at_open() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("data"), "a file, not a directory").unwrap();
    let error = DiskKeys::open(file_in(&directory)).unwrap_err();
    assert!(matches!(error, KeyError::Io { .. }), "{error:?}");
}

#[test]
fn generating_from_many_threads_loses_no_key() {
    let directory = TempDir::new().unwrap();
    let keys = DiskKeys::open(file_in(&directory)).unwrap();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let keys = &keys;
            scope.spawn(move || keys.generate(&format!("key-{n}"), KeyType::EcP256).unwrap());
        }
    });
    assert_eq!(DiskKeys::open(file_in(&directory)).unwrap().all().len(), 8);
}
