//! The agent of one node: proves the node to the server, recognises local processes, streams their X509-SVIDs to them.
//!
//! A change at the server reaches an open stream without any timer in between: `sync` takes it, `identities` has it
//! signed, `cache` shows it to the streams it concerns. It leaves out configuration files and flags (`spindle-cli`) and
//! talks to the server through `spindle-proto` only. Start at [`Agent::start`].

mod admin;
mod agent;
pub mod bootstrap;
mod broker;
mod cache;
mod call_error;
mod callers;
pub mod config;
mod data_lock;
mod error;
#[cfg(test)]
mod fixtures;
mod frames;
mod gate;
mod health;
mod identities;
mod in_step;
mod kubelet;
mod metrics;
mod node_identity;
mod other_agent;
mod plugins;
mod reflection;
mod sds;
mod server;
mod sync;
mod tokens;
mod trust;
mod wits;
mod workload_api;

pub use agent::{Agent, RunningAgent};
pub use config::{
    AgentConfig, Bootstrap, BundleFormat, JoinToken, KeyStorage, Rebootstrap, RebootstrapMode, X509PopSource,
};
pub use data_lock::DataLockError;
pub use error::AgentError;
pub use node_identity::StateError;
pub use plugins::{LivePlugins, PluginName, PluginSettings};
pub use spindle_attest::UnixConfig;
