//! SIGKILL at random moments: what was acknowledged is there, the authority goes on, and so does the agent.
//!
//! `SPINDLE_KILL_ROUNDS` sets the rounds for each store.

use std::sync::mpsc::channel;
use std::thread;

use crate::domain::{Domain, entry_id};
use crate::process::rounds;

/// A small generator, so that a run can be repeated from its seed.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Create entries from `next` on until one fails; tells each that is acknowledged.
fn create_until_refused(domain: &Domain, next: u64, acknowledged: &dyn Fn(u64)) {
    (next..).take_while(|n| domain.create_entry(*n).ok).for_each(acknowledged);
}

fn killed_while_entries_are_created(kind: &'static str) {
    let mut domain = Domain::new(kind);
    let mut rng = Rng(20_261_125);
    let mut server = domain.start_server();
    let bundle = domain.server_done(&["bundle", "show"]);
    let mut agent = domain.first_agent();
    assert!(domain.create_entry(1).ok);
    domain.wait_until_served(&mut agent, &[entry_id(1)]);
    let mut acknowledged = 1;
    for round in 0..rounds(4) {
        let (told, heard) = channel();
        let wanted = rng.below(6);
        thread::scope(|scope| {
            let (domain, next) = (&domain, acknowledged + 1);
            scope.spawn(move || create_until_refused(domain, next, &|n| told.send(n).unwrap()));
            // The next command is under way when the server is killed, somewhere between its start and its answer.
            acknowledged = heard.iter().take(wanted as usize).last().unwrap_or(acknowledged);
            (0..rng.below(30_000)).for_each(|_| thread::yield_now());
            server.kill();
            acknowledged = heard.iter().last().unwrap_or(acknowledged);
        });
        let agent_too = round % 2 == 0;
        if agent_too {
            agent.kill();
        }
        server = domain.start_server();
        assert_eq!(domain.server_done(&["bundle", "show"]), bundle, "round {round}: the authority goes on");

        let wanted: Vec<_> = (1..=acknowledged).map(entry_id).collect();
        let mut found = domain.entries();
        found.sort_unstable_by_key(|id| (id.len(), id.clone()));
        assert_eq!(found[..wanted.len()], wanted, "round {round}: acknowledged entries");
        // The command that was under way may have come through; then creating it again is refused as a repetition.
        let next = acknowledged + 1;
        let in_doubt = found.len() > wanted.len();
        assert!(found.len() <= wanted.len() + 1, "round {round}: {found:?}");
        assert_eq!(domain.create_entry(next).ok, !in_doubt, "round {round}: the next correct call");
        acknowledged = next;

        if agent_too {
            agent = domain.start_agent(None);
        }
        domain.wait_until_served(&mut agent, &[entry_id(1), entry_id(acknowledged)]);
    }
}

#[test]
fn a_killed_server_on_sled_and_its_agent_go_on_with_everything_acknowledged() {
    killed_while_entries_are_created("sled");
}

#[test]
fn a_killed_server_on_redb_and_its_agent_go_on_with_everything_acknowledged() {
    killed_while_entries_are_created("redb");
}

/// Keys and journal are two files: a first start killed between them must not stand in the way of the next.
#[test]
fn a_first_start_killed_at_any_step_starts_again() {
    for step in ["store/lock", "store/first-start", "store/mark", "store/store", "keys.json"] {
        let mut domain = Domain::new("sled");
        let mark = domain.store().parent().unwrap().join(step);
        let mut server = domain.spawn_server();
        while !mark.exists() {
            assert!(!server.has_ended(), "the server ended before it made {step}");
            thread::yield_now();
        }
        server.kill();
        let mut server = domain.start_server();
        let bundle = domain.server_done(&["bundle", "show"]);
        assert!(domain.create_entry(1).ok);
        server.kill();
        let _server = domain.start_server();
        assert_eq!(domain.server_done(&["bundle", "show"]), bundle, "killed at {step}");
    }
}
