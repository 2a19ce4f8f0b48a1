use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use spindle_spiffe_core::Reason;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;

use super::*;
use crate::io::Io;
use crate::peer::Peer;

fn config(path: &Path) -> UnixSocketConfig {
    UnixSocketConfig { path: path.to_owned(), mode: 0o770, parent_mode: 0o755, clients: UnixClients::Tools }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// A socket file whose listener has gone without removing it.
fn leave_stale_socket(path: &Path) {
    drop(std::os::unix::net::UnixListener::bind(path).unwrap());
}

#[tokio::test]
async fn the_socket_and_new_parents_get_their_modes() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a/b/api.sock");
    let _listener = UnixListener::bind(&config(&path)).unwrap();
    assert_eq!(mode(&path), 0o770);
    assert_eq!(mode(&dir.path().join("a")), 0o755);
    assert_eq!(mode(&dir.path().join("a/b")), 0o755);
}

#[tokio::test]
async fn a_parent_that_exists_keeps_its_mode() {
    let dir = TempDir::new().unwrap();
    let before = mode(dir.path());
    let _listener = UnixListener::bind(&config(&dir.path().join("api.sock"))).unwrap();
    assert_eq!(mode(dir.path()), before);
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("api.sock");
    leave_stale_socket(&path);
    let listener = UnixListener::bind(&config(&path)).unwrap();
    UnixStream::connect(&path).await.unwrap();
    assert_eq!(listener.path(), path);
}

#[tokio::test]
async fn a_live_socket_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("api.sock");
    let _first = UnixListener::bind(&config(&path)).unwrap();
    let error = UnixListener::bind(&config(&path)).unwrap_err();
    assert!(matches!(error, UnixBindError::InUse { .. }), "{error}");
    assert_eq!(error.to_string(), format!("another process answers on {}", path.display()));
    UnixStream::connect(&path).await.unwrap();
}

#[tokio::test]
async fn a_live_socket_with_a_full_queue_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("api.sock");
    let busy = tokio::net::UnixSocket::new_stream().unwrap();
    busy.bind(&path).unwrap();
    let _busy = busy.listen(0).unwrap();
    let _fills_the_queue = UnixStream::connect(&path).await.unwrap();
    let error = UnixListener::bind(&config(&path)).unwrap_err();
    assert!(matches!(error, UnixBindError::InUse { .. }), "{error}");
}

#[tokio::test]
async fn files_directories_and_links_in_the_way_are_left_alone() {
    let dir = TempDir::new().unwrap();
    let (file, folder, link) = (dir.path().join("file"), dir.path().join("folder"), dir.path().join("link"));
    fs::write(&file, "keep").unwrap();
    fs::create_dir(&folder).unwrap();
    leave_stale_socket(&dir.path().join("stale"));
    symlink(dir.path().join("stale"), &link).unwrap();
    for path in [&file, &folder, &link] {
        let error = UnixListener::bind(&config(path)).unwrap_err();
        assert!(matches!(error, UnixBindError::NotASocket { .. }), "{error}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"keep");
}

#[tokio::test]
async fn a_parent_that_is_a_file_and_a_path_too_long_are_clear_errors() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    for path in [dir.path().join("file/api.sock"), dir.path().join("x".repeat(120))] {
        let error = UnixListener::bind(&config(&path)).unwrap_err();
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}

#[tokio::test]
async fn the_socket_goes_with_its_listener() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("api.sock");
    drop(UnixListener::bind(&config(&path)).unwrap());
    assert!(!path.exists());
    drop(UnixListener::bind(&config(&path)).unwrap().incoming());
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_that_somebody_else_put_there_stays() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("api.sock");
    let ours = UnixListener::bind(&config(&path)).unwrap();
    // Beside ours first, so that it cannot get the same inode.
    let beside = dir.path().join("other.sock");
    let _other = std::os::unix::net::UnixListener::bind(&beside).unwrap();
    fs::rename(&beside, &path).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    drop(ours);
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
}

#[tokio::test]
async fn the_process_at_the_other_end_is_captured() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("api.sock");
    let mut incoming = UnixListener::bind(&config(&path)).unwrap().incoming();
    let _client = UnixStream::connect(&path).await.unwrap();
    let Ok(io) = incoming.next().await.unwrap();
    let Peer::Local(peer) = io.peer() else { panic!("{:?}", io.peer()) };
    assert_eq!(peer.pid, i32::try_from(std::process::id()).unwrap());
    assert_eq!(peer.uid, nix::unistd::geteuid().as_raw());
    assert_eq!(peer.gid, nix::unistd::getegid().as_raw());
    if let Some(pidfd) = &peer.pidfd {
        use std::os::fd::AsRawFd;
        let held = pidfd.open().unwrap();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", held.as_raw_fd())).unwrap();
        assert!(info.contains(&format!("Pid:\t{}\n", peer.pid)), "{info}");
        let pidfd = pidfd.clone();
        drop(io);
        let error = pidfd.open().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotConnected, "the connection has gone");
    }
}

