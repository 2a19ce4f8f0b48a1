use std::os::unix::fs::MetadataExt;

use spindle_testkit::NOW;

use super::*;

const ACCESS: Access = Access { dir_mode: 0o755, key_mode: 0o600, owner: None, group: None };

fn open(dir: &Path) -> Result<Folder, Failure> {
    Folder::open(dir, ACCESS, 60, NOW)
}

fn file(name: &str, content: &str, readable: Readable) -> NamedFile {
    NamedFile { name: name.into(), content: Zeroizing::new(content.into()), readable }
}

fn pair(content: &str) -> [NamedFile; 2] {
    [file("tls.crt", content, Readable::Public), file("tls.key", content, Readable::Private)]
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn a_generation_is_seen_under_the_link_and_under_plain_names() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("a/tls");
    let mut folder = open(&dir).unwrap();
    assert_eq!(folder.publish(&pair("one"), NOW).unwrap(), 1);
    assert_eq!(folder.publish(&pair("two"), NOW).unwrap(), 2);
    assert_eq!(names(&dir), [MARKER, CURRENT, "gen-1", "gen-2", "tls.crt", "tls.key"]);
    assert_eq!(fs::read_link(dir.join(CURRENT)).unwrap(), Path::new("gen-2"));
    assert_eq!(fs::read_to_string(dir.join("tls.key")).unwrap(), "two");
    assert_eq!(fs::read_to_string(dir.join("gen-1/tls.key")).unwrap(), "one", "within the grace");
    folder.tidy(NOW + 60);
    assert!(!dir.join("gen-1").exists() && dir.join("gen-2").exists());
}

#[test]
fn keys_are_private_and_certificates_are_not_whatever_the_umask_is() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("tls");
    let access = Access { key_mode: 0o640, group: Some(nix::unistd::getegid().as_raw()), ..ACCESS };
    Folder::open(&dir, access, 60, NOW).unwrap().publish(&pair("x"), NOW).unwrap();
    let modes = ["", "current", "current/tls.crt", "current/tls.key"].map(|name| mode(&dir.join(name)));
    assert_eq!(modes, [0o755, 0o755, 0o644, 0o640]);
    assert_eq!(fs::metadata(dir.join("tls.key")).unwrap().gid(), nix::unistd::getegid().as_raw());
}

#[test]
fn only_a_directory_of_its_own_is_written_to() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("precious"), "mine").unwrap();
    let fault = open(temp.path()).err().expect("others' files");
    assert!(fault.what().ends_with("holds files of others") && !fault.remedies().is_empty(), "{fault}");
    assert_eq!(names(temp.path()), ["precious"]);
    let open_to_all = temp.path().join("open");
    fs::create_dir(&open_to_all).unwrap();
    fs::set_permissions(&open_to_all, Permissions::from_mode(0o1777)).unwrap();
    assert!(open(&open_to_all).err().expect("everyone writes").what().starts_with("everyone may write"));
    assert!(open(Path::new("/proc/nope")).err().expect("no such place").what().contains("/proc/nope"));
}

#[test]
fn one_process_at_a_time_keeps_a_directory() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("tls");
    let first = open(&dir).unwrap();
    let fault = open(&dir).err().expect("kept by another");
    assert!(fault.what().starts_with("another process keeps"), "{fault}");
    drop(first);
    open(&dir).unwrap();
}

#[test]
fn what_a_killed_run_left_is_cleared_and_numbers_go_on() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("tls");
    open(&dir).unwrap().publish(&pair("one"), NOW).unwrap();
    // Killed while the second generation was written, and while the link was made.
    fs::create_dir(dir.join("gen-2")).unwrap();
    fs::write(dir.join("gen-2/tls.crt"), "half").unwrap();
    symlink("gen-2", dir.join(CURRENT_NEW)).unwrap();
    let mut folder = open(&dir).unwrap();
    assert_eq!(names(&dir), [MARKER, CURRENT, "gen-1", "tls.crt", "tls.key"]);
    assert_eq!(fs::read_to_string(dir.join("tls.crt")).unwrap(), "one", "the old one is still shown");
    assert_eq!(folder.publish(&pair("two"), NOW).unwrap(), 2);
}

#[test]
fn a_name_that_is_gone_has_no_link_and_a_strange_file_is_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("tls");
    let mut folder = open(&dir).unwrap();
    folder.publish(&pair("one"), NOW).unwrap();
    folder.publish(&pair("two")[..1], NOW).unwrap();
    assert!(dir.join("tls.key").symlink_metadata().is_err());
    fs::write(dir.join("other"), "mine").unwrap();
    let fault = folder.publish(&[file("other", "x", Readable::Public)], NOW).unwrap_err();
    assert!(fault.what().contains("other is in the way"), "{fault}");
    assert_eq!(fs::read_to_string(dir.join("tls.crt")).unwrap(), "two", "the failed attempt changed nothing");
    assert_eq!(fs::read_to_string(dir.join("other")).unwrap(), "mine");
    assert!(!dir.join("gen-3").exists());
    assert_eq!(folder.publish(&pair("three"), NOW).unwrap(), 3);
}

#[test]
fn wap_32_a_withdrawn_key_is_gone_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("tls");
    let mut folder = open(&dir).unwrap();
    folder.publish(&pair("one"), NOW).unwrap();
    folder.publish(&pair("two"), NOW).unwrap();
    folder.withdraw(NOW).unwrap();
    assert_eq!(names(&dir), [MARKER, CURRENT, "gen-3"]);
    assert_eq!(names(&dir.join(CURRENT)), [""; 0]);
}
