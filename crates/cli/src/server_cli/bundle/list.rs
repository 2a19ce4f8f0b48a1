//! `bundle list`: the bundles of other trust domains, or one of them.

use spindle_proto::spire::api::server::bundle::v1::{
    GetFederatedBundleRequest, ListFederatedBundlesResponse,
};
use spindle_proto::spire::api::types;

use super::client;
use super::form::{self, Format};
use crate::args::{Output, Socket, set};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::output;
use crate::server_cli::held;

#[derive(Debug, clap::Args)]
pub(in crate::server_cli) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// Only the bundle of this trust domain, named by its SPIFFE ID.
    #[arg(long = "id", value_name = "ID")]
    id: Option<String>,
    /// Form of the bundles in pretty output: pem or spiffe.
    #[arg(long = "format", default_value = "pem")]
    format: Format,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    if let Some(id) = set(&args.id) {
        let request = GetFederatedBundleRequest {
            trust_domain: form::trust_domain("id", id)?.to_string(),
            output_mask: None,
        };
        let bundle = block_on(async {
            let answer = client(&args.socket, console).await?.get_federated_bundle(request).await;
            Ok(answer.map_err(|status| refused("cannot show the bundle", &status))?.into_inner())
        })?;
        return output::print(args.output.form, console, &bundle, |console| {
            form::print(console, &bundle, args.format)
        });
    }
    let bundles = block_on(async {
        let bundles = held::bundles(client(&args.socket, console).await?).await;
        bundles.map_err(|status| refused("cannot list bundles", &status))
    })?;
    let response = ListFederatedBundlesResponse { bundles, next_page_token: String::new() };
    output::print(args.output.form, console, &response, |console| {
        pretty(console, &response.bundles, args.format)
    })
}

/// Each bundle below a box with its trust domain.
pub(super) fn pretty(
    console: &mut Console<'_>,
    bundles: &[types::Bundle],
    format: Format,
) -> Result<(), Failure> {
    const EDGE: &str = "****************************************";
    for (at, bundle) in bundles.iter().enumerate() {
        if at > 0 {
            writeln!(console.out)?;
        }
        writeln!(console.out, "{EDGE}\n* {}\n{EDGE}", bundle.trust_domain)?;
        form::print(console, bundle, format)?;
    }
    Ok(())
}
