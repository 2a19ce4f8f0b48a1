//! `debug getinfo`: a look inside the agent.

use clap::Subcommand;
use spindle_proto::spire::agent::debug::v1::debug_client::DebugClient;
use spindle_proto::spire::agent::debug::v1::{GetInfoRequest, GetInfoResponse};

use super::dial_admin;
use crate::args::Call;
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::duration::print_secs;
use crate::error::Failure;
use crate::output;
use crate::svid_chain::{ChainLink, print_chain, rfc3339};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Shows uptime, the last sync, counts and the agent's own X509-SVID chain.
    #[command(name = "getinfo")]
    GetInfo(Call),
}

pub(super) fn run(args: &Call, console: &mut Console<'_>) -> Result<(), Failure> {
    let info = block_on(async {
        let mut client = DebugClient::new(dial_admin(&args.socket, console).await?);
        let answer = client.get_info(GetInfoRequest {}).await;
        Ok(answer.map_err(|status| refused("cannot look inside the agent", &status))?.into_inner())
    })?;
    output::print(args.output.form, console, &info, |console| pretty(console, &info))
}

fn pretty(console: &mut Console<'_>, info: &GetInfoResponse) -> Result<(), Failure> {
    let last_sync = match info.last_sync_success {
        0 => "(never)".to_owned(),
        at => rfc3339(at),
    };
    let out = &mut console.out;
    writeln!(out, "Agent Debug Info:")?;
    writeln!(out, "  Uptime:                          {}", print_secs(info.uptime.into()))?;
    writeln!(out, "  Last Sync Success:               {last_sync}")?;
    writeln!(out, "  Cached X.509 SVIDs:              {}", info.cached_x509_svids_count)?;
    writeln!(out, "  Cached JWT SVIDs:                {}", info.cached_jwt_svids_count)?;
    writeln!(out, "  Cached SVID Store X.509 SVIDs:   {}", info.cached_svidstore_x509_svids_count)?;
    let links = info.svid_chain.iter().map(|link| ChainLink {
        id: &link.id,
        subject: &link.subject,
        expires_at: link.expires_at,
    });
    print_chain(console, links)
}

#[cfg(test)]
mod tests {
    use spindle_proto::spire::agent::debug::v1::get_info_response::Cert;
    use spindle_proto::spire::api::types;

    use super::*;
    use crate::output::json::ToJson;
    use crate::testing::Screen;

    #[allow(deprecated, reason = "old clients read the old field")]
    fn info() -> GetInfoResponse {
        let id = types::Spiffeid { trust_domain: "example.org".into(), path: "/spire/agent/x".into() };
        let leaf = Cert { id: Some(id), expires_at: 1_700_000_000, subject: "O=SPIRE,C=US".into() };
        let root = Cert { id: None, ..leaf.clone() };
        GetInfoResponse {
            svid_chain: vec![leaf, root],
            uptime: 3723,
            svids_count: 4,
            last_sync_success: 1_700_000_000,
            cached_x509_svids_count: 4,
            cached_jwt_svids_count: 2,
            cached_svidstore_x509_svids_count: 0,
        }
    }

    #[test]
    fn the_look_inside_has_spires_labels() {
        let screen = Screen::show(|console| pretty(console, &info()));
        assert_eq!(
            screen.out,
            concat!(
                "Agent Debug Info:\n",
                "  Uptime:                          1h2m3s\n",
                "  Last Sync Success:               2023-11-14T22:13:20Z\n",
                "  Cached X.509 SVIDs:              4\n",
                "  Cached JWT SVIDs:                2\n",
                "  Cached SVID Store X.509 SVIDs:   0\n",
                "  SVID Chain:\n",
                "    [0] SPIFFE ID:  spiffe://example.org/spire/agent/x\n",
                "        Subject:    O=SPIRE,C=US\n",
                "        Expires At: 2023-11-14T22:13:20Z\n",
                "    [1] SPIFFE ID:  (none)\n",
                "        Subject:    O=SPIRE,C=US\n",
                "        Expires At: 2023-11-14T22:13:20Z\n",
            )
        );
        let alone = Screen::show(|console| pretty(console, &GetInfoResponse::default())).out;
        assert!(alone.contains("Last Sync Success:               (never)\n") && !alone.contains("Chain"));
    }

    #[test]
    fn the_json_form_has_proto_names() {
        let info = GetInfoResponse { svid_chain: info().svid_chain.split_off(1), ..info() };
        assert_eq!(
            info.to_json().to_string(),
            concat!(
                r#"{"cached_jwt_svids_count":2,"cached_svidstore_x509_svids_count":0,"#,
                r#""cached_x509_svids_count":4,"last_sync_success":"1700000000","#,
                r#""svid_chain":[{"expires_at":"1700000000","subject":"O=SPIRE,C=US"}],"#,
                r#""svids_count":4,"uptime":3723}"#
            )
        );
    }
}
