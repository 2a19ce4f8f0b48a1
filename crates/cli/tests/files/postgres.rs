//! A real PostgreSQL whose certificate turns over while clients connect; its key is readable for its group alone.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::{User, chown, geteuid};
use spindle_testkit::left_out;

use crate::program::{Program, find, wait_for};
use crate::tls::{Served, handshake};

/// Serials that clients have to see.
const SERIALS: usize = 4;

/// Asks for TLS before the first message of PostgreSQL's protocol: length and code.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Where Debian's packages have the programs that are not in the path.
fn places() -> Vec<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions.map(|version| version.path().join("bin")).collect()
}

/// Who the server runs as: it refuses to be root.
fn user() -> Option<User> {
    match geteuid().is_root() {
        true => User::from_name("postgres").unwrap(),
        false => User::from_uid(geteuid()).unwrap(),
    }
}

fn as_user(program: &Path, user: &User) -> Command {
    let mut command = Command::new(program);
    if geteuid().is_root() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command.env("LC_ALL", "C");
    command
}

/// A new server's data, for TLS connections of everybody.
fn make_data(work: &Path, user: &User, svid: &Path) -> PathBuf {
    let home = work.join("postgres");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(user.uid), Some(user.gid)).unwrap();
    let data = home.join("data");
    let initdb = find("initdb", &places()).unwrap();
    let made =
        as_user(&initdb, user).args(["-N", "-A", "trust", "-U", "app", "-D"]).arg(&data).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let svid = svid.display();
    let settings = format!(
        "listen_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nfsync = off\nssl = on\n\
         ssl_cert_file = '{svid}/tls.crt'\nssl_key_file = '{svid}/tls.key'\nssl_ca_file = '{svid}/ca.crt'\n",
        home.display()
    );
    fs::write(data.join("postgresql.auto.conf"), settings).unwrap();
    fs::write(data.join("pg_hba.conf"), "hostssl all all 127.0.0.1/32 trust\n").unwrap();
    data
}

/// A server that answers. Its port is chosen by the system and may be gone again before the server has it.
fn start(work: &Path, user: &User, data: &Path) -> (Program, u16) {
    let postgres = find("postgres", &places()).unwrap();
    loop {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let mut command = as_user(&postgres, user);
        command.arg("-D").arg(data).args(["-p", &port.to_string()]);
        let log = work.join(format!("postgres-{port}.log"));
        let mut server = Program::start(command, &log);
        let is_up = wait_for("PostgreSQL", || {
            let log = server.log();
            let is_up = log.contains("ready to accept connections");
            (is_up || server.has_ended()).then_some(is_up)
        });
        if is_up {
            return (server, port);
        }
        assert!(server.log().contains("Address already in use"), "{}", server.log());
    }
}

fn serial(dir: &Path, port: u16) -> std::io::Result<String> {
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    socket.write_all(&SSL_REQUEST)?;
    let mut answer = [0];
    socket.read_exact(&mut answer)?;
    assert_eq!(answer, *b"S", "the server speaks no TLS");
    handshake(dir, socket)
}

/// PostgreSQL's own client, which verifies the server by the bundle's file.
fn query(psql: &Path, dir: &Path, port: u16, logs: impl Fn() -> String) {
    let place = format!(
        "host=127.0.0.1 port={port} user=app dbname=postgres sslmode=verify-ca sslrootcert={}/ca.crt",
        dir.display()
    );
    let words = "select ssl, version from pg_stat_ssl where pid = pg_backend_pid()";
    let said = Command::new(psql).args(["-X", "-A", "-t", "-c", words, &place]).output().unwrap();
    assert!(said.status.success() && said.stdout.starts_with(b"t|TLSv1.3"), "{said:?}\n{}", logs());
}

#[test]
fn a_postgresql_that_is_told_of_each_rotation_refuses_no_client_and_shows_every_new_serial() {
    let (psql, server) = (find("psql", &places()), find("postgres", &places()));
    let (Some(psql), Some(_), Some(user)) = (psql, server, user()) else {
        return left_out("PostgreSQL under rotation", "it needs postgresql and its user");
    };
    let temp = tempfile::tempdir().unwrap();
    let work = temp.path();
    fs::set_permissions(work, Permissions::from_mode(0o755)).unwrap();
    let pid_file = work.join("postgres/data/postmaster.pid");
    let group = user.gid.to_string();
    let reload = ["-reloadPIDFile", pid_file.to_str().unwrap()];
    // Of keys that root owns it asks for 0640 at most, of its own for 0600.
    let access: &[&str] =
        if geteuid().is_root() { &["-keyMode", "0640", "-group", &group] } else { &["-keyMode", "0600"] };
    let mut served = Served::start(work, &[&reload, access].concat());
    let data = make_data(work, &user, &served.dir);
    let (mut server, port) = start(work, &user, &data);
    let (mut serials, mut handshakes) = (BTreeSet::new(), 0);
    wait_for("new serials", || {
        served.check();
        let shown = serial(&served.dir, port);
        serials.insert(
            shown.unwrap_or_else(|error| panic!("handshake {handshakes}: {error}\n{}", server.log())),
        );
        query(&psql, &served.dir, port, || server.log() + &served.log());
        handshakes += 1;
        (serials.len() >= SERIALS).then_some(())
    });
    println!("{handshakes} handshakes and queries, {} serials, none failed", serials.len());
    server.signal(Signal::SIGINT);
    assert!(server.end().success(), "{}", server.log());
}
