//! `spindle exec` with real commands: exit statuses, signals, rotation, and nothing left behind.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use nix::sys::signal::Signal;
use spindle_proto::workload::X509svidResponse;
use tokio::sync::watch;
use tonic::Code;

use crate::fake::{Fake, Script, authority, ended, held, message, pushed};
use crate::program::{Program, scratch, spindle, wait_for};

fn one_svid(socket: &Path) -> Fake {
    let first = message(&authority());
    Fake::start(socket, Script::x509(move |_| held(vec![first.clone()])))
}

fn exec(fake: &Fake, work: &Path, flags: &[&str], command: &[&str]) -> Command {
    let mut exec = spindle();
    exec.env("XDG_RUNTIME_DIR", work).args(["exec", "-socketPath"]).arg(&fake.socket);
    exec.args(flags).arg("--").args(command);
    exec
}

fn left_in(work: &Path) -> usize {
    let entries = fs::read_dir(work).unwrap();
    entries
        .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with("spindle-exec-"))
        .count()
}

#[test]
fn a_command_finds_its_files_by_words_and_variables_and_its_exit_status_is_ours() {
    let temp = scratch();
    let fake = one_svid(&temp.path().join("sock"));
    let run = |script: &str| -> Output {
        exec(&fake, temp.path(), &[], &["sh", "-c", script, "sh", "{cert}", "{key}", "--dir={dir}"])
            .output()
            .unwrap()
    };
    let output = run(
        "test \"$1\" = \"$SPINDLE_CERT_FILE\" && test \"$2\" = \"$SPINDLE_KEY_FILE\" && test \"$3\" = \"--dir=$SPINDLE_SVID_DIR\" && \
         grep -q CERTIFICATE \"$1\" && grep -q 'PRIVATE KEY' \"$2\" && grep -q CERTIFICATE \"$SPINDLE_BUNDLE_FILE\" && \
         echo \"$SPIFFE_ENDPOINT_SOCKET\" && stat -L -c %a \"$2\" \"$SPINDLE_SVID_DIR\"; exit 7",
    );
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let expected = format!("unix://{}\n600\n700\n", fake.socket.display());
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{output:?}");
    assert_eq!(output.stderr, b"", "a command's errors are its own");
    assert_eq!(run("exit 0").status.code(), Some(0));
    assert_eq!(run("kill -KILL $$").status.code(), Some(128 + 9));
    assert_eq!(left_in(temp.path()), 0, "nothing is left");
}

#[test]
fn failures_of_our_own_have_the_statuses_of_a_shell() {
    let temp = scratch();
    let fake = one_svid(&temp.path().join("sock"));
    let code = |flags: &[&str], command: &[&str]| {
        let output = exec(&fake, temp.path(), flags, command).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, err) = code(&[], &["/nonexistent/command"]);
    assert!(status == 127 && err.contains("cannot run /nonexistent/command"), "{status} {err}");
    let (status, err) = code(&[], &["/etc/passwd"]);
    assert!(status == 126 && err.contains("cannot run /etc/passwd"), "{status} {err}");
    let (status, err) = code(&["-hint", "blue", "-timeout", "1s"], &["true"]);
    assert!(status == 125 && err.contains("no identity came within 1s"), "{status} {err}");
    assert_eq!(left_in(temp.path()), 0);
}

#[test]
fn signals_reach_the_command_and_its_answer_is_ours() {
    let temp = scratch();
    let fake = one_svid(&temp.path().join("sock"));
    let script = "trap 'echo got-usr1' USR1; trap 'echo got-hup' HUP; trap 'echo got-term; exit 3' TERM; echo ready; \
         while :; do sleep 0.05; done";
    let mut program =
        Program::start(exec(&fake, temp.path(), &[], &["sh", "-c", script]), &temp.path().join("log"));
    program.says("ready");
    for (signal, words) in
        [(Signal::SIGUSR1, "got-usr1"), (Signal::SIGHUP, "got-hup"), (Signal::SIGTERM, "got-term")]
    {
        program.signal(signal);
        program.says(words);
    }
    assert_eq!(program.end().code(), Some(3));
    assert_eq!(left_in(temp.path()), 0);
}

