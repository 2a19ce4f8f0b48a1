//! A power cut, as far as it can be simulated: what the file system had not yet given to its device is lost.
//!
//! The store lies on ext4 on a loop device with a journal interval of 300 s, so that nothing reaches the device
//! by the passing of time (every other round 1 s). After an acknowledgement the writer is killed and the image
//! copied as it is; the copy is mounted and opened. That this can see a loss is shown with sled as shipped, which
//! loses what it called flushed. Needs root; `SPINDLE_POWERCUT_ROUNDS` sets the rounds, the full run uses 20.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use spindle_store::StoreKind;

use crate::left_out::left_out;
use crate::support::{Mount, Rng, missing_tool, rounds, run, say};
use crate::writer::{Writer, check, check_plain_sled};

/// Room for sled's file after some hundred commits, in bytes.
const IMAGE_BYTES: u64 = 128 << 20;

/// A loop device with a file system whose power can be cut.
struct Disk {
    mount: Mount,
    dir: tempfile::TempDir,
    image: PathBuf,
}

impl Disk {
    fn new(options: &str) -> Result<Self, String> {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("disk.img");
        File::create(&image).unwrap().set_len(IMAGE_BYTES).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        let mount = Mount::new(&["-o", options], &image, &dir.path().join("disk"))?;
        Ok(Self { mount, dir, image })
    }

    fn store(&self) -> PathBuf {
        self.mount.at.join("store")
    }

    /// Look at the store as it is on the device at this moment.
    fn after_a_cut<T>(&self, look: impl FnOnce(&Path) -> T) -> Result<T, String> {
        let copy = self.dir.path().join("cut.img");
        run(Command::new("cp").arg("--sparse=always").args([&self.image, &copy]))?;
        let mount = Mount::new(&["-o", "loop"], &copy, &self.dir.path().join("cut"))?;
        Ok(look(&mount.at.join("store")))
    }
}

/// Two writers, the second on what the first left, because opening writes too; a cut after each.
fn cut(kind: StoreKind, acknowledgements: [u64; 2], options: &str) -> Result<u64, String> {
    let disk = Disk::new(options)?;
    let mut acknowledged = 0;
    for count in acknowledgements {
        let mut writer = Writer::start(kind, &disk.store());
        writer.wait_for(count);
        acknowledged = writer.kill();
        disk.after_a_cut(|store| check(kind, store, acknowledged))?;
    }
    Ok(acknowledged)
}

fn missing() -> Option<String> {
    if let Some(why) = Mount::missing() {
        return Some(why);
    }
    if let Some(why) = missing_tool("mkfs.ext4") {
        return Some(why);
    }
    File::open("/dev/loop-control").err().map(|error| format!("no loop devices: {error}"))
}

fn power_cuts(kind: StoreKind) {
    if let Some(why) = missing() {
        return left_out(&format!("power cut with {kind}"), &why);
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
    say(&format!("{kind}: {rounds} times 2 power cuts, {acknowledged} acknowledged transactions, none lost"));
}

#[test]
fn sled_loses_no_acknowledged_write_to_a_power_cut() {
    power_cuts(StoreKind::Sled);
}

#[test]
fn redb_loses_no_acknowledged_write_to_a_power_cut() {
    power_cuts(StoreKind::Redb);
}

#[test]
fn sled_without_our_sync_loses_what_it_called_flushed() {
    if let Some(why) = missing() {
        return left_out("power cut with sled as shipped", &why);
    }
    let disk = Disk::new("loop,commit=300").unwrap();
    let mut writer = Writer::start_plain_sled(&disk.store());
    writer.wait_for(500);
    let acknowledged = writer.kill();
    let found = disk.after_a_cut(check_plain_sled).unwrap();
    say(&format!("sled as shipped: of {acknowledged} flushed transactions a power cut left {found:?}"));
    assert!(found.is_none_or(|found| found < acknowledged), "the power cut is none: nothing was lost");
}
