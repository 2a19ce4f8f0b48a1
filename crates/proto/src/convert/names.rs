//! SPIFFE IDs, trust domain names and selectors.

use spindle_spiffe_core::selector::SELECTORS_MAX;
use spindle_spiffe_core::{Selector, Selectors, SpiffeId, TrustDomain};

use super::fault::{Fault, at_most};
use crate::spire::api::types;

/// A SPIFFE ID in its two parts.
pub fn spiffe_id_to_proto(id: &SpiffeId) -> types::Spiffeid {
    types::Spiffeid { trust_domain: id.trust_domain_name().into(), path: id.path().into() }
}

/// The SPIFFE ID of the two parts. As in SPIRE, the trust domain may also be given as an ID.
///
/// # Errors
/// When both parts are empty, or one is malformed.
pub fn spiffe_id_from_proto(wire: &types::Spiffeid) -> Result<SpiffeId, Fault> {
    if wire.trust_domain.is_empty() && wire.path.is_empty() {
        return Err(Fault::Missing);
    }
    Ok(trust_domain_from_proto(&wire.trust_domain)?.member(&wire.path)?)
}

/// A trust domain by its bare name or by any SPIFFE ID in it: SPIRE's command line passes on what the user typed.
///
/// # Errors
/// When it is neither.
pub fn trust_domain_from_proto(wire: &str) -> Result<TrustDomain, Fault> {
    if wire.contains(":/") {
        let id: SpiffeId = wire.parse()?;
        return Ok(id.trust_domain());
    }
    Ok(wire.parse()?)
}

/// A selector in its two parts.
pub fn selector_to_proto(selector: &Selector) -> types::Selector {
    types::Selector { r#type: selector.kind().into(), value: selector.value().into() }
}

/// The selector of the two parts.
///
/// # Errors
/// When one is empty, the type has a colon, or both are too long.
pub fn selector_from_proto(wire: &types::Selector) -> Result<Selector, Fault> {
    Ok(Selector::new(&wire.r#type, &wire.value)?)
}

/// Selectors in ascending order.
pub fn selectors_to_proto(selectors: &Selectors) -> Vec<types::Selector> {
    selectors.iter().map(selector_to_proto).collect()
}

/// The set of the given selectors; repeats count once. An empty list is an empty set.
///
/// # Errors
/// When one is malformed, or the list has more than [`SELECTORS_MAX`] items, repeats included.
pub fn selectors_from_proto(wire: &[types::Selector]) -> Result<Selectors, Fault> {
    let selectors: Result<Vec<_>, _> =
        at_most(wire, SELECTORS_MAX)?.iter().map(selector_from_proto).collect();
    Ok(Selectors::new(selectors?)?)
}
