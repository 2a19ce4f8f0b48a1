//! Durable records per second, beside a plain write and `fdatasync` on the same disk in the same run.
//!
//! `cargo run --release -p spindle-store --example bench_commit [DIR] [ENTRIES]`. An entry is what a registration
//! entry costs: one record of 300 bytes and two small index records. DIR must be on the disk to be measured,
//! not in memory; a folder is made in it and removed again. It defaults to one beside the build.
#![allow(clippy::print_stdout, reason = "a benchmark reports on its output")]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use spindle_store::{Kind, RecordKey, Store, StoreConfig, StoreKind, Transaction};

type Failure = Box<dyn Error>;

/// Entries of one batch call of the server, and transactions in flight.
const BATCH: usize = 50;

fn entry(transaction: Transaction, n: usize) -> Transaction {
    let name = |kind, text: &str| RecordKey::new(Kind(kind), format!("{text}/{n:08}"));
    transaction
        .absent(name(2, "spiffe-id"))
        .put(name(1, "entry"), vec![n as u8; 300])
        .put(name(2, "spiffe-id"), *b"id")
        .put(name(3, "parent"), *b"id")
}

fn rate(count: usize, work: impl FnOnce() -> Result<(), Failure>) -> Result<f64, Failure> {
    let start = Instant::now();
    work()?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Writes of 4 KiB with `fdatasync` per second.
fn raw(dir: &Path) -> Result<f64, Failure> {
    let path = dir.join("raw");
    let mut file = File::create(&path)?;
    let count = 300;
    let rate = rate(count, || {
        for _ in 0..count {
            file.write_all(&[7; 4096])?;
            file.sync_data()?;
        }
        Ok(())
    })?;
    fs::remove_file(path)?;
    Ok(rate)
}

fn one_by_one(store: &Store, from: usize, count: usize) -> Result<(), Failure> {
    for n in from..from + count {
        store.commit_wait(entry(Transaction::new(), n))??;
    }
    Ok(())
}

fn one_transaction_per_batch(store: &Store, from: usize, count: usize) -> Result<(), Failure> {
    for start in (from..from + count).step_by(BATCH) {
        let batch = (start..start + BATCH).fold(Transaction::new(), entry);
        store.commit_wait(batch)??;
    }
    Ok(())
}

fn in_flight(store: &Store, from: usize, count: usize) -> Result<(), Failure> {
    let (answer, answers) = sync_channel(BATCH);
    for n in 0..count + BATCH {
        if n >= BATCH {
            answers.recv()???;
        }
        if n < count {
            let answer = answer.clone();
            // The receiver lives until every answer is in.
            store.commit(entry(Transaction::new(), from + n), move |result| drop(answer.send(result)));
        }
    }
    Ok(())
}

fn measure(kind: StoreKind, dir: &Path, entries: usize) -> Result<(), Failure> {
    let config = StoreConfig { kind, dir: dir.join(kind.to_string()), history: [1; 16] };
    let store = Store::open(&config)?;
    let single = (entries / 20).max(1);
    let before = raw(dir)?;
    let alone = rate(single, || one_by_one(&store, 0, single))?;
    let batched = rate(entries, || one_transaction_per_batch(&store, single, entries))?;
    let grouped = rate(entries, || in_flight(&store, single + entries, entries))?;
    store.close();
    let mut records = 0;
    let reopen = || {
        records = Store::open(&config)?.load()?.records.len();
        Ok(())
    };
    let seconds = 1.0 / rate(1, reopen)?;
    println!(
        "{kind:>7} | raw {before:6.0}/s | one by one {alone:6.0}/s | {BATCH} per transaction {batched:7.0}/s | \
         {BATCH} in flight {grouped:7.0}/s | reopened with {records} records in {seconds:.2} s"
    );
    Ok(())
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let beside_build = || std::env::current_exe().map(|path| path.with_file_name("bench_commit.store"));
    let dir = arguments.next().map_or_else(beside_build, |dir| Ok(PathBuf::from(dir)))?;
    let entries: usize = arguments.next().map_or(Ok(10_000), |count| count.parse())?;
    let entries = entries.next_multiple_of(BATCH);
    let dir = dir.join(std::process::id().to_string());
    fs::create_dir_all(&dir)?;
    println!("entries per second, {entries} entries of three records, in {}", dir.display());
    let measured = [StoreKind::Sled, StoreKind::Redb, StoreKind::Memory]
        .iter()
        .try_for_each(|kind| measure(*kind, &dir, entries));
    fs::remove_dir_all(&dir)?;
    measured
}
