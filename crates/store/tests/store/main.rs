//! The store from outside: one suite for every backend, then what can go wrong on disk.
#![allow(clippy::unwrap_used, reason = "tests; the setting for tests does not reach helper functions")]

mod damage;
mod disk_full;
#[path = "../../../testkit/src/left_out.rs"]
pub mod left_out;
mod model;
mod owner;
mod power_cut;
mod restored;
mod suite;
mod support;
mod torture;
mod transfer;
mod writer;
