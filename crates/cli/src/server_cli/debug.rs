//! `debug getinfo`: a look inside the server.

use clap::Subcommand;
use spindle_proto::spire::api::server::debug::v1::debug_client::DebugClient;
use spindle_proto::spire::api::server::debug::v1::{GetInfoRequest, GetInfoResponse};

use super::dial;
use crate::args::Call;
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::duration::print_secs;
use crate::error::Failure;
use crate::output;
use crate::svid_chain::{ChainLink, print_chain};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Shows uptime, counts and the server's own X509-SVID chain.
    #[command(name = "getinfo")]
    GetInfo(Call),
}

pub(super) fn run(args: &Call, console: &mut Console<'_>) -> Result<(), Failure> {
    let info = block_on(async {
        let mut client = DebugClient::new(dial(&args.socket, console).await?);
        let answer = client.get_info(GetInfoRequest {}).await;
        Ok(answer.map_err(|status| refused("cannot look inside the server", &status))?.into_inner())
    })?;
    output::print(args.output.form, console, &info, |console| pretty(console, &info))
}

fn pretty(console: &mut Console<'_>, info: &GetInfoResponse) -> Result<(), Failure> {
    let out = &mut console.out;
    writeln!(out, "Server Debug Info:")?;
    writeln!(out, "  Uptime:                  {}", print_secs(info.uptime.into()))?;
    writeln!(out, "  Registered Agents:       {}", info.agents_count)?;
    writeln!(out, "  Registration Entries:    {}", info.entries_count)?;
    writeln!(out, "  Federated Bundles:       {}", info.federated_bundles_count)?;
    let links = info.svid_chain.iter().map(|link| ChainLink {
        id: &link.id,
        subject: &link.subject,
        expires_at: link.expires_at,
    });
    print_chain(console, links)
}

#[cfg(test)]
mod tests {
    use spindle_proto::spire::api::server::debug::v1::get_info_response::Cert;
    use spindle_proto::spire::api::types;

    use super::*;
    use crate::output::json::ToJson;
    use crate::testing::Screen;

    fn info() -> GetInfoResponse {
        let id = types::Spiffeid { trust_domain: "example.org".into(), path: "/spire/server".into() };
        let leaf = Cert { id: Some(id), expires_at: 1_700_000_000, subject: "O=SPIRE,C=US".into() };
        let root = Cert { id: None, ..leaf.clone() };
        GetInfoResponse {
            svid_chain: vec![leaf, root],
            uptime: 3723,
            agents_count: 10,
            entries_count: 50,
            federated_bundles_count: 2,
        }
    }

    #[test]
    fn the_look_inside_has_spires_labels() {
        let screen = Screen::show(|console| pretty(console, &info()));
        assert_eq!(
            screen.out,
            concat!(
                "Server Debug Info:\n",
                "  Uptime:                  1h2m3s\n",
                "  Registered Agents:       10\n",
                "  Registration Entries:    50\n",
                "  Federated Bundles:       2\n",
                "  SVID Chain:\n",
                "    [0] SPIFFE ID:  spiffe://example.org/spire/server\n",
                "        Subject:    O=SPIRE,C=US\n",
                "        Expires At: 2023-11-14T22:13:20Z\n",
                "    [1] SPIFFE ID:  (none)\n",
                "        Subject:    O=SPIRE,C=US\n",
                "        Expires At: 2023-11-14T22:13:20Z\n",
            )
        );
        let alone = GetInfoResponse::default();
        assert!(!Screen::show(|console| pretty(console, &alone)).out.contains("Chain"));
    }

    #[test]
    fn the_json_form_has_proto_names() {
        let text =
            GetInfoResponse { svid_chain: info().svid_chain.split_off(1), ..info() }.to_json().to_string();
        assert_eq!(
            text,
            concat!(
                r#"{"agents_count":10,"entries_count":50,"federated_bundles_count":2,"#,
                r#""svid_chain":[{"expires_at":"1700000000","subject":"O=SPIRE,C=US"}],"uptime":3723}"#
            )
        );
    }
}
