//! `api fetch -write`: SVIDs, keys and bundles as files under SPIRE's names.

use std::path::Path;

use spindle_keys::pem;
use spindle_spiffe_core::pem::certificates_to_pem;

use super::svids::{Fetched, FetchedSvid};
use crate::console::Console;
use crate::error::Failure;
use crate::files::{Readable, write as write_file};

/// Writes everything below `dir`, which must exist.
pub(super) fn write(console: &mut Console<'_>, dir: &Path, fetched: &Fetched) -> Result<(), Failure> {
    for (at, svid) in fetched.svids.iter().enumerate() {
        write_svid(console, dir, at, svid)?;
        for (number, (name, bundle)) in fetched.federated.iter().enumerate() {
            let path = dir.join(format!("federated_bundle.{at}.{number}.pem"));
            let path_text = path.display();
            writeln!(
                console.out,
                "Writing federated bundle #{number} for trust domain spiffe://{name} to file {path_text}."
            )?;
            write_file(&path, bundle.to_pem().as_bytes(), Readable::Public)?;
        }
    }
    Ok(())
}

fn write_svid(console: &mut Console<'_>, dir: &Path, at: usize, svid: &FetchedSvid) -> Result<(), Failure> {
    let chain = certificates_to_pem(svid.svid.chain());
    let (key, bundle) = (pem::private_key(&svid.key), svid.bundle.to_pem());
    for (what, name, content, readable) in [
        ("SVID", format!("svid.{at}.pem"), chain.as_str(), Readable::Public),
        ("key", format!("svid.{at}.key"), key.as_str(), Readable::Private),
        ("bundle", format!("bundle.{at}.pem"), bundle.as_str(), Readable::Public),
    ] {
        let path = dir.join(name);
        writeln!(console.out, "Writing {what} #{at} to file {}.", path.display())?;
        write_file(&path, content.as_bytes(), readable)?;
    }
    Ok(())
}
