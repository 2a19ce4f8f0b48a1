//! Trust bundles as they travel.

use std::collections::HashSet;

use spindle_spiffe_core::bundle::KEYS_MAX;
use spindle_spiffe_core::certificate::split_der_certificates;
use spindle_spiffe_core::{Bundle, JwtAuthority, Timestamp, TokenAuthority, WitAuthority, X509Authority};

use super::entry::{end_from_wire, end_to_wire};
use super::fault::{ConvertError, Fault, Field, InField, at_most};
use super::names::trust_domain_from_proto;
use crate::spire::api::types;

/// The bundle with all its fields.
pub fn bundle_to_proto(bundle: &Bundle) -> types::Bundle {
    let x509 = |authority: &X509Authority| types::X509Certificate {
        asn1: authority.der().to_vec().into(),
        tainted: authority.is_tainted(),
    };
    let jwt = |authority: &JwtAuthority| types::JwtKey {
        public_key: authority.spki_der().to_vec().into(),
        key_id: authority.kid().into(),
        expires_at: end_to_wire(authority.expires_at()),
        tainted: authority.is_tainted(),
    };
    let wit = |authority: &WitAuthority| types::WitKey {
        public_key: authority.spki_der().to_vec().into(),
        key_id: authority.kid().into(),
        expires_at: end_to_wire(authority.expires_at()),
        tainted: authority.is_tainted(),
    };
    types::Bundle {
        trust_domain: bundle.trust_domain.name().into(),
        x509_authorities: bundle.x509_authorities.iter().map(x509).collect(),
        jwt_authorities: bundle.jwt_authorities.iter().map(jwt).collect(),
        refresh_hint: bundle.refresh_hint_secs.map_or(0, |secs| i64::try_from(secs).unwrap_or(i64::MAX)),
        sequence_number: bundle.sequence,
        wit_authorities: bundle.wit_authorities.iter().map(wit).collect(),
    }
}

/// The bundle a message describes. One field may hold several certificates back to back, and a repeated certificate
/// counts once.
///
/// # Errors
/// The first field that is malformed, or a rule over all keys.
pub fn bundle_from_proto(wire: &types::Bundle) -> Result<Bundle, ConvertError> {
    let bundle = Bundle {
        trust_domain: trust_domain_from_proto(&wire.trust_domain).field(Field::TrustDomain)?,
        x509_authorities: x509_authorities(&wire.x509_authorities).field(Field::X509Authorities)?,
        jwt_authorities: jwt_authorities(&wire.jwt_authorities).field(Field::JwtAuthorities)?,
        wit_authorities: wit_authorities(&wire.wit_authorities).field(Field::WitAuthorities)?,
        sequence: wire.sequence_number,
        refresh_hint_secs: refresh_hint(wire.refresh_hint).field(Field::RefreshHint)?,
    };
    bundle.check().field(Field::Whole)?;
    Ok(bundle)
}

/// The bundle that somebody outside gives us, as [`bundle_from_proto`]. As in SPIRE no authority of it is tainted: whether
/// one of ours is, we decide; whether one of others is, does not show in what they publish.
///
/// # Errors
/// As [`bundle_from_proto`].
pub fn given_bundle_from_proto(wire: &types::Bundle) -> Result<Bundle, ConvertError> {
    let mut bundle = bundle_from_proto(wire)?;
    untaint_x509(&mut bundle.x509_authorities);
    untaint(&mut bundle.jwt_authorities);
    untaint(&mut bundle.wit_authorities);
    Ok(bundle)
}

/// Authorities that somebody outside gives us, none of them tainted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GivenAuthorities {
    /// Roots of X509-SVIDs, each once.
    pub x509: Vec<X509Authority>,
    /// Keys that sign JWT-SVIDs.
    pub jwt: Vec<JwtAuthority>,
    /// Keys that sign WIT-SVIDs.
    pub wit: Vec<WitAuthority>,
}

/// Authorities that somebody outside gives us, none of them tainted; a repeated certificate counts once.
///
/// # Errors
/// The first field that is malformed.
pub fn authorities_from_proto(
    x509: &[types::X509Certificate],
    jwt: &[types::JwtKey],
    wit: &[types::WitKey],
) -> Result<GivenAuthorities, ConvertError> {
    let mut given = GivenAuthorities {
        x509: x509_authorities(x509).field(Field::X509Authorities)?,
        jwt: jwt_authorities(jwt).field(Field::JwtAuthorities)?,
        wit: wit_authorities(wit).field(Field::WitAuthorities)?,
    };
    untaint_x509(&mut given.x509);
    untaint(&mut given.jwt);
    untaint(&mut given.wit);
    Ok(given)
}

fn untaint_x509(authorities: &mut [X509Authority]) {
    for authority in authorities {
        *authority = authority.clone().with_taint(false);
    }
}

fn untaint(authorities: &mut [TokenAuthority]) {
    for authority in authorities {
        *authority = authority.clone().with_taint(false);
    }
}

fn x509_authorities(wire: &[types::X509Certificate]) -> Result<Vec<X509Authority>, Fault> {
    let mut seen = HashSet::new();
    let mut authorities: Vec<X509Authority> = Vec::new();
    for item in at_most(wire, KEYS_MAX)? {
        let certificates = split_der_certificates(&item.asn1)?;
        if certificates.is_empty() {
            return Err(Fault::Missing);
        }
        for certificate in certificates {
            if seen.insert(certificate.clone()) {
                authorities.push(X509Authority::parse(certificate)?.with_taint(item.tainted));
            } else if item.tainted {
                // Rare: a repeat whose taint would otherwise be lost.
                let first = authorities.iter_mut().find(|one| *one.der() == certificate);
                first.into_iter().for_each(|one| *one = one.clone().with_taint(true));
            }
        }
        at_most(&authorities, KEYS_MAX)?;
    }
    Ok(authorities)
}

fn jwt_authorities(wire: &[types::JwtKey]) -> Result<Vec<JwtAuthority>, Fault> {
    let keys = at_most(wire, KEYS_MAX)?.iter();
    keys.map(|key| token_authority(&key.key_id, &key.public_key, key.expires_at, key.tainted)).collect()
}

fn wit_authorities(wire: &[types::WitKey]) -> Result<Vec<WitAuthority>, Fault> {
    let keys = at_most(wire, KEYS_MAX)?.iter();
    keys.map(|key| token_authority(&key.key_id, &key.public_key, key.expires_at, key.tainted)).collect()
}

fn token_authority(kid: &str, key: &[u8], expires_at: i64, tainted: bool) -> Result<TokenAuthority, Fault> {
    let expires_at: Option<Timestamp> = end_from_wire(expires_at)?;
    Ok(TokenAuthority::new(kid, key, expires_at, tainted)?)
}

fn refresh_hint(secs: i64) -> Result<Option<u64>, Fault> {
    match u64::try_from(secs) {
        Err(_) => Err(Fault::Negative(secs)),
        Ok(0) => Ok(None),
        Ok(secs) => Ok(Some(secs)),
    }
}

#[cfg(test)]
mod tests;