#[tokio::test]
async fn a_caller_that_left_at_once_does_not_end_the_listener() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("api.sock");
    let mut incoming = UnixListener::bind(&config(&path)).unwrap().incoming();
    drop(UnixStream::connect(&path).await.unwrap());
    let _client = UnixStream::connect(&path).await.unwrap();
    for _ in 0..2 {
        let Ok(_io) = incoming.next().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_begin_is_let_go_and_one_that_has_begun_may_be_silent() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("api.sock");
    let mut incoming = UnixListener::bind(&config(&path)).unwrap().incoming();
    let (_silent, mut talks) =
        (UnixStream::connect(&path).await.unwrap(), UnixStream::connect(&path).await.unwrap());
    let (Ok(mut silent), Ok(mut begun)) = (incoming.next().await.unwrap(), incoming.next().await.unwrap());
    talks.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    begun.read_exact(&mut [0; 24]).await.unwrap();
    let error = silent.read_exact(&mut [0; 24]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    let (later, read) = (tokio::time::sleep(Duration::from_secs(3600)), begun.read_u8());
    tokio::pin!(read);
    tokio::select! {
        read = &mut read => panic!("nothing was sent: {read:?}"),
        () = later => {}
    }
    talks.write_all(b"x").await.unwrap();
    assert_eq!(read.await.unwrap(), b'x');
}

#[tokio::test]
async fn a_socket_that_is_not_there_or_not_answered_is_unreachable() {
    let dir = TempDir::new().unwrap();
    leave_stale_socket(&dir.path().join("stale.sock"));
    for name in ["missing.sock", "stale.sock"] {
        let path = dir.path().join(name);
        let error = connect_unix(&path).await.unwrap_err();
        assert_eq!(error.reason(), Reason::Unreachable);
        assert!(error.to_string().starts_with(&format!("cannot connect to {}", path.display())), "{error}");
    }
}

const SOCKET_VAR: &str = "SPINDLE_UNIX_TEST_SOCKET";

/// Connections that the other process opens.
const OPENED: usize = 200;

/// What another process does; a test without work when it runs as part of the suite. Each line of its input is the question
/// how many of its connections have ended by now.
#[test]
fn opener_body() {
    let Some(path) = std::env::var_os(SOCKET_VAR) else { return };
    let open = || std::os::unix::net::UnixStream::connect(&path).unwrap();
    let connections: Vec<_> = (0..OPENED).map(|_| open()).collect();
    println!("\nopened {}", connections.len());
    for _ in std::io::stdin().lines() {
        let has_ended = |mut connection: &std::os::unix::net::UnixStream| {
            connection.set_nonblocking(true).unwrap();
            matches!(connection.read(&mut [0]), Ok(0))
        };
        println!("ended {}", connections.iter().filter(|connection| has_ended(connection)).count());
    }
}

/// Another process with [`OPENED`] connections.
struct Opener {
    child: std::process::Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Opener {
    fn start(socket: &Path) -> Self {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["unix::tests::opener_body", "--exact", "--quiet", "--nocapture"])
            .env(SOCKET_VAR, socket)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == format!("opened {OPENED}")));
        Self { child, lines }
    }

    fn ended(&mut self) -> usize {
        writeln!(self.child.stdin.as_mut().unwrap()).unwrap();
        let line = self.lines.next().unwrap().unwrap();
        line.strip_prefix("ended ").unwrap().parse().unwrap()
    }

    fn leave(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

/// All connections that are waiting, up to one of ours that comes last, and is never too many.
async fn arrived(incoming: &mut UnixIncoming, path: &Path) -> Vec<Io> {
    let _ours = UnixStream::connect(path).await.unwrap();
    let mut all = Vec::new();
    loop {
        let Ok(io) = incoming.next().await.unwrap();
        let Peer::Local(peer) = io.peer() else { panic!("a local peer") };
        if is_ourselves(peer.pid) {
            assert!(io.crowded().is_none() && io.turn().is_zero());
            return all;
        }
        all.push(io);
    }
}

#[tokio::test]
async fn connections_of_a_process_that_opens_them_too_often_wait_for_their_turn_and_others_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let config = UnixSocketConfig { clients: UnixClients::Workloads, ..config(&dir.path().join("s")) };
    let limits =
        PaceLimits { per_process: Rate { burst: 3, per_sec: 1 }, per_user: Rate { burst: 1000, per_sec: 1 } };
    let mut incoming = UnixListener::bind(&config).unwrap().paced(limits).incoming();
    let opener = Opener::start(&config.path);
    let all = arrived(&mut incoming, &config.path).await;
    assert!(all.iter().all(|io| io.crowded().is_none()));
    let (at_once, in_turn): (Vec<_>, Vec<_>) =
        all.iter().map(Io::turn).partition(|turn: &Duration| turn.is_zero());
    opener.leave();
    assert!((3..OPENED / 4).contains(&at_once.len()), "{} at once", at_once.len());
    assert_eq!(at_once.len() + in_turn.len(), OPENED);
    assert!(in_turn.is_sorted(), "first come, first served: {in_turn:?}");
}

