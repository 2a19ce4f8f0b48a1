//! What every long-running process needs once: a task set, orderly shutdown, logs, small ports for HTTP such as that of
//! health probes, the real clock and randomness.
//!
//! This is the edge of the program: the only crate that reads the wall clock or spawns a bare task. It knows nothing of
//! servers and agents. Start at [`TaskSet`] and [`Shutdown`].

mod clock;
mod entropy;
pub mod health;
pub mod http;
mod logs;
mod process;
mod shutdown;
mod tasks;

pub use clock::{SystemClock, nap_until, sleep_until};
pub use entropy::SystemEntropy;
pub use health::{BoundHealthListener, HealthChecks, HealthListener};
pub use http::HttpPort;
pub use logs::{
    LogFormat, LogLevel, LogLevels, LogSettings, LogSetupError, LogTarget, Logs, MORE_FIELDS, init_logs,
};
pub use process::{forbid_core_dumps, harden};
pub use shutdown::{Shutdown, Signals, Wish};
pub use tasks::{TaskEnd, TaskSet};
