//! What must hold for any input of each parser here. Shared by the random tests and the fuzz targets in `tests/fuzz`.
#![allow(dead_code, reason = "each user takes its own part of this")]
#![allow(clippy::unwrap_used, reason = "a failing step is the finding")]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use clap::Parser;
use spindle_cli::config::agent::RawAgent;
use spindle_cli::config::changes::changed_keys;
use spindle_cli::config::oidc::OidcSettings;
use spindle_cli::config::server::RawServer;
use spindle_cli::entry_plan::{Plan, Rules};
use spindle_cli::{duration, entry_file, entry_plan, go_flags, hcl};
use spindle_server::{PathPrefix, RoleSubject};
use spindle_spiffe_core::SpiffeId;

/// A file is understood or refused with the line of the fault; what is understood is read or refused as any program's.
pub(crate) fn config_text(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match hcl::parse(text) {
        Ok(items) => {
            let _ = (RawServer::read(&items).is_ok(), RawAgent::read(&items).is_ok());
            let _ = OidcSettings::read(&items).is_ok();
            assert!(changed_keys(&items, &items).is_empty(), "a file differs from itself");
            assert_eq!(changed_keys(&items, &[]), changed_keys(&[], &items));
        }
        Err(fault) => assert!((1..=text.lines().count() + 1).contains(&fault.line), "{fault}"),
    }
}

/// An accepted duration fits Go's, and whole seconds are exactly those.
pub(crate) fn duration_text(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(read) = duration::parse(text) else { return };
    assert!(read.as_nanos() <= i64::MAX as u128);
    match duration::parse_secs(text) {
        Ok(secs) => assert_eq!(Duration::from_secs(secs.try_into().unwrap()), read),
        Err(_) => assert_ne!(read.subsec_nanos(), 0),
    }
}

/// A prefix covers only what it is the start of, segment by segment; a subject prints as it was read.
pub(crate) fn role_texts(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(prefix) = text.parse::<PathPrefix>() {
        let stem = text.strip_suffix('/').unwrap_or(text);
        let covers =
            |path: &str| format!("spiffe://td{path}").parse::<SpiffeId>().ok().map(|id| prefix.covers(&id));
        assert_eq!(prefix.as_str(), text);
        assert!(covers(&format!("{stem}/a")).is_none_or(|covered| covered), "{text:?}");
        assert!(covers(&format!("{stem}a")).is_none_or(|covered| !covered || stem.is_empty()), "{text:?}");
        assert!(
            covers("/other/a").is_none_or(|covered| !covered || "/other/a/".starts_with(&format!("{stem}/")))
        );
    }
    if let Ok(subject) = text.parse::<RoleSubject>() {
        assert_eq!(subject.to_string().parse::<RoleSubject>(), Ok(subject));
    }
}

#[derive(Parser)]
struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Create {
        #[arg(long = "spiffeID")]
        spiffe_id: Option<String>,
        #[arg(long)]
        selector: Vec<String>,
        #[arg(long)]
        admin: bool,
    },
}

/// Arguments are taken, or refused with a message and an exit status that scripts know.
pub(crate) fn go_flag_arguments(input: &[u8]) {
    let words = input.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec()));
    let args = std::iter::once("spindle".into()).chain(words);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    match go_flags::parse::<Flags>(args, &mut out, &mut err) {
        Ok(Flags { command: Command::Create { spiffe_id, selector, .. } }) => {
            let given = spiffe_id.iter().chain(&selector).map(|value| value.len()).sum::<usize>();
            assert!(given <= input.len() && out.is_empty() && err.is_empty());
        }
        Err(0) => assert!(!out.is_empty()),
        Err(status) => assert!(matches!(status, 1 | 127) && !err.is_empty()),
    }
}

/// A file of entries is understood or refused with its name; what is understood comes back from what is written of it, and
/// a plan made of it can be made once more.
pub(crate) fn entry_file_text(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let file = match entry_file::parse("a file", text) {
        Ok(file) => file,
        Err(fault) => return assert!(fault.starts_with("a file: "), "{fault}"),
    };
    let entries: Vec<_> = file.entries.iter().map(|one| one.entry.clone()).collect();
    let again =
        entry_file::parse("again", &entry_file::write("example.org", &entries, &file.federation)).unwrap();
    let mut sorted: Vec<_> =
        entries.iter().map(|entry| (entry.id.clone(), entry_plan::fields(entry))).collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    let again: Vec<_> =
        again.entries.iter().map(|one| (one.entry.id.clone(), entry_plan::fields(&one.entry))).collect();
    assert_eq!(again, sorted);
    let set = "set".parse().unwrap();
    let rules = Rules { set: Some(&set), prune: true, change: true };
    if let Ok(plan) = Plan::make(&file.entries, &[], rules) {
        assert_eq!((plan.steps.len(), plan.unchanged), (entries.len(), 0));
    }
}
