//! Certificates, keys, bundles and tokens of the Workload API, or of the Broker API for another workload, as files that are kept
//! current in one directory.
//!
//! Each change is a new directory, a generation, and one link, `current`, is renamed over: who goes through the link once sees
//! one generation whole. [`generations`], [`content`] and [`wanted`] are pure; [`folder`] alone writes, [`source`] alone calls,
//! [`reload`] alone tells other programs. Start at [`keeper::Keeper`].

pub(crate) mod content;
pub(crate) mod folder;
pub(crate) mod generations;
pub(crate) mod keeper;
pub(crate) mod material;
pub(crate) mod process;
pub(crate) mod reload;
pub(crate) mod settings;
pub(crate) mod source;
pub(crate) mod upstream;
pub(crate) mod wanted;
