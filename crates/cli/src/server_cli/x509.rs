//! `x509 mint`: an X509-SVID for a key made here, signed by the server's authority.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Subcommand;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use spindle_keys::{Key, KeyType, certificate_request, pem};
use spindle_proto::spire::api::server::bundle::v1::GetBundleRequest;
use spindle_proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use spindle_proto::spire::api::server::svid::v1::MintX509svidRequest;
use spindle_proto::spire::api::server::svid::v1::svid_client::SvidClient;
use spindle_proto::spire::api::types;
use spindle_runtime::SystemClock;
use spindle_spiffe_core::pem::certificates_to_pem;
use spindle_spiffe_core::{Clock, DnsName, SpiffeId, Timestamp};
use tonic::transport::Channel;

use super::dial;
use super::minted::{no_part, ttl_secs, warn_capped};
use crate::args::{Output, Socket, set};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::files::{Readable, write};
use crate::output::json::{ToJson, base64};
use crate::{duration, input, output};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Mints an X509-SVID.
    Mint(Args),
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// SPIFFE ID of the X509-SVID.
    #[arg(long = "spiffeID", value_name = "ID")]
    spiffe_id: Option<String>,
    /// How long the X509-SVID is valid, like 1h30m; the server's default when 0.
    #[arg(long = "ttl", value_name = "DURATION", default_value = "0", value_parser = duration::parse)]
    ttl: Duration,
    /// A DNS name for the X509-SVID; can be repeated.
    #[arg(long = "dns", value_name = "NAME")]
    dns_names: Vec<String>,
    /// Directory to write svid.pem, key.pem and bundle.pem to, instead of printing them.
    #[arg(long = "write", value_name = "DIR")]
    write: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// A minted SVID with its key and the authorities to verify it by.
struct Minted {
    chain: Vec<CertificateDer<'static>>,
    key: Key,
    authorities: Vec<CertificateDer<'static>>,
}

impl ToJson for Minted {
    fn to_json(&self) -> Value {
        let list = |certificates: &[CertificateDer<'_>]| {
            certificates.iter().map(|der| base64(der)).collect::<Vec<_>>()
        };
        json!({
            "private_key": base64(&self.key.pkcs8_der()),
            "root_cas": list(&self.authorities),
            "x509_svid": list(&self.chain),
        })
    }
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let (key, request) = request(args)?;
    let (svid, bundle) = block_on(async { call(dial(&args.socket, console).await?, request).await })?;
    warn_if_capped(args.ttl, SystemClock.now(), svid.expires_at, console);
    let certificates = |der: &prost::bytes::Bytes| CertificateDer::from(der.to_vec());
    let minted = Minted {
        chain: svid.cert_chain.iter().map(certificates).collect(),
        key,
        authorities: bundle.x509_authorities.iter().map(|authority| certificates(&authority.asn1)).collect(),
    };
    match args.write.as_deref().filter(|dir| !dir.as_os_str().is_empty()) {
        Some(dir) => write_files(&minted, dir, console),
        None => output::print(args.output.form, console, &minted, |console| pretty(console, &minted)),
    }
}

fn request(args: &Args) -> Result<(Key, MintX509svidRequest), Failure> {
    let text = set(&args.spiffe_id)
        .ok_or_else(|| Failure::new("a SPIFFE ID is required").try_this("set -spiffeID"))?;
    let id = SpiffeId::from_str(text).map_err(|error| {
        Failure::because(format!("-spiffeID {text:?}"), &error).try_this(input::SPIFFE_ID_EXAMPLE)
    })?;
    let dns_name = |text: &String| {
        DnsName::from_str(text).map_err(|error| {
            Failure::because(format!("-dns {text:?}"), &error)
                .try_this("write a host name like web.example.org or *.example.org, without blanks")
        })
    };
    let dns_names = args.dns_names.iter().map(dns_name).collect::<Result<Vec<_>, _>>()?;
    let ttl = ttl_secs(args.ttl)?;
    let key =
        Key::generate(KeyType::EcP256).map_err(|error| Failure::because("cannot make a key", &error))?;
    let csr = certificate_request(&key, Some(&id), &dns_names)
        .map_err(|error| Failure::because("cannot make a certificate request", &error))?;
    Ok((key, MintX509svidRequest { csr: csr.into(), ttl }))
}

async fn call(
    channel: Channel,
    request: MintX509svidRequest,
) -> Result<(types::X509svid, types::Bundle), Failure> {
    let answer = SvidClient::new(channel.clone()).mint_x509svid(request).await;
    let answer = answer.map_err(|status| refused("cannot mint the X509-SVID", &status))?.into_inner();
    let svid = answer.svid.filter(|svid| !svid.cert_chain.is_empty());
    let svid = svid.ok_or_else(|| no_part("X509-SVID"))?;
    let bundle = BundleClient::new(channel).get_bundle(GetBundleRequest::default()).await;
    let bundle = bundle.map_err(|status| refused("cannot get the bundle", &status))?.into_inner();
    if bundle.x509_authorities.is_empty() {
        return Err(no_part("X.509 authority in its bundle"));
    }
    Ok((svid, bundle))
}

