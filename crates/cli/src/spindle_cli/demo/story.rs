//! The story of the demo, told as it happens.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use spindle_spiffe_core::SpiffeId;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};

use super::child::Workload;
use super::event::Event;
use super::programs::Programs;
use crate::duration;
use crate::error::Failure;
use crate::local::Admin;

/// How often the talk of the two workloads is summed up.
const REPORT: Duration = Duration::from_secs(5);

/// How long a single step may take on a loaded machine.
const STEP: Duration = Duration::from_secs(30);

/// Who takes part, and where.
pub(super) struct Story<'a> {
    pub(super) agent_socket: PathBuf,
    pub(super) log: PathBuf,
    pub(super) seconds: u64,
    pub(super) orders: SpiffeId,
    pub(super) billing: SpiffeId,
    pub(super) billing_entry: String,
    pub(super) ttl_secs: i32,
    pub(super) out: &'a mut dyn Write,
}

/// What was counted.
#[derive(Debug, Default)]
struct Tally {
    handshakes: u64,
    failed: u64,
    orders_svids: u64,
    billing_svids: u64,
    last_fault: Option<String>,
}

impl Tally {
    fn on_orders(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Svid(_) => self.orders_svids += 1,
            Event::Ended(why) => return Err(Failure::new(format!("orders lost its identity: {why}"))),
            _ => {}
        }
        Ok(())
    }

    fn on_billing(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Svid(_) => self.billing_svids += 1,
            Event::Handshakes(good, failed) => (self.handshakes, self.failed) = (good, failed),
            Event::Fault(why) => self.last_fault = Some(why),
            Event::Ended(why) => return Err(Failure::new(format!("billing lost its identity: {why}"))),
            _ => {}
        }
        Ok(())
    }

    /// The first SVID of each is no rotation.
    fn rotations(&self) -> (u64, u64) {
        (self.orders_svids.saturating_sub(1), self.billing_svids.saturating_sub(1))
    }
}

