//! An answer of the Workload API as verified SVIDs, and how people see them.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use spindle_proto::workload::{X509svid, X509svidResponse};
use spindle_spiffe_core::{
    SpiffeId, Timestamp, TrustDomain, Validity, X509Bundle, X509Bundles, X509Svid, verify_x509_svid,
};
use zeroize::Zeroizing;

use crate::duration;
use crate::error::Failure;
use crate::output::plural;
use crate::output::text::go_time;

/// One SVID that its own bundle vouches for.
pub(crate) struct FetchedSvid {
    pub(crate) svid: X509Svid,
    pub(crate) hint: String,
    /// PKCS#8, DER.
    pub(crate) key: Zeroizing<Vec<u8>>,
    pub(crate) bundle: X509Bundle,
}

/// All SVIDs of an answer, and the bundles of other trust domains by name.
pub(crate) struct Fetched {
    pub(crate) svids: Vec<FetchedSvid>,
    pub(crate) federated: BTreeMap<String, X509Bundle>,
}

/// Checks every SVID against the bundle that came with it.
pub(crate) fn verify(response: &X509svidResponse, now: Timestamp) -> Result<Fetched, Failure> {
    if response.svids.is_empty() {
        return Err(Failure::new("the agent's answer has no SVID").try_this("look at the agent's log"));
    }
    let federated = response.federated_bundles.iter().map(|(id, der)| {
        let bundle = bundle_of(id, der)?;
        Ok((bundle.trust_domain().to_string(), bundle))
    });
    Ok(Fetched {
        svids: response.svids.iter().map(|wire| verify_one(wire, now)).collect::<Result<_, _>>()?,
        federated: federated.collect::<Result<_, Failure>>()?,
    })
}

type AnyError = Box<dyn std::error::Error>;

fn bad(what: &str, error: &dyn std::error::Error) -> Failure {
    Failure::because(format!("{what} is not valid"), error)
        .try_this("check the clock of this machine, and the agent's log")
}

fn verify_one(wire: &X509svid, now: Timestamp) -> Result<FetchedSvid, Failure> {
    verify_parts(wire, now).map_err(|error| bad(&format!("the SVID {:?}", wire.spiffe_id), &*error))
}

fn verify_parts(wire: &X509svid, now: Timestamp) -> Result<FetchedSvid, AnyError> {
    let id: SpiffeId = wire.spiffe_id.parse()?;
    let bundle = X509Bundle::from_der(id.trust_domain(), &wire.bundle)?;
    let chain = X509Svid::from_der(&wire.x509_svid)?.chain().to_vec();
    let mut bundles = X509Bundles::new();
    bundles.insert(bundle.clone());
    let svid = verify_x509_svid(&chain, &bundles, now)?;
    svid.require_id(&id)?;
    Ok(FetchedSvid {
        svid,
        hint: wire.hint.clone(),
        key: Zeroizing::new(wire.x509_svid_key.to_vec()),
        bundle,
    })
}

/// The authorities of a trust domain as an answer names them.
pub(crate) fn bundle_of(id: &str, der: &[u8]) -> Result<X509Bundle, Failure> {
    bundle(id, der).map_err(|error| bad(&format!("the bundle of {id}"), &*error))
}

/// Keys of the maps of bundles are trust domain names or their SPIFFE IDs.
fn bundle(id: &str, der: &[u8]) -> Result<X509Bundle, AnyError> {
    let trust_domain: TrustDomain = id.strip_prefix("spiffe://").unwrap_or(id).parse()?;
    Ok(X509Bundle::from_der(trust_domain, der)?)
}

/// How a foreign trust domain is written: SPIRE's two commands do it in two ways.
#[derive(Clone, Copy, Debug)]
pub(super) enum Foreign {
    /// As the Workload API has it, such as `spiffe://other.example`.
    Id,
    /// By its name alone.
    Name,
}

/// Prints an answer with SPIRE's labels.
pub(super) fn print(
    out: &mut dyn Write,
    fetched: &Fetched,
    took: Duration,
    foreign: Foreign,
) -> std::io::Result<()> {
    let count = fetched.svids.len();
    writeln!(out, "Received {count} {} after {}", plural(count, "svid", "svids"), duration::print(took))?;
    for svid in &fetched.svids {
        writeln!(out)?;
        print_one(out, svid)?;
        for (name, bundle) in &fetched.federated {
            let label = match foreign {
                Foreign::Id => format!("[spiffe://{name}] "),
                Foreign::Name => format!("[{name}] "),
            };
            print_authorities(out, &label, bundle)?;
        }
    }
    writeln!(out)
}

fn print_one(out: &mut dyn Write, fetched: &FetchedSvid) -> std::io::Result<()> {
    writeln!(out, "SPIFFE ID:\t\t{}", fetched.svid.spiffe_id())?;
    if !fetched.hint.is_empty() {
        writeln!(out, "Hint:\t\t\t{}", fetched.hint)?;
    }
    print_validity(out, "SVID", fetched.svid.validity())?;
    for (at, intermediate) in fetched.svid.intermediates().iter().enumerate() {
        if let Some(validity) = validity(intermediate) {
            print_validity(out, &format!("Intermediate #{}", at + 1), validity)?;
        }
    }
    print_authorities(out, "", &fetched.bundle)
}

/// Prints the authorities of one trust domain with SPIRE's labels.
pub(super) fn print_authorities(
    out: &mut dyn Write,
    prefix: &str,
    bundle: &X509Bundle,
) -> std::io::Result<()> {
    for (at, authority) in bundle.authorities().iter().enumerate() {
        print_validity(out, &format!("{prefix}CA #{}", at + 1), authority.validity())?;
    }
    Ok(())
}

fn print_validity(out: &mut dyn Write, what: &str, validity: Validity) -> std::io::Result<()> {
    writeln!(out, "{what} Valid After:\t{}", go_time(validity.not_before.unix_secs()))?;
    writeln!(out, "{what} Valid Until:\t{}", go_time(validity.not_after.unix_secs()))
}

/// The lifetime of an intermediate; none when it is not an authority, which a verified chain has no room for.
fn validity(der: &CertificateDer<'static>) -> Option<Validity> {
    spindle_spiffe_core::X509Authority::parse(der.clone()).ok().map(|authority| authority.validity())
}

#[cfg(test)]
mod tests;
