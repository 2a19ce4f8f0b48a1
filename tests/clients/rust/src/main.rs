//! The rust-spiffe client of the interoperability suite; `../README.md` has the contract of all clients.
//!
//! SVIDs come through `spiffe`, TLS through `spiffe-rustls`. Start at [`main`].

#![forbid(unsafe_code)]

mod args;
mod broker;
mod delegated;
mod jwt;
mod store;
mod tls;

use std::collections::HashSet;
use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use rustls_pki_types::{CertificateDer, UnixTime};
use serde_json::{Value, json};
use spiffe::{WorkloadApiClient, X509Bundle, X509BundleSet, X509Svid};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::args::{Args, Command};

type Failure = Box<dyn Error + Send + Sync>;

/// How a command ended that did not fail.
enum Outcome {
    Done,
    /// One of the two sides would not talk to the other.
    Refused(String),
}

const EXIT_REFUSED: u8 = 3;

fn emit(event: &Value) {
    println!("{event}");
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(wrong) => {
            eprintln!("{wrong}");
            return ExitCode::from(2);
        }
    };
    let outcome = match args.command {
        Command::Fetch => fetch(&args).await,
        Command::Serve => tls::serve(&args).await,
        Command::Dial => tls::dial(&args).await,
        Command::Jwt => jwt::jwt(&args).await,
        Command::Delegated => delegated::delegated(&args).await,
        Command::Broker => broker::broker(&args).await,
    };
    match outcome {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Refused(detail)) => {
            emit(&json!({"event": "refused", "detail": detail}));
            ExitCode::from(EXIT_REFUSED)
        }
        Err(error) => {
            emit(&json!({"event": "error", "detail": format!("{error:?}")}));
            ExitCode::FAILURE
        }
    }
}

async fn fetch(args: &Args) -> Result<Outcome, Failure> {
    let client = WorkloadApiClient::connect_to(&args.socket).await?;
    let mut updates = client.stream_x509_contexts().await?;
    let mut serials = HashSet::new();
    while serials.len() <= args.rotations {
        let update = updates.next().await.ok_or("the stream ended")??;
        let svid = update.default_svid().ok_or("an update without an SVID")?;
        verify(svid, update.bundle_set())?;
        let event = svid_event(svid)?;
        let serial = event["serial"].to_string();
        emit(&event);
        serials.insert(serial);
    }
    Ok(Outcome::Done)
}

/// What all commands print for an X.509-SVID.
fn svid_event(svid: &X509Svid) -> Result<Value, Failure> {
    let (_, leaf) = X509Certificate::from_der(svid.leaf().as_bytes())?;
    Ok(json!({
        "event": "svid",
        "spiffe_id": svid.spiffe_id().to_string(),
        "serial": leaf.tbs_certificate.serial.to_str_radix(16),
        "not_after": leaf.validity().not_after.timestamp(),
    }))
}

/// Checks the chain with webpki for both ends of a TLS connection, since `spiffe` parses but does not verify.
fn verify(svid: &X509Svid, bundles: &X509BundleSet) -> Result<(), Failure> {
    let chain: Vec<CertificateDer<'_>> =
        svid.cert_chain().iter().map(|link| CertificateDer::from(link.as_bytes())).collect();
    let bundle = bundles.get(svid.spiffe_id().trust_domain());
    verify_chain(&chain, bundle.as_deref().ok_or("no bundle for the SVID's trust domain")?)
}

/// The same for a chain without its key; the leaf comes first.
fn verify_chain(chain: &[CertificateDer<'_>], bundle: &X509Bundle) -> Result<(), Failure> {
    let roots: Vec<CertificateDer<'_>> =
        bundle.authorities().iter().map(|root| CertificateDer::from(root.as_bytes())).collect();
    let anchors = roots.iter().map(webpki::anchor_from_trusted_cert).collect::<Result<Vec<_>, _>>()?;
    let (leaf, intermediates) = chain.split_first().ok_or("an SVID without a certificate")?;
    let leaf = EndEntityCert::try_from(leaf)?;
    let now = UnixTime::since_unix_epoch(seconds_since_epoch()?);
    for usage in [KeyUsage::client_auth(), KeyUsage::server_auth()] {
        leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            intermediates,
            now,
            usage,
            None,
            None,
        )?;
    }
    Ok(())
}

fn seconds_since_epoch() -> Result<Duration, Failure> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?)
}
