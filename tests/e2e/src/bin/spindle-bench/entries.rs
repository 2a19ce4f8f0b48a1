//! How many registration entries a second the server makes durable, and what each costs it.
//!
//! One client on the admin socket, one call at a time: each call is answered when its entries are on the disk. A bare
//! write with `fdatasync` to the same disk, in the same turns, says what part of that is the disk's.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use spindle_e2e::{entry, id};
use spindle_spiffe_core::SpiffeId;
use tokio::time::Instant;

use crate::report::{line, millis};
use crate::trust_domain::Server;
use crate::yardstick::Yardstick;

/// Entries in a call, as SPIRE's controller sends them.
const BATCH_ENTRIES: u32 = 50;

/// Calls in a turn.
const BATCHES: u32 = 40;

/// Bare writes in a turn.
const SYNCS: u32 = 20;

/// Bytes of a bare write: a page.
const SYNC_BYTES: usize = 4096;

/// Registers and prints.
pub(crate) async fn measure(server: &Server, yardstick: &Yardstick) -> Result<()> {
    let parent = id("/spire/agent/join_token/nobody");
    let mut turns = Turns::default();
    let cost = yardstick
        .cost(&server.process, async || {
            turns.sync += bare_sync(server.folder())?;
            let from = Instant::now();
            for _ in 0..BATCHES {
                register(server, &parent, turns.batches).await?;
                turns.batches += 1;
            }
            turns.time += from.elapsed();
            turns.syncs += SYNCS;
            Ok(BATCHES * BATCH_ENTRIES)
        })
        .await?;
    turns.print(server.store.name());
    cost.print(&format!("server, {}: CPU per entry", server.store.name()));
    Ok(())
}

/// Time spent on calls and on bare writes, all turns together.
#[derive(Default)]
struct Turns {
    batches: u32,
    time: Duration,
    syncs: u32,
    sync: Duration,
}

impl Turns {
    fn print(&self, store: &str) {
        let per_second = f64::from(self.batches * BATCH_ENTRIES) / self.time.as_secs_f64();
        let (batch, sync) = (self.time / self.batches, self.sync / self.syncs);
        let ratio = batch.as_secs_f64() / sync.as_secs_f64();
        line(
            &format!("server, {store}: durable entries, BatchCreateEntry, batches of {BATCH_ENTRIES}"),
            &format!("{per_second:.0} /s"),
            &format!("a batch takes {}, {ratio:.1} x a bare fdatasync of {}", millis(batch), millis(sync)),
        );
    }
}

async fn register(server: &Server, parent: &SpiffeId, batch: u32) -> Result<()> {
    let entries = (0..BATCH_ENTRIES)
        .map(|number| entry(parent, &format!("/bulk/{batch}/{number}"), &["unix:uid:1"]))
        .collect::<Result<_>>()?;
    server.admin.register_all(entries).await?;
    Ok(())
}

/// The time of [`SYNCS`] appended pages, each with its `fdatasync`.
fn bare_sync(folder: &Path) -> Result<Duration> {
    let mut file = File::options().create(true).append(true).open(folder.join("sync"))?;
    let from = Instant::now();
    for _ in 0..SYNCS {
        file.write_all(&[7; SYNC_BYTES])?;
        file.sync_data()?;
    }
    Ok(from.elapsed())
}
