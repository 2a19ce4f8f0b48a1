//! SIGKILL at random points: no acknowledged write is lost, and the store always opens.
//!
//! `SPINDLE_TORTURE_ROUNDS` sets the rounds for each backend; the full run uses 200.

use spindle_store::StoreKind;

use crate::support::{Home, Rng, rounds, say};
use crate::writer::{Writer, check};

fn torture(kind: StoreKind) {
    let rounds = rounds("SPINDLE_TORTURE_ROUNDS", 20);
    let mut home = Home::new(kind);
    let mut rng = Rng(20_261_122);
    let (mut stands_at, mut acknowledged) = (0, 0);
    for round in 0..rounds {
        if round % 7 == 6 {
            home = Home::new(kind);
            stands_at = 0;
        }
        let mut writer = Writer::start(kind, &home.dir());
        writer.wait_for(rng.below(if round % 3 == 0 { 4 } else { 120 }));
        let last = writer.kill().max(stands_at);
        acknowledged += last - stands_at;
        stands_at = check(kind, &home.dir(), last);
    }
    say(&format!("{kind}: {rounds} kills, {acknowledged} acknowledged transactions, none lost"));
}

#[test]
fn sled_loses_no_acknowledged_write_to_sigkill() {
    torture(StoreKind::Sled);
}

#[test]
fn redb_loses_no_acknowledged_write_to_sigkill() {
    torture(StoreKind::Redb);
}

#[test]
fn a_first_start_killed_at_any_step_leaves_a_store_that_opens() {
    for kind in crate::support::ON_DISK {
        let database = if kind == StoreKind::Sled { "first-start/sled/db" } else { "first-start/store.redb" };
        let steps = [
            "lock",
            "first-start",
            database,
            "first-start/reached",
            "first-start/store-identity",
            "mark.new",
            "mark",
            "store",
        ];
        for step in steps {
            let home = Home::new(kind);
            let mark = home.dir().join(step);
            let mut writer = Writer::start(kind, &home.dir());
            // The step may be over before it is seen; the published store stays.
            while !mark.exists() && !home.dir().join("store").exists() {
                assert!(writer.runs(), "the writer ended by itself before it made {step}");
                std::thread::yield_now();
            }
            let acknowledged = writer.kill();
            check(kind, &home.dir(), acknowledged);
        }
    }
}
