//! This program as a caller of the agent, in a process of its own: `spindle-bench caller ROLE SOCKET COUNT`.
//!
//! Honest ones hold streams or measure how long calls take; hostile ones do what a broken or malicious workload could, as fast
//! as one thread can. What they find goes to standard output, one line; they end when standard input does.
//! Start at [`main`] for the caller's side and at [`Caller::start`] for the other.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use spindle_e2e::light::{Answer, Light, PREFACE, connect, opening};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::process::program;

/// Between two bytes of who sends its headers slowly.
const SLOW: Duration = Duration::from_millis(200);

/// What a caller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Opens streams at once, tells when all have their message, and keeps them open.
    Hold,
    /// Makes calls one after another, a connection each, and tells how long they took.
    Time,
    /// Takes every processor and leaves the agent alone.
    Spin,
    /// Listens on a socket of its own, reads what comes, and answers nothing.
    Listen,
    /// Connects and leaves.
    ConnectStorm,
    /// Calls on ever new connections.
    CallStorm,
    /// Connects and sends half of the first words.
    HalfPreface,
    /// Sends a byte of its headers now and then.
    SlowHeaders,
}

impl Role {
    const ALL: [Self; 8] = [
        Self::Hold,
        Self::Time,
        Self::Spin,
        Self::Listen,
        Self::ConnectStorm,
        Self::CallStorm,
        Self::HalfPreface,
        Self::SlowHeaders,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Time => "time",
            Self::Spin => "spin",
            Self::Listen => "listen",
            Self::ConnectStorm => "connect-storm",
            Self::CallStorm => "call-storm",
            Self::HalfPreface => "half-preface",
            Self::SlowHeaders => "slow-headers",
        }
    }

    fn of(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|role| role.name() == name);
        found.with_context(|| format!("a caller has no role {name:?}"))
    }
}

/// A caller at work. It is killed when dropped.
pub(crate) struct Caller {
    child: Child,
    output: BufReader<ChildStdout>,
    /// Its end is the caller's.
    input: Option<ChildStdin>,
}

