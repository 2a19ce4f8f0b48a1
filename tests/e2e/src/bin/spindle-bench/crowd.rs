//! A node full of workloads: ten thousand connections with an open stream each, opened as fast as they come by sixteen
//! processes; and one caller among hostile ones.
//!
//! Memory is what the kernel counts for the agent; times are seen by the callers. The callers share the machine with the
//! agent, so hostile ones slow everybody down by the processor time that they take themselves. Some that leave the agent alone
//! show how much of it that is: one takes every processor, others do the same to a socket that is not the agent's.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use spindle_transport::CrowdLimits;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::caller::{Caller, Role};
use crate::process::Memory;
use crate::report::{kibibytes, line, mebibytes, millis};
use crate::trust_domain::Agent;

/// Workloads of the crowd.
const WORKLOADS: usize = 10_000;

/// Processes that they are spread over.
const PROCESSES: usize = 16;

/// How long after they have left memory is looked at.
const LOOKS_AFTER: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(15)];

/// Calls of one process whose times are compared: fewer than the agent attests one process without a pause.
const CALLS: usize = 1500;

/// How often each kind of neighbour has its turn.
const ROUNDS: usize = 3;

/// How long a hostile caller is at work before the others are timed.
const HEAD_START: Duration = Duration::from_secs(2);

/// Who is beside the honest caller.
struct Neighbour {
    role: Role,
    /// Its connections, where that matters.
    count: usize,
    is_elsewhere: bool,
    /// For the report.
    what: &'static str,
}

impl Neighbour {
    const fn new(role: Role, count: usize, what: &'static str) -> Self {
        Self { role, count, is_elsewhere: false, what }
    }

    /// The same, aimed at a socket that is not the agent's.
    const fn elsewhere(self) -> Self {
        Self { is_elsewhere: true, what: "does that to another socket than the agent's", ..self }
    }

    /// Lets it begin; it ends when what is returned is dropped, and then whoever listened for it.
    async fn start(&self, agent: &Agent) -> Result<(Caller, Option<Caller>)> {
        let (mut target, mut listener) = (agent.socket_path().to_owned(), None);
        if self.is_elsewhere {
            target = target.with_file_name("elsewhere.sock");
            let mut started = Caller::start(Role::Listen, &target, 0)?;
            listener = Some(spawn_blocking(move || started.found().map(|_| started)).await??);
        }
        let caller = Caller::start(self.role, &target, self.count)?;
        sleep(HEAD_START).await;
        Ok((caller, listener))
    }
}

const STORM: Neighbour = Neighbour::new(Role::ConnectStorm, 0, "connects and leaves");

const SLOW_HEADERS: Neighbour =
    Neighbour::new(Role::SlowHeaders, 1100, "sends headers slowly on 1,100 connections");

/// The first is what the others are compared with. The agent serves 1024 connections of one process.
const NEIGHBOURS: [Neighbour; 8] = [
    Neighbour::new(Role::Spin, 0, "only spins, on every processor"),
    STORM,
    STORM.elsewhere(),
    SLOW_HEADERS,
    SLOW_HEADERS.elsewhere(),
    Neighbour::new(Role::HalfPreface, 1100, "sends half a preface on 1,100 connections"),
    Neighbour::new(Role::HalfPreface, 2000, "sends half a preface on 2,000 connections"),
    Neighbour::new(Role::CallStorm, 0, "calls on ever new connections"),
];

/// Opens the crowd, prints what it costs, lets it go.
pub(crate) async fn measure(agent: &Agent) -> Result<()> {
    // The agent has as many descriptors as this process, and all workloads are of one user.
    let fitting = CrowdLimits::workload_connections().per_user;
    let workloads = WORKLOADS.min(fitting) / PROCESSES * PROCESSES;
    let before = agent.process.memory()?;
    let (callers, time) = open(agent.socket_path(), workloads).await?;
    line(&format!("agent: {workloads} streams opened at once, until all were served"), &millis(time), "");
    sleep(LOOKS_AFTER[0]).await;
    print_each(workloads, before, agent.process.memory()?)?;
    spawn_blocking(move || callers.into_iter().try_for_each(Caller::leave)).await??;
    let left = Instant::now();
    for after in LOOKS_AFTER {
        sleep(after.saturating_sub(left.elapsed())).await;
        let memory = agent.process.memory()?;
        let beyond = mebibytes(memory.resident.saturating_sub(before.resident));
        line(
            &format!("agent: memory {} s after they have gone", after.as_secs()),
            &mebibytes(memory.resident),
            &format!("resident, {beyond} more than before they came"),
        );
    }
    Ok(())
}

