//! A power cut, as far as it can be simulated: what the file system had not yet given to its device is lost.
//!
//! The store lies on ext4 on a loop device with a journal interval of 300 s, so that nothing reaches the device
//! by the passing of time (every other round 1 s). After an acknowledgement the writer is killed and the image
//! copied as it is; the copy is mounted and opened. The first round has enough commits to fail without our
//! `fdatasync`. Needs root; `SPINDLE_POWERCUT_ROUNDS` sets the rounds, the full run uses 20.

use std::fs::File;
use std::process::Command;

use spindle_store::StoreKind;

use crate::support::{Mount, Rng, missing_tool, rounds, run, say};
use crate::writer::{Writer, check};

/// Room for sled's file after some hundred commits, in bytes.
const IMAGE_BYTES: u64 = 128 << 20;

fn cut(kind: StoreKind, acknowledgements: [u64; 2], options: &str) -> Result<u64, String> {
    let dir = tempfile::tempdir().unwrap();
    let (image, copy) = (dir.path().join("disk.img"), dir.path().join("cut.img"));
    File::create(&image).unwrap().set_len(IMAGE_BYTES).unwrap();
    run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
    let disk = Mount::new(&["-o", options], &image, &dir.path().join("disk"))?;
    let mut acknowledged = 0;
    // The second writer opens what the first left: opening writes too.
    for count in acknowledgements {
        let mut writer = Writer::start(kind, &disk.at.join("store"));
        writer.wait_for(count);
        acknowledged = writer.kill();
    }
    run(Command::new("cp").arg("--sparse=always").args([&image, &copy]))?;
    drop(disk);
    let disk = Mount::new(&["-o", "loop"], &copy, &dir.path().join("cut"))?;
    check(kind, &disk.at.join("store"), acknowledged);
    Ok(acknowledged)
}

fn left_out() -> Option<String> {
    if let Some(why) = Mount::missing() {
        return Some(why);
    }
    if let Some(why) = missing_tool("mkfs.ext4") {
        return Some(why);
    }
    File::open("/dev/loop-control").err().map(|error| format!("no loop devices: {error}"))
}

fn power_cuts(kind: StoreKind) {
    if let Some(why) = left_out() {
        say(&format!("LEFT OUT: power cut with {kind}: {why}"));
        return;
    }
    let rounds = rounds("SPINDLE_POWERCUT_ROUNDS", 1);
    let mut rng = Rng(1_122);
    let mut acknowledged = 0;
    for round in 0..rounds {
        let wanted = if round % 4 == 3 { [1, 1] } else { [300 + rng.below(400), 1 + rng.below(100)] };
        // The second sort of round has a journal that is busy meanwhile.
        let options = if round % 2 == 0 { "loop,commit=300" } else { "loop,commit=1" };
        acknowledged += cut(kind, wanted, options).unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
    say(&format!("{kind}: {rounds} power cuts, {acknowledged} acknowledged transactions, none lost"));
}

#[test]
fn sled_loses_no_acknowledged_write_to_a_power_cut() {
    power_cuts(StoreKind::Sled);
}

#[test]
fn redb_loses_no_acknowledged_write_to_a_power_cut() {
    power_cuts(StoreKind::Redb);
}
