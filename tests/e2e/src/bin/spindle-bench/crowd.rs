//! A node full of workloads: ten thousand connections with an open stream each, opened as fast as they come by sixteen
//! processes; and one caller among hostile ones.
//!
//! Memory is what the kernel counts for the agent; times are seen by the callers. The callers share the machine with the
//! agent, so hostile ones slow everybody down by the processor time that they take themselves: one that takes every
//! processor and leaves the agent alone shows how much of it that is.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit};
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

/// Descriptors that the agent needs besides one for each workload.
const DESCRIPTORS_BESIDES: u64 = 1024;

/// Opens the crowd, prints what it costs, lets it go.
pub(crate) async fn measure(agent: &Agent) -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // One user has three quarters of the descriptors.
    let fitting = usize::try_from(hard.saturating_sub(DESCRIPTORS_BESIDES) / 4 * 3)?;
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

/// Prints how long an honest caller's calls take alone, beside a process that only spins, and beside each kind of hostile
/// caller. All take turns, so that what else happens on the machine comes to each of them.
pub(crate) async fn measure_hostile(agent: &Agent) -> Result<()> {
    // The first one fills caches.
    timed(agent).await?;
    let beside: Vec<Option<(Role, &str)>> =
        [None, Some(Role::SPINNING)].into_iter().chain(Role::HOSTILE.map(Some)).collect();
    let mut times = vec![Vec::new(); beside.len()];
    for _ in 0..ROUNDS {
        for (beside, times) in beside.iter().zip(&mut times) {
            let other = beside.map(|(role, _)| Caller::start(role, agent.socket_path(), 0)).transpose()?;
            if other.is_some() {
                sleep(HEAD_START).await;
            }
            times.append(&mut timed(agent).await?);
        }
    }
    let times: Vec<Times> = times.into_iter().map(Times::of).collect();
    let (alone, spinning) = (&times[0], &times[1]);
    line(
        "agent: FetchX509SVID on a new connection, seen by the caller, alone",
        &format!("p99 {}", millis(alone.p99)),
        &format!("p50 {}", millis(alone.p50)),
    );
    for (beside, times) in beside.iter().zip(&times) {
        let Some((_, what)) = beside else { continue };
        let (to_alone, to_spinning) = (ratio(times.p99, alone.p99), ratio(times.p99, spinning.p99));
        line(
            &format!("  beside a process that {what}"),
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