async fn open(socket: &Path, workloads: usize) -> Result<(Vec<Caller>, Duration)> {
    let from = Instant::now();
    let start = |_| Caller::start(Role::Hold, socket, workloads / PROCESSES);
    let mut callers = (0..PROCESSES).map(start).collect::<Result<Vec<_>>>()?;
    let callers = spawn_blocking(move || {
        let (mut served, mut refused) = (0, 0);
        for caller in &mut callers {
            let found = caller.found()?;
            served += found.first().context("the number of those served")?;
            refused += found.get(1).context("the number of those refused")?;
        }
        ensure!(served == workloads as u64, "{served} of {workloads} were served, {refused} refused");
        Ok(callers)
    });
    Ok((callers.await??, from.elapsed()))
}

fn print_each(workloads: usize, before: Memory, now: Memory) -> Result<()> {
    let workloads = u64::try_from(workloads)?;
    let each = |now: u64, before: u64| kibibytes(now.saturating_sub(before) / workloads);
    line(
        &format!("agent: memory for each of {workloads} workloads"),
        &each(now.resident, before.resident),
        &format!(
            "resident, {} of it anonymous; {} in all",
            each(now.anonymous, before.anonymous),
            mebibytes(now.resident)
        ),
    );
    Ok(())
}

/// Prints how long an honest caller's calls take alone and beside each of [`NEIGHBOURS`]. All take turns, so that what else
/// happens on the machine comes to each of them.
pub(crate) async fn measure_hostile(agent: &Agent) -> Result<()> {
    // The first one fills caches.
    timed(agent).await?;
    let mut times = vec![Vec::new(); NEIGHBOURS.len() + 1];
    for _ in 0..ROUNDS {
        times[0].append(&mut timed(agent).await?);
        for (neighbour, times) in NEIGHBOURS.iter().zip(&mut times[1..]) {
            let at_work = neighbour.start(agent).await?;
            times.append(&mut timed(agent).await?);
            drop(at_work);
        }
    }
    let times: Vec<Times> = times.into_iter().map(Times::of).collect();
    let (alone, spinning) = (&times[0], &times[1]);
    line(
        "agent: FetchX509SVID on a new connection, seen by the caller, alone",
        &format!("p99 {}", millis(alone.p99)),
        &format!("p50 {}", millis(alone.p50)),
    );
    for (neighbour, times) in NEIGHBOURS.iter().zip(&times[1..]) {
        let (to_alone, to_spinning) = (ratio(times.p99, alone.p99), ratio(times.p99, spinning.p99));
        line(
            &format!("  beside a process that {}", neighbour.what),
            &format!("p99 {}", millis(times.p99)),
            &format!(
                "{to_alone:.2} x alone, {to_spinning:.2} x beside one that spins; p50 {}",
                millis(times.p50)
            ),
        );
    }
    Ok(())
}

fn ratio(time: Duration, other: Duration) -> f64 {
    time.as_secs_f64() / other.as_secs_f64()
}

struct Times {
    p50: Duration,
    p99: Duration,
}

impl Times {
    /// Of at least one, in microseconds.
    fn of(mut times: Vec<u64>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| Duration::from_micros(times[(times.len() - 1) * percent / 100]);
        Self { p50: at(50), p99: at(99) }
    }
}

/// How long [`CALLS`] calls of a new process take, in microseconds.
async fn timed(agent: &Agent) -> Result<Vec<u64>> {
    let mut caller = Caller::start(Role::Time, agent.socket_path(), CALLS)?;
    let times = spawn_blocking(move || caller.found()).await??;
    ensure!(!times.is_empty(), "no call was timed");
    Ok(times)
}