impl Story<'_> {
    /// Tells it from start to end.
    ///
    /// # Errors
    /// When something did not happen as it should.
    pub(super) async fn tell(&mut self, programs: &Programs, admin: &Admin) -> Result<(), Failure> {
        let (mut orders, mut billing) = self.start(programs).await?;
        self.talk(&mut orders, &mut billing).await?;
        self.stranger(programs).await?;
        self.take_back(&mut billing, admin).await?;
        Ok(writeln!(self.out, "\nThe demo is over; all went as it should.")?)
    }

    async fn start(&mut self, programs: &Programs) -> Result<(Workload, Workload), Failure> {
        let socket = self.agent_socket.display().to_string();
        let mut orders = Workload::start(
            "orders",
            &programs.path("orders"),
            &["serve", "-agent", &socket, "-peer", self.billing.as_str()],
        )?;
        let listening = async {
            loop {
                match orders.event().await? {
                    Event::Listening(addr) => return Ok(addr),
                    Event::Ended(why) => return Err(Failure::new(format!("orders got no identity: {why}"))),
                    _ => {}
                }
            }
        };
        let addr =
            timeout(STEP, listening).await.unwrap_or_else(|_| Err(Failure::new("orders did not start")))?;
        let addr = addr.to_string();
        let billing = Workload::start(
            "billing",
            &programs.path("billing"),
            &["call", "-agent", &socket, "-peer", self.orders.as_str(), "-server", &addr],
        )?;
        Ok((orders, billing))
    }

    async fn talk(&mut self, orders: &mut Workload, billing: &mut Workload) -> Result<(), Failure> {
        let (ttl_secs, seconds) = (self.ttl_secs, self.seconds);
        writeln!(
            self.out,
            "\nbilling calls orders over mutual TLS for {seconds} s, each call with a new handshake."
        )?;
        writeln!(self.out, "Their SVIDs live {ttl_secs} s and rotate under them.")?;
        let start = Instant::now();
        let end = start + Duration::from_secs(seconds);
        let mut report = interval_at(start + REPORT, REPORT);
        report.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut tally = Tally::default();
        loop {
            // All arms are cancel-safe: reading lines keeps what it has, the others only wait.
            tokio::select! {
                event = orders.event() => tally.on_orders(event?)?,
                event = billing.event() => tally.on_billing(event?)?,
                _ = report.tick() => self.report(start.elapsed().as_secs(), &tally)?,
                () = sleep_until(end) => break,
            }
        }
        let (orders_rotated, billing_rotated) = tally.rotations();
        let (good, failed, all) = (tally.handshakes, tally.failed, orders_rotated + billing_rotated);
        writeln!(self.out, "  In sum {good} handshakes, {failed} failed, while SVIDs rotated {all} times.")?;
        match tally.last_fault {
            Some(why) => Err(Failure::new(format!("a handshake failed: {why}"))
                .try_this(format!("look at {}", self.log.display()))),
            None if good == 0 => Err(Failure::new("no handshake was made")),
            None => Ok(()),
        }
    }

    fn report(&mut self, secs: u64, tally: &Tally) -> Result<(), Failure> {
        let (orders, billing) = tally.rotations();
        let (good, failed) = (tally.handshakes, tally.failed);
        writeln!(
            self.out,
            "  {secs:3} s: {good} handshakes, {failed} failed; rotations: orders {orders}, billing {billing}"
        )?;
        Ok(self.out.flush()?)
    }

    async fn stranger(&mut self, programs: &Programs) -> Result<(), Failure> {
        writeln!(self.out, "\nstranger, a program without an entry, asks the agent for an identity:")?;
        let socket = self.agent_socket.display().to_string();
        let mut stranger =
            Workload::start("stranger", &programs.path("stranger"), &["ask", "-agent", &socket])?;
        let event = timeout(STEP, stranger.event()).await;
        match event.unwrap_or_else(|_| Err(Failure::new("stranger got no answer")))? {
            Event::Ended(why) => writeln!(self.out, "  It is told: {why}")?,
            other => return Err(Failure::new(format!("stranger was not refused: {other}"))),
        }
        // The workload learns nothing about other identities; the operator's log does.
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        if let Some(line) = log.lines().rev().find(|line| line.contains("no identity issued")) {
            writeln!(
                self.out,
                "  The operator's log says: {}",
                line.split_once(" msg=").map_or(line, |(_, text)| text)
            )?;
        }
        Ok(())
    }

    async fn take_back(&mut self, billing: &mut Workload, admin: &Admin) -> Result<(), Failure> {
        writeln!(self.out, "\nThe operator deletes the entry of billing:")?;
        admin.delete_entry(&self.billing_entry).await?;
        let start = Instant::now();
        let ended = until(billing, |event| match event {
            Event::Ended(why) => Some(why),
            _ => None,
        });
        let why = timeout(STEP, ended)
            .await
            .unwrap_or_else(|_| Err(Failure::new("billing's stream did not end")))?;
        writeln!(self.out, "  Its stream ends after {}: {why}", duration::print(rounded(start.elapsed())))?;
        let refused = until(billing, |event| match event {
            Event::Refused(why) => Some(why),
            _ => None,
        });
        let why =
            timeout(STEP, refused).await.unwrap_or_else(|_| Err(Failure::new("billing was not refused")))?;
        Ok(writeln!(self.out, "  It gives its identity up, and orders refuses its next call: {why}")?)
    }
}

/// Reads events until one is the awaited one.
async fn until<T>(workload: &mut Workload, wanted: impl Fn(Event) -> Option<T>) -> Result<T, Failure> {
    loop {
        if let Some(found) = wanted(workload.event().await?) {
            return Ok(found);
        }
    }
}

/// To tenths of a millisecond.
fn rounded(span: Duration) -> Duration {
    let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(micros / 100 * 100)
}
