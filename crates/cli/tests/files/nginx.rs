//! A real nginx whose certificate turns over while clients connect without a pause.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use spindle_testkit::left_out;

use crate::program::{Program, find, wait_for};
use crate::tls::{Served, handshake};

/// Serials that clients have to see.
const SERIALS: usize = 5;

/// nginx has no free port to choose: a Unix socket does as well, TLS is the same.
fn config(work: &Path, svid: &Path) -> String {
    let (work, svid) = (work.display(), svid.display());
    format!(
        "pid {work}/nginx.pid;\nerror_log {work}/error.log;\ndaemon off;\nworker_processes 1;\n\
         events {{ worker_connections 64; }}\n\
         http {{\n access_log off;\n client_body_temp_path {work}/t1;\n proxy_temp_path {work}/t2;\n \
         fastcgi_temp_path {work}/t3;\n uwsgi_temp_path {work}/t4;\n scgi_temp_path {work}/t5;\n \
         server {{ listen unix:{work}/tls.sock ssl; ssl_certificate {svid}/tls.crt; ssl_certificate_key {svid}/tls.key;\n \
         location / {{ return 200; }} }}\n}}\n"
    )
}

#[test]
fn an_nginx_that_is_told_of_each_rotation_fails_no_handshake_and_shows_every_new_serial() {
    let Some(nginx) = find("nginx", &[PathBuf::from("/usr/sbin")]) else {
        return left_out("nginx under rotation", "it needs nginx");
    };
    let temp = tempfile::tempdir().unwrap();
    let work = temp.path();
    let pid_file = work.join("nginx.pid");
    let mut served =
        Served::start(work, &["-reloadPIDFile", pid_file.to_str().unwrap(), "-reloadSignal", "HUP"]);
    fs::write(work.join("nginx.conf"), config(work, &served.dir)).unwrap();
    let mut command = Command::new(nginx);
    command.arg("-c").arg(work.join("nginx.conf")).arg("-p").arg(work);
    let mut nginx = Program::start(command, &work.join("nginx.log"));
    let socket = work.join("tls.sock");
    wait_for("nginx", || {
        assert!(!nginx.has_ended(), "{}", nginx.log());
        UnixStream::connect(&socket).ok()
    });
    let (mut serials, mut handshakes) = (BTreeSet::new(), 0);
    wait_for("new serials", || {
        served.check();
        let log = || fs::read_to_string(work.join("error.log")).unwrap_or_default();
        let shown = UnixStream::connect(&socket).and_then(|socket| handshake(&served.dir, socket));
        serials.insert(shown.unwrap_or_else(|error| panic!("handshake {handshakes}: {error}\n{}", log())));
        handshakes += 1;
        (serials.len() >= SERIALS).then_some(())
    });
    println!("{handshakes} handshakes, {} serials, none failed", serials.len());
    assert!(served.log().contains("the program was told"), "{}", served.log());
    nginx.signal(Signal::SIGQUIT);
    assert!(nginx.end().success(), "{}", nginx.log());
}
