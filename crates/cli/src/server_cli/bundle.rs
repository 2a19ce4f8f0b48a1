//! `bundle show` and `bundle count`.

use std::str::FromStr;

use clap::Subcommand;
use rustls_pki_types::CertificateDer;
use spindle_proto::convert::bundle_from_proto;
use spindle_proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use spindle_proto::spire::api::server::bundle::v1::{CountBundlesRequest, GetBundleRequest};
use spindle_proto::spire::api::types;
use spindle_spiffe_core::pem::certificates_to_pem;

use super::dial;
use crate::args::{Output, Socket};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::output;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Prints the trust bundle of the server.
    Show(ShowArgs),
    /// Counts bundles.
    Count(CountArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    socket: Socket,
    /// Form of the bundle in pretty output: pem or spiffe.
    #[arg(long = "format", default_value = "pem")]
    format: Format,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub(super) struct CountArgs {
    #[command(flatten)]
    socket: Socket,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Pem,
    Spiffe,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "" | "pem" => Ok(Self::Pem),
            "spiffe" => Ok(Self::Spiffe),
            _ => Err("write pem or spiffe".into()),
        }
    }
}

pub(super) fn run(command: Command, console: &mut Console<'_>) -> Result<(), Failure> {
    match command {
        Command::Show(args) => show(&args, console),
        Command::Count(args) => count(&args, console),
    }
}

fn show(args: &ShowArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let bundle = block_on(async {
        let mut client = BundleClient::new(dial(&args.socket, console).await?);
        let answer = client.get_bundle(GetBundleRequest::default()).await;
        Ok(answer.map_err(|status| refused("cannot show the bundle", &status))?.into_inner())
    })?;
    output::print(args.output.form, console, &bundle, |console| pretty(console, &bundle, args.format))
}

fn pretty(console: &mut Console<'_>, bundle: &types::Bundle, format: Format) -> Result<(), Failure> {
    match format {
        Format::Pem => {
            let certificates: Vec<_> = bundle
                .x509_authorities
                .iter()
                .map(|authority| CertificateDer::from(authority.asn1.to_vec()))
                .collect();
            write!(console.out, "{}", certificates_to_pem(&certificates))?;
        }
        Format::Spiffe => {
            let bundle = bundle_from_proto(bundle)
                .map_err(|error| Failure::because("the server sent a malformed bundle", &error))?;
            writeln!(console.out, "{}", indented(&bundle.to_json())?)?;
        }
    }
    Ok(())
}

/// The document with SPIRE's indent of four blanks.
fn indented(document: &str) -> Result<String, Failure> {
    let malformed =
        |error: &dyn std::error::Error| Failure::because("cannot print the bundle document", error);
    let value: serde_json::Value = serde_json::from_str(document).map_err(|error| malformed(&error))?;
    let mut text = Vec::new();
    let style = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut printer = serde_json::Serializer::with_formatter(&mut text, style);
    serde::Serialize::serialize(&value, &mut printer).map_err(|error| malformed(&error))?;
    String::from_utf8(text).map_err(|error| malformed(&error))
}

fn count(args: &CountArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let answer = block_on(async {
        let mut client = BundleClient::new(dial(&args.socket, console).await?);
        let answer = client.count_bundles(CountBundlesRequest::default()).await;
        Ok(answer.map_err(|status| refused("cannot count bundles", &status))?.into_inner())
    })?;
    output::print(args.output.form, console, &answer, |console| {
        let count = usize::try_from(answer.count).unwrap_or_default();
        Ok(writeln!(console.out, "{count} {}", output::plural(count, "bundle", "bundles"))?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Screen;

    fn bundle() -> types::Bundle {
        let authority = types::X509Certificate { asn1: vec![1, 2, 3].into(), tainted: false };
        types::Bundle {
            trust_domain: "example.org".into(),
            x509_authorities: vec![authority],
            refresh_hint: 300,
            sequence_number: 7,
            ..types::Bundle::default()
        }
    }

    #[test]
    fn certificates_are_printed_as_pem() {
        let screen = Screen::show(|console| pretty(console, &bundle(), Format::Pem));
        assert_eq!(screen.out, "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n");
    }

    #[test]
    fn a_malformed_bundle_is_no_document() {
        let screen = Screen::show(|console| pretty(console, &bundle(), Format::Spiffe));
        assert!(screen.result.expect_err("no certificate").what().contains("malformed bundle"));
        assert!(Format::from_str("der").is_err());
    }

    #[test]
    fn a_document_is_indented_by_four() {
        let empty = types::Bundle { x509_authorities: vec![], ..bundle() };
        let screen = Screen::show(|console| pretty(console, &empty, Format::Spiffe));
        assert!(screen.out.starts_with("{\n    \""), "{}", screen.out);
        assert!(screen.out.contains("\"spiffe_sequence\": 7"), "{}", screen.out);
    }
}
