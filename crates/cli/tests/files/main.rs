//! Files kept current by the real binaries: against a Workload API and a broker endpoint that misbehave, under fast rotation and kills, for
//! nginx, PostgreSQL and any command.
#![allow(clippy::unwrap_used, reason = "tests; the setting for tests does not reach helper functions")]

mod broker;
mod exec;
mod fake;
mod fake_broker;
mod nginx;
mod postgres;
mod program;
mod rotations;
mod rows;
mod tls;
mod watch;
