//! `api fetch x509bundles`: the X.509 bundles alone, for those who check others and have no identity themselves.
//!
//! They are told apart by trust domain, and vouch for X509-SVIDs alone (Workload API 5.2.2).

use std::path::{Path, PathBuf};
use std::time::Duration;

use spindle_proto::workload::X509BundlesResponse;

use super::api::within;
use super::svids::print_authorities;
use crate::args::{Output, Socket};
use crate::client::block_on;
use crate::console::Console;
use crate::endpoint::Endpoint;
use crate::error::Failure;
use crate::files::{Readable, write};
use crate::svid_files::material::X509BundleSet;
use crate::svid_files::source::{Event, Part};
use crate::svid_files::upstream::Upstream;
use crate::{duration, output};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    socket: Socket,
    #[command(flatten)]
    form: Form,
}

/// How the answer is waited for and shown.
#[derive(Debug, clap::Args)]
pub(super) struct Form {
    /// How long to wait for the answer, like 5s.
    #[arg(long = "timeout", value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    pub(super) timeout: Duration,
    /// Directory to write the bundles to, as bundle.NAME.pem; with pretty output only.
    #[arg(long = "write", value_name = "DIR")]
    write: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let upstream = Upstream::workload(Endpoint::of(&args.socket, console.vars)?);
    let answer = block_on(within(args.form.timeout, fetch(&upstream)))?;
    show(&args.form, &answer, console)
}

/// The first answer.
pub(super) async fn fetch(upstream: &Upstream) -> Result<X509BundlesResponse, Failure> {
    match upstream.first(Part::X509Bundles).await? {
        Event::X509Bundles(message) => Ok(message),
        _ => Err(Failure::new("the agent answered something else")),
    }
}

/// Prints the answer, or writes it.
pub(super) fn show(
    form: &Form,
    answer: &X509BundlesResponse,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    output::print(form.output.form, console, answer, |console| {
        let bundles = X509BundleSet::read(answer)?;
        for (name, bundle) in &bundles.0 {
            writeln!(console.out, "Trust domain:\t\t{name}")?;
            print_authorities(console.out, "", bundle)?;
        }
        match form.write.as_deref().filter(|dir| !dir.as_os_str().is_empty()) {
            Some(dir) => write_files(&bundles, dir, console),
            None => Ok(()),
        }
    })
}

fn write_files(bundles: &X509BundleSet, dir: &Path, console: &mut Console<'_>) -> Result<(), Failure> {
    for (name, bundle) in &bundles.0 {
        let path = dir.join(format!("bundle.{name}.pem"));
        writeln!(console.out, "Writing the bundle of {name} to file {}.", path.display())?;
        write(&path, bundle.to_pem().as_bytes(), Readable::Public)?;
    }
    Ok(())
}