#[tokio::test(start_paused = true)]
async fn connections_beyond_the_places_of_a_process_are_held_before_they_are_closed() {
    let dir = tempfile::tempdir().unwrap();
    let config = UnixSocketConfig { clients: UnixClients::Workloads, ..config(&dir.path().join("s")) };
    let limits = CrowdLimits { total: 1000, per_user: 1000, per_process: 3 };
    let mut incoming = UnixListener::bind(&config).unwrap().limited(limits).incoming();
    let mut opener = Opener::start(&config.path);
    // Time stands still as long as there is something to do.
    let all = arrived(&mut incoming, &config.path).await;
    let (told, served): (Vec<&Io>, Vec<&Io>) = all.iter().partition(|io| io.crowded().is_some());
    assert_eq!((served.len(), told.len()), (3, 8));
    let (refused, held) = (OPENED - all.len(), CrowdLimits::held().per_process.min(OPENED - all.len()));
    assert!(held > 0);
    assert_eq!(opener.ended(), refused - held, "those for which there was no room");
    // Nobody connects any more.
    tokio::select! {
        _ = incoming.next() => panic!("nobody connects"),
        () = tokio::time::sleep(Duration::from_secs(5)) => {}
    }
    assert_eq!(opener.ended(), refused);
    opener.leave();
}

#[tokio::test(start_paused = true)]
async fn connections_that_are_held_are_closed_when_nobody_comes_after_them() {
    const REFUSED: usize = 3;
    let dir = tempfile::tempdir().unwrap();
    let config = UnixSocketConfig { clients: UnixClients::Workloads, ..config(&dir.path().join("s")) };
    // Eight are told.
    let limits = CrowdLimits { total: 1000, per_user: 1000, per_process: OPENED - 8 - REFUSED };
    let mut incoming = UnixListener::bind(&config).unwrap().limited(limits).incoming();
    let mut opener = Opener::start(&config.path);
    let mut serving = JoinSet::new();
    // A task that is polled only when something wakes it.
    serving.spawn(async move {
        let mut all = Vec::new();
        while let Some(Ok(io)) = incoming.next().await {
            all.push(io);
        }
    });
    let mut ended = 0;
    for _ in 0..1000 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        ended = opener.ended();
        if ended == REFUSED {
            break;
        }
    }
    assert_eq!(ended, REFUSED);
    opener.leave();
}