/// The clock has moved since the server took its time, so a few seconds less are no cap.
fn warn_if_capped(wanted: Duration, now: Timestamp, expires_at: i64, console: &mut Console<'_>) {
    const SLACK_SECS: i64 = 30;
    let wanted_secs = i64::try_from(wanted.as_secs()).unwrap_or(i64::MAX);
    let expires_at = Timestamp::from_unix_secs(expires_at);
    if expires_at.secs_since(now).saturating_add(SLACK_SECS) < wanted_secs {
        warn_capped("X509-SVID", expires_at, console);
    }
}

fn pretty(console: &mut Console<'_>, minted: &Minted) -> Result<(), Failure> {
    writeln!(console.out, "X509-SVID:\n{}", certificates_to_pem(&minted.chain))?;
    writeln!(console.out, "Private key:\n{}", *pem::private_key(&minted.key.pkcs8_der()))?;
    Ok(writeln!(console.out, "Root CAs:\n{}", certificates_to_pem(&minted.authorities))?)
}

fn write_files(minted: &Minted, dir: &Path, console: &mut Console<'_>) -> Result<(), Failure> {
    let (svid, key, bundle) = (dir.join("svid.pem"), dir.join("key.pem"), dir.join("bundle.pem"));
    write(&svid, certificates_to_pem(&minted.chain).as_bytes(), Readable::Public)?;
    writeln!(console.out, "X509-SVID written to {}", svid.display())?;
    write(&key, pem::private_key(&minted.key.pkcs8_der()).as_bytes(), Readable::Private)?;
    writeln!(console.out, "Private key written to {}", key.display())?;
    write(&bundle, certificates_to_pem(&minted.authorities).as_bytes(), Readable::Public)?;
    Ok(writeln!(console.out, "Root CAs written to {}", bundle.display())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Screen;

    fn minted() -> Minted {
        let der = |byte: u8| CertificateDer::from(vec![byte; 3]);
        Minted {
            chain: vec![der(1)],
            key: Key::generate(KeyType::EcP256).unwrap(),
            authorities: vec![der(2), der(3)],
        }
    }

    #[test]
    fn malformed_flags_are_refused_with_what_to_try() {
        let refused = |spiffe_id: &str, dns: &str, ttl_secs: u64, expected: &str| {
            let args = Args {
                socket: Socket::default(),
                spiffe_id: Some(spiffe_id.into()),
                ttl: Duration::from_secs(ttl_secs),
                dns_names: vec![dns.into()],
                write: None,
                output: Output::default(),
            };
            let failure = request(&args).map(drop).expect_err(expected);
            assert!(failure.what().starts_with(expected) && !failure.remedies().is_empty(), "{failure:?}");
        };
        refused("example.org/web", "web", 0, "-spiffeID \"example.org/web\": ");
        refused("spiffe://example.org/web", "bad name", 0, "-dns \"bad name\": ");
        refused("spiffe://example.org/web", "web", u64::MAX, "-ttl is too long");
    }

    #[test]
    fn svid_key_and_roots_are_printed_under_spires_headings() {
        let screen = Screen::show(|console| pretty(console, &minted()));
        let headings: Vec<_> = screen.out.lines().filter(|line| line.ends_with(':')).collect();
        assert_eq!(headings, ["X509-SVID:", "Private key:", "Root CAs:"]);
        assert_eq!(screen.out.matches("BEGIN CERTIFICATE").count(), 3);
        assert_eq!(screen.out.matches("BEGIN PRIVATE KEY").count(), 1);
    }

    #[test]
    fn the_json_form_has_spires_three_names() {
        let value = minted().to_json();
        assert_eq!(value["root_cas"], json!(["AgIC", "AwMD"]));
        assert_eq!(
            value.as_object().unwrap().keys().collect::<Vec<_>>(),
            ["private_key", "root_cas", "x509_svid"]
        );
    }

    #[test]
    fn files_are_written_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let screen = Screen::show(|console| write_files(&minted(), dir.path(), console));
        screen.result.unwrap();
        assert_eq!(screen.out.lines().count(), 3);
        for name in ["svid.pem", "key.pem", "bundle.pem"] {
            assert!(dir.path().join(name).exists(), "{name}");
        }
        let missing = Screen::show(|console| write_files(&minted(), &dir.path().join("none"), console));
        assert!(missing.result.is_err() && missing.out.is_empty());
    }

    #[test]
    fn only_a_real_cap_is_warned_about() {
        let now = Timestamp::from_unix_secs(1000);
        let warned = |expires_at| {
            let ttl = Duration::from_secs(3600);
            let screen = Screen::show(|console| {
                warn_if_capped(ttl, now, expires_at, console);
                Ok(())
            });
            !screen.err.is_empty()
        };
        assert!(warned(2000));
        assert!(!warned(4599));
    }
}
