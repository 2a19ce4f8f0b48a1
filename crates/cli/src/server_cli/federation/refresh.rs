//! `federation refresh`: has the server fetch the bundle of one trust domain.

use spindle_proto::refusal::item_ok;
use spindle_proto::spire::api::server::trustdomain::v1::RefreshBundleRequest;
use spindle_spiffe_core::Reason;
use tonic::{Code, Status};

use super::{client, unnamed};
use crate::args::{Output, Socket, set};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::output;
use crate::server_cli::bundle::form;

#[derive(Debug, clap::Args)]
pub(in crate::server_cli) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// SPIFFE ID of the trust domain.
    #[arg(long = "id", value_name = "ID")]
    id: Option<String>,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let id = set(&args.id).ok_or_else(|| unnamed("id is required", "id"))?;
    let trust_domain = form::trust_domain("id", id)?.to_string();
    block_on(async {
        let answer =
            client(&args.socket, console).await?.refresh_bundle(RefreshBundleRequest { trust_domain }).await;
        answer.map(drop).map_err(|status| failure(id, &status))
    })?;
    output::print(args.output.form, console, &item_ok(), |console| {
        Ok(writeln!(console.out, "Bundle refreshed")?)
    })
}

/// Why nothing was fetched.
pub(super) fn failure(id: &str, status: &Status) -> Failure {
    match status.code() {
        Code::NotFound => {
            Failure::new(format!("there is no federation relationship with trust domain {id:?}"))
                .try_this(Reason::RelationshipNotFound.remedy())
        }
        _ => refused("failed to refresh bundle", status),
    }
}
