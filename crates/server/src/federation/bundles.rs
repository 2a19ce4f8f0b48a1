//! Making, changing and replacing the bundles of other trust domains.

use spindle_spiffe_core::{Bundle, TrustDomain};

use super::{FederationFault, write};
use crate::directory::{Directory, bundle_key, encode_bundle};

/// Stores a bundle where there is none yet.
pub(crate) async fn create(directory: &Directory, bundle: &Bundle) -> Result<(), FederationFault> {
    let name = &bundle.trust_domain;
    write(directory, name, |view, draft| match view.bundle(name) {
        Some(_) => Err(FederationFault::BundleExists),
        None => Ok((draft.absent(bundle_key(name)).put(bundle_key(name), encode_bundle(bundle)), ())),
    })
    .await
}

/// Stores a bundle in the place of whatever there is.
pub(crate) async fn set(directory: &Directory, bundle: &Bundle) -> Result<(), FederationFault> {
    let name = &bundle.trust_domain;
    let value = encode_bundle(bundle);
    write(directory, name, |_, draft| Ok((draft.put(bundle_key(name), value.clone()), ()))).await
}

/// Replaces a bundle by what `change` makes of it, and returns that.
pub(crate) async fn update(
    directory: &Directory,
    name: &TrustDomain,
    change: impl Fn(&Bundle) -> Bundle,
) -> Result<Bundle, FederationFault> {
    write(directory, name, |view, draft| {
        let (Some(old), Some(revision)) = (view.bundle(name), view.bundle_revision(name)) else {
            return Err(FederationFault::BundleNotFound);
        };
        let new = change(old);
        new.check()?;
        let key = bundle_key(name);
        Ok((draft.at_revision(key.clone(), revision).put(key, encode_bundle(&new)), new))
    })
    .await
}