impl Caller {
    /// Starts one that calls `socket`; `count` is that of streams, calls or connections.
    pub(crate) fn start(role: Role, socket: &Path, count: usize) -> Result<Self> {
        let mut child = Command::new(program("spindle-bench")?)
            .args(["caller", role.name()])
            .arg(socket)
            .arg(count.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a caller")?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("a caller's output")?);
        Ok(Self { child, output, input })
    }

    /// The line that it prints, as numbers. Blocks.
    pub(crate) fn found(&mut self) -> Result<Vec<u64>> {
        let mut text = String::new();
        self.output.read_line(&mut text)?;
        ensure!(!text.is_empty(), "a caller ended without a word");
        text.split_whitespace().map(|number| number.parse().context("a caller's numbers")).collect()
    }

    /// Lets it end, and waits for that. Blocks.
    pub(crate) fn leave(mut self) -> Result<()> {
        drop(self.input.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "a caller ended with {status}");
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

/// The caller's side. `arguments` are those behind `caller`.
pub(crate) async fn main(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let (Some(role), Some(socket), Some(count)) = (arguments.next(), arguments.next(), arguments.next())
    else {
        bail!("spindle-bench caller ROLE SOCKET COUNT");
    };
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let (socket, count) = (PathBuf::from(socket), count.parse()?);
    let work = async {
        match Role::of(&role)? {
            Role::Hold => hold(&socket, count).await,
            Role::Time => time(&socket, count).await,
            Role::Spin => spin().await,
            Role::Listen => listen(&socket).await,
            Role::ConnectStorm => connect_storm(&socket).await,
            Role::CallStorm => call_storm(&socket).await,
            Role::HalfPreface => many(&socket, count, half_preface).await,
            Role::SlowHeaders => many(&socket, count, slow_headers).await,
        }
    };
    let (mut input, mut byte) = (tokio::io::stdin(), [0]);
    // Cancel-safe: whoever ends the input wants no more of the work.
    tokio::select! {
        done = work => done,
        _ = input.read(&mut byte) => Ok(()),
    }
}

#[expect(clippy::print_stdout, reason = "the other end of the pipe waits for it")]
fn tell(numbers: &[u64]) {
    let text: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    println!("{}", text.join(" "));
}

/// Tells how many streams have their message, and how many were refused.
async fn hold(socket: &Path, count: usize) -> Result<()> {
    let (mut opening, mut open) = (JoinSet::new(), JoinSet::new());
    for _ in 0..count {
        let socket = socket.to_owned();
        opening.spawn(async move {
            let mut light = Light::call(&socket).await?;
            anyhow::Ok((light.answer().await?, light))
        });
    }
    let mut refused = 0;
    while let Some(opened) = opening.join_next().await {
        match opened? {
            Ok((Answer::Message(_), light)) => drop(open.spawn(light.stay())),
            _ => refused += 1,
        }
    }
    tell(&[open.len() as u64, refused]);
    std::future::pending().await
}

/// Tells how long each call took, in microseconds.
async fn time(socket: &Path, count: usize) -> Result<()> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let from = Instant::now();
        let answer = Light::call(socket).await?.answer().await?;
        ensure!(matches!(answer, Answer::Message(_)), "an honest caller was refused");
        times.push(u64::try_from(from.elapsed().as_micros())?);
    }
    tell(&times);
    Ok(())
}

/// As many tasks as there are processors, which is what hostile callers keep busy, too.
async fn spin() -> Result<()> {
    let mut spinning = JoinSet::new();
    for _ in 0..std::thread::available_parallelism()?.get() {
        spinning.spawn(async {
            loop {
                (0..10_000).for_each(|_| std::hint::spin_loop());
                tokio::task::yield_now().await;
            }
        });
    }
    spinning.join_next().await.context("a task that spins")??;
    Ok(())
}

/// Tells when it listens. A socket that an earlier one has left is in the way.
async fn listen(socket: &Path) -> Result<()> {
    if socket.exists() {
        std::fs::remove_file(socket)?;
    }
    let listener = tokio::net::UnixListener::bind(socket)?;
    tell(&[]);
    let mut open = JoinSet::new();
    loop {
        // Cancel-safe, both. How a connection ends does not matter.
        tokio::select! {
            accepted = listener.accept() => {
                let (mut stream, _) = accepted?;
                open.spawn(async move { until_closed(&mut stream).await });
            }
            Some(_) = open.join_next() => {}
        }
    }
}

async fn connect_storm(socket: &Path) -> Result<()> {
    loop {
        drop(connect(socket).await?);
        tokio::task::yield_now().await;
    }
}

async fn call_storm(socket: &Path) -> Result<()> {
    let mut calls = JoinSet::new();
    loop {
        while calls.len() < 100 {
            let socket = socket.to_owned();
            calls.spawn(async move { Light::call(&socket).await?.answer().await });
        }
        // Refused or not, the next one comes.
        let _ = calls.join_next().await;
    }
}

/// Keeps that many connections, each of which does `misbehave` until it is closed.
async fn many<F: Future<Output = std::io::Result<()>> + Send + 'static>(
    socket: &Path,
    count: usize,
    misbehave: fn(tokio::net::UnixStream) -> F,
) -> Result<()> {
    let mut open = JoinSet::new();
    loop {
        while open.len() < count {
            let socket = socket.to_owned();
            open.spawn(async move { misbehave(connect(&socket).await?).await });
        }
        let _ = open.join_next().await;
    }
}

async fn half_preface(mut stream: tokio::net::UnixStream) -> std::io::Result<()> {
    stream.write_all(&PREFACE[..PREFACE.len() / 2]).await?;
    until_closed(&mut stream).await
}

async fn slow_headers(mut stream: tokio::net::UnixStream) -> std::io::Result<()> {
    let bytes = opening();
    let (at_once, slowly) = bytes.split_at(PREFACE.len() + 9);
    stream.write_all(at_once).await?;
    for byte in slowly {
        sleep(SLOW).await;
        stream.write_all(&[*byte]).await?;
    }
    until_closed(&mut stream).await
}

async fn until_closed(stream: &mut tokio::net::UnixStream) -> std::io::Result<()> {
    while stream.read(&mut [0; 256]).await? > 0 {}
    Ok(())
}
