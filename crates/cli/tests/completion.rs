//! Completions as a shell asks for them, and manual pages.

use std::path::Path;
use std::process::Command;

const BINARIES: [(&str, &str); 3] = [
    ("spindle-server", env!("CARGO_BIN_EXE_spindle-server")),
    ("spindle-agent", env!("CARGO_BIN_EXE_spindle-agent")),
    ("spindle", env!("CARGO_BIN_EXE_spindle")),
];

fn output(binary: &str, args: &[&str]) -> String {
    let (_, path) = BINARIES.iter().find(|(name, _)| *name == binary).expect("a binary");
    let output = Command::new(path).args(args).output().expect("runs");
    assert!(output.status.success(), "{binary} {args:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// What bash offers for the last word of `line`, which may be empty.
fn offered(dir: &Path, line: &str) -> Vec<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let script = dir.join(words[0]);
    if !script.exists() {
        std::fs::write(&script, output(words[0], &["completion", "bash"])).expect("written");
    }
    // As bash itself does it: find the function by the command, give it the words and where the cursor is.
    let ask = r#"
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
        spec=($(complete -p "$1"))
        for at in "${!spec[@]}"; do [[ ${spec[at]} == -F ]] && ask=${spec[at + 1]}; done
        "$ask" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        ((${#COMPREPLY[@]})) && printf '%s\n' "${COMPREPLY[@]}"
        exit 0
    "#;
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", ask, "ask"]).arg(&script).args(&words);
    let output = bash.output().expect("bash runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{line}: {output:?}");
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_and_flags_with_one_dash() {
    let dir = tempfile::tempdir().unwrap();
    for (line, expected) in [
        ("spindle-server en", &["entry"][..]),
        ("spindle-server entry cr", &["create"]),
        ("spindle-server entry create -soc", &["-socketPath"]),
        ("spindle-server entry create -x509", &["-x509SVIDTTL"]),
        ("spindle-server entry create -socketPath /tmp/s -parentI", &["-parentID"]),
        ("spindle-server logger set -l", &["-level"]),
        ("spindle-server agent purge -d", &["-dryRun"]),
        ("spindle-server run --soc", &[]),
        ("spindle-server completion ", &["-h", "-help", "bash", "zsh", "fish"]),
        ("spindle-server bundle show -output ", &["pretty", "json"]),
        ("spindle-server bundle show --output j", &["json"]),
        ("spindle-agent api fe", &["fetch"]),
        ("spindle-agent run -joinTokenF", &["-joinTokenFile"]),
        ("spindle-agent broker fi", &["files"]),
        ("spindle-agent broker files -pod", &["-pod", "-podUID"]),
        ("spindle de", &["dev", "demo"]),
    ] {
        assert_eq!(offered(dir.path(), line), expected, "{line}");
    }
}

#[test]
fn a_path_is_completed_behind_its_flag_whether_it_has_one_dash_or_two() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("server.conf"), "").unwrap();
    let conf = dir.path().join("server.conf").to_str().unwrap().to_owned();
    let start = &conf[..conf.len() - 4];
    for flag in ["-config", "--config"] {
        assert_eq!(offered(dir.path(), &format!("spindle-server run {flag} {start}")), [conf.as_str()]);
    }
}

#[test]
fn what_is_hidden_is_not_offered_and_what_is_offered_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let flags = offered(dir.path(), "spindle-agent api fetch jwt -");
    let offers = |flag: &str| flags.contains(&flag.to_owned());
    assert!(offers("-audience") && !offers("-format"), "{flags:?}");
    assert!(!offered(dir.path(), "spindle ").contains(&"demo-workload".to_owned()));
    for flag in offered(dir.path(), "spindle-server entry show -") {
        let ended = Command::new(env!("CARGO_BIN_EXE_spindle-server"))
            .args(["entry", "show", &flag, "x", "-socketPath", "/nonexistent"])
            .output()
            .expect("runs");
        let err = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(!err.contains("unexpected argument '--"), "{flag}: {err}");
    }
}

#[test]
fn no_script_offers_a_flag_with_two_dashes() {
    for (binary, _) in BINARIES {
        for shell in ["zsh", "fish"] {
            let script = output(binary, &["completion", shell]);
            for flag in ["help", "logFile", "socketPath", "config"] {
                assert!(!script.contains(&format!("\n'--{flag}")), "{binary} {shell} --{flag}");
                assert!(!script.contains(&format!(" -l {flag} ")), "{binary} {shell} -l {flag}");
            }
            let help = if shell == "zsh" { "'-help[" } else { " -o help " };
            assert!(script.contains(help), "{binary} {shell}: {script}");
        }
    }
}

#[test]
fn every_command_has_a_manual_page_whose_flags_have_one_dash() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    for (binary, _) in BINARIES {
        let first = output(binary, &["man"]);
        assert!(first.contains(".SH SYNOPSIS") && !first.contains(r"\-\-"), "{first}");
        let said = output(binary, &["man", pages.to_str().unwrap()]);
        assert!(said.starts_with("Wrote ") && pages.join(format!("{binary}.1")).exists(), "{said}");
    }
    let page = std::fs::read_to_string(pages.join("spindle-server-entry-create.1")).unwrap();
    assert!(page.contains(r"\fB\-spiffeID\fR") && !page.contains(r"\-\-"), "{page}");
    let page = std::fs::read_to_string(pages.join("spindle-server-entry-apply.1")).unwrap();
    assert!(
        page.contains("Exit status: 0 when all is as declared") && page.contains("entry \"web\" {"),
        "{page}"
    );
    assert!(
        pages.join("spindle-agent-api-fetch.1").exists() && !pages.join("spindle-demo-workload.1").exists()
    );
}

#[test]
fn a_shell_without_a_script_is_refused_with_those_there_are() {
    let ended =
        Command::new(env!("CARGO_BIN_EXE_spindle-server")).args(["completion", "tcsh"]).output().unwrap();
    let err = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.code() == Some(1) && err.contains("bash, zsh, fish"), "{err}");
    let file = tempfile::NamedTempFile::new().unwrap();
    let ended =
        Command::new(env!("CARGO_BIN_EXE_spindle-server")).arg("man").arg(file.path()).output().unwrap();
    let err = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.code() == Some(1) && err.contains("cannot make") && err.contains("Try: "), "{err}");
}
