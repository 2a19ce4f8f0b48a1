//! A node whose workloads are processes of their own: thousands open their streams at once, leave, and others come; and a
//! process that asks for too much is told so, while others are served. The other processes are this very program, started
//! again to run `caller_body`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use spindle_agent::JoinToken;
use spindle_agent::config::{CallerLimits, Rate};
use spindle_e2e::light::{Answer, Light};
use spindle_e2e::{Domain, Node, id, own_uid};
use spindle_server::StoreKind;
use spindle_testkit::left_out;
use tokio::task::{JoinSet, spawn_blocking};

const SOCKET_VAR: &str = "SPINDLE_CROWD_TEST_SOCKET";
const STREAMS_VAR: &str = "SPINDLE_CROWD_TEST_STREAMS";

/// Streams that open at once.
const STREAMS: usize = 5000;

/// Processes that open them.
const PROCESSES: usize = 8;

/// One end of each connection is in this process, together with server and agent.
const DESCRIPTORS: u64 = 9000;

/// What another process does; a test without work when it runs as part of the suite.
#[tokio::test]
async fn caller_body() -> Result<()> {
    let (Some(socket), Some(streams)) = (std::env::var_os(SOCKET_VAR), std::env::var(STREAMS_VAR).ok())
    else {
        return Ok(());
    };
    raise_descriptors()?;
    let socket = PathBuf::from(socket);
    let mut opening = JoinSet::new();
    for _ in 0..streams.parse()? {
        let socket = socket.clone();
        opening.spawn(async move {
            let mut light = Light::call(&socket).await?;
            std::io::Result::Ok((light.answer().await?, light))
        });
    }
    let (mut staying, mut refused) = (JoinSet::new(), 0);
    while let Some(opened) = opening.join_next().await {
        match opened? {
            Ok((Answer::Message(_), light)) => drop(staying.spawn(light.stay())),
            _ => refused += 1,
        }
    }
    println!("\ncaller {} {refused}", staying.len());
    let end = spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    end.await??;
    Ok(())
}

/// The limit of open files, raised to what the system allows.
fn raise_descriptors() -> Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// Another process with open streams.
struct Caller {
    child: Child,
    output: BufReader<ChildStdout>,
    input: Option<ChildStdin>,
}

impl Caller {
    fn start(socket: &Path, streams: usize) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["caller_body", "--exact", "--nocapture", "--quiet"])
            .env(SOCKET_VAR, socket)
            .env(STREAMS_VAR, streams.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = BufReader::new(child.stdout.take().context("its output")?);
        let input = child.stdin.take();
        Ok(Self { child, output, input })
    }

    /// How many streams it has, and how many it was refused.
    fn served_and_refused(&mut self) -> Result<(usize, usize)> {
        let mut line = String::new();
        while self.output.read_line(&mut line)? > 0 {
            if let Some((served, refused)) =
                line.trim().strip_prefix("caller ").and_then(|l| l.split_once(' '))
            {
                return Ok((served.parse()?, refused.parse()?));
            }
            line.clear();
        }
        anyhow::bail!("the other process ended without a word")
    }

    fn leave(mut self) -> Result<()> {
        drop(self.input.take());
        let mut rest = String::new();
        while self.output.read_line(&mut rest)? > 0 {}
        ensure!(self.child.wait()?.success(), "the other process failed: {rest}");
        Ok(())
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        // Fails only for a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts callers and waits until each has its answers.
async fn callers(node: &Node, count: usize, streams: usize) -> Result<Vec<(Caller, usize, usize)>> {
    let started =
        (0..count).map(|_| Caller::start(&node.socket_path, streams)).collect::<Result<Vec<_>>>()?;
    let told = spawn_blocking(move || {
        let tell = |mut caller: Caller| {
            caller.served_and_refused().map(|(served, refused)| (caller, served, refused))
        };
        started.into_iter().map(tell).collect()
    });
    told.await?
}

async fn leave(callers: Vec<(Caller, usize, usize)>) -> Result<()> {
    spawn_blocking(move || callers.into_iter().try_for_each(|(caller, _, _)| caller.leave())).await?
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_streams_of_other_processes_that_open_at_once_are_all_served_and_later_ones_too()
-> Result<()> {
    if raise_descriptors()? < DESCRIPTORS {
        left_out("thousands of streams of other processes", "the limit of open files is too low");
        return Ok(());
    }
    let mut domain = Domain::start(StoreKind::Memory, 3600, 600).await?;
    let node = domain.node("node").await?;
    domain.register(&node.id, "/first", &[&own_uid()]).await?;
    drop(node.served_stream().await?);
    // The second crowd finds what the first has left behind.
    for _ in 0..2 {
        let crowd = callers(&node, PROCESSES, STREAMS / PROCESSES).await?;
        let served: Vec<_> = crowd.iter().map(|(_, served, refused)| (*served, *refused)).collect();
        assert_eq!(served, vec![(STREAMS / PROCESSES, 0); PROCESSES]);
        drop(node.served_stream().await?);
        leave(crowd).await?;
    }
    let (_, first) = node.served_stream().await?;
    assert_eq!(spindle_e2e::ids(&first), [id("/first").to_string()]);
    node.stop().await?;
    domain.stop().await
}

/// An agent that gives each process so little that a test can use it up.
async fn strict_node(domain: &Domain, limits: CallerLimits) -> Result<Node> {
    let token = domain.join_token().await?;
    let agent_id = id(&format!("/spire/agent/join_token/{token}"));
    let node = domain.node_with("strict", agent_id, |config| {
        config.join_token = Some(JoinToken::new(token));
        config.caller_limits = limits;
    });
    let node = node.await?;
    domain.register(&node.id, "/first", &[&own_uid()]).await?;
    drop(node.served_stream().await?);
    Ok(node)
}

#[tokio::test(flavor = "multi_thread")]
async fn wep_20_a_process_beyond_its_bounds_is_refused_and_others_of_its_user_are_served() -> Result<()> {
    let usual = CallerLimits::default();
    for limits in [
        CallerLimits { connections_per_process: Some(5), ..usual },
        CallerLimits { calls_per_process: 5, ..usual },
    ] {
        let mut domain = Domain::start(StoreKind::Memory, 3600, 600).await?;
        let node = strict_node(&domain, limits).await?;
        let greedy = callers(&node, 1, 50).await?;
        let (_, served, refused) = &greedy[0];
        assert!((5..50).contains(served) && served + refused == 50, "{served} of 50 with {limits:?}");
        let modest = callers(&node, 2, 2).await?;
        assert!(modest.iter().all(|(_, served, refused)| (*served, *refused) == (2, 0)), "{limits:?}");
        drop(node.served_stream().await?);
        leave(greedy).await?;
        leave(modest).await?;
        node.stop().await?;
        domain.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_a_process_that_opens_them_too_often_are_served_in_turn_and_others_at_once()
-> Result<()> {
    let rate = Rate { burst: 100, per_sec: 50 };
    let limits = CallerLimits { attestations_per_process: rate, ..CallerLimits::default() };
    let mut domain = Domain::start(StoreKind::Memory, 3600, 600).await?;
    let node = strict_node(&domain, limits).await?;
    let greedy = callers(&node, 1, 150).await?;
    let (_, served, refused) = &greedy[0];
    assert!(*served > 100 && served + refused == 150, "{served} of 150 were served, {refused} refused");
    let modest = callers(&node, 2, 2).await?;
    assert!(modest.iter().all(|(_, served, refused)| (*served, *refused) == (2, 0)));
    leave(greedy).await?;
    leave(modest).await?;
    node.stop().await?;
    domain.stop().await
}
