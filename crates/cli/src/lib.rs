//! What the three binaries share: command lines, configuration, output, and the commands themselves.
//!
//! Thin on purpose: parse, build, call, print. What a server or an agent does is in their own crates. Start at
//! [`server_cli`] and
//! [`agent_cli`].

pub mod agent_cli;
pub mod args;
mod broker;
pub mod client;
mod command_tree;
mod completion;
pub mod config;
pub mod console;
pub mod duration;
mod endpoint;
pub mod entry_file;
pub mod entry_lint;
pub mod entry_plan;
pub mod error;
pub mod federation_plan;
pub mod files;
pub mod go_flags;
pub mod hcl;
pub mod input;
mod local;
mod log_levels;
mod manual;
pub mod output;
mod preflight;
mod reload;
mod run_flags;
pub mod server_cli;
pub mod service;
pub mod socket;
pub mod spindle_cli;
mod svid_chain;
mod svid_files;
#[cfg(test)]
mod testing;