#[test]
fn a_signal_before_there_is_an_identity_ends_the_wait() {
    let temp = scratch();
    let denied = tonic::Status::permission_denied("no identity issued");
    let fake = Fake::start(&temp.path().join("sock"), Script::x509(move |_| Err(denied.clone())));
    let mut program = Program::start(exec(&fake, temp.path(), &[], &["true"]), &temp.path().join("log"));
    wait_for("a call", || (fake.x509_calls() > 0).then_some(()));
    program.signal(Signal::SIGTERM);
    assert_eq!(program.end().code(), Some(128 + 15), "{}", program.log());
    assert_eq!(left_in(temp.path()), 0);
}

/// A server to which a test pushes messages, newest last.
fn pushing(socket: &Path, first: X509svidResponse) -> (Fake, watch::Sender<Result<X509svidResponse, Code>>) {
    let (push, newest) = watch::channel(Ok(first));
    (Fake::start(socket, Script::x509(move |_| pushed(&newest))), push)
}

#[test]
fn a_command_is_told_of_each_rotation_by_its_signal() {
    let (temp, authority) = (scratch(), authority());
    let (fake, push) = pushing(&temp.path().join("sock"), message(&authority));
    let script = "trap 'readlink \"$SPINDLE_SVID_DIR/current\"' HUP; trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    let command = exec(&fake, temp.path(), &["-reloadSignal", "HUP"], &["sh", "-c", script]);
    let mut program = Program::start(command, &temp.path().join("log"));
    program.says("ready");
    for number in 2..5 {
        push.send_modify(|next| *next = Ok(message(&authority)));
        program.says(&format!("gen-{number}\n"));
    }
    program.signal(Signal::SIGTERM);
    assert!(program.end().success());
}

#[test]
fn a_command_is_started_again_for_each_rotation_and_killed_when_it_does_not_stop() {
    let (temp, authority) = (scratch(), authority());
    let (fake, push) = pushing(&temp.path().join("sock"), message(&authority));
    // The second start ignores the wish to stop.
    let script = "link=$(readlink \"$SPINDLE_SVID_DIR/current\"); test $link = gen-2 && trap '' TERM; echo started-$link; \
         while :; do sleep 0.05; done";
    let command = exec(&fake, temp.path(), &["-restart", "-stopTimeout", "1s"], &["sh", "-c", script]);
    let mut program = Program::start(command, &temp.path().join("log"));
    program.says("started-gen-1");
    for number in 2..4 {
        push.send_modify(|next| *next = Ok(message(&authority)));
        program.says(&format!("started-gen-{number}"));
    }
    program.signal(Signal::SIGTERM);
    assert_eq!(program.end().code(), Some(128 + 15), "{}", program.log());
}

#[test]
fn a_command_goes_on_when_the_agent_goes_away_for_good() {
    let temp = scratch();
    let first = message(&authority());
    let script = Script::x509(move |call| match call {
        0 => ended(vec![first.clone()], None),
        _ => Err(tonic::Status::invalid_argument("never again")),
    });
    let fake = Fake::start(&temp.path().join("sock"), script);
    let go = temp.path().join("go");
    let script = format!("until test -e {}; do sleep 0.05; done; test -s {{cert}} && exit 9", go.display());
    let mut program =
        Program::start(exec(&fake, temp.path(), &[], &["sh", "-c", &script]), &temp.path().join("log"));
    program.says("the files are not kept current any more");
    fs::write(go, "").unwrap();
    assert_eq!(program.end().code(), Some(9), "{}", program.log());
}

#[test]
fn a_command_is_told_to_end_when_exec_is_killed() {
    let temp = scratch();
    let fake = one_svid(&temp.path().join("sock"));
    let script = "trap 'echo got-term; exit 0' TERM; echo \"number $$\"; while :; do sleep 0.05; done";
    let mut program =
        Program::start(exec(&fake, temp.path(), &[], &["sh", "-c", script]), &temp.path().join("log"));
    program.says("number ");
    let log = program.log();
    let number = log.trim().strip_prefix("number ").unwrap();
    program.kill();
    wait_for("the command's answer", || program.log().contains("got-term").then_some(()));
    wait_for("the command's end", || (!Path::new("/proc").join(number).exists()).then_some(()));
}

#[test]
fn a_command_does_not_begin_when_exec_has_ended_already() {
    let mut tied = spindle();
    // Process 1 is the parent of no test.
    let output = tied.args(["exec-tied", "1", "--", "echo", "ran"]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.contains("spindle exec has ended before its command began"), "{err}");
}
