//! `PublishJWTAuthority`: a server below this one adds a key that its JWT-SVIDs are signed with.
//!
//! No upstream authority that this version has takes such keys, so they go into the bundle of this server's own store.

use spindle_proto::convert::{bundle_from_proto, bundle_to_proto};
use spindle_proto::refusal::refusal;
use spindle_proto::spire::api::server::bundle::v1 as wire;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::bundle::{BundleError, KEYS_MAX};
use spindle_spiffe_core::{Bundle, ErrorChain, JwtAuthority, Reason, SpiffeId};
use spindle_store::Transaction;
use tonic::{Code, Status};
use tracing::{info, warn};

use crate::api::filter::bad_request;
use crate::bundles;
use crate::context::Context;
use crate::directory::CommitError;
use crate::rate_limit::Source;

/// The most JWT authorities a bundle grows to by keys from below: a server below cannot fill it so far that this server has no
/// room for its own.
const FROM_BELOW_MAX: usize = KEYS_MAX / 2 - 64;

/// Why the key is not added.
enum Refused {
    /// Another key has its id.
    Taken,
    /// There is no room for more.
    Full,
    /// The bundle would break a rule.
    Bundle(BundleError),
    Store(CommitError),
}

impl From<CommitError> for Refused {
    fn from(error: CommitError) -> Self {
        Self::Store(error)
    }
}

pub(super) async fn publish(
    context: &Context,
    caller: &SpiffeId,
    source: Option<Source>,
    request: wire::PublishJwtAuthorityRequest,
) -> Result<wire::PublishJwtAuthorityResponse, Status> {
    context.rate_limits.publishing(source).await?;
    let key = request.jwt_authority.ok_or_else(|| bad_request("missing JWT authority"))?;
    let authority = parsed(context, key)?;
    let added = bundles::edit_own(&context.directory, &context.trust_domain, Transaction::new(), |bundle| {
        add(bundle, &authority)
    });
    added.await.map_err(|refused| status(&authority, refused))?;
    info!(spiffe_id = %caller, local_authority_id = authority.kid(), "JWT authority of a server below published");
    let bundle = bundles::own(&context.directory.view(), &context.trust_domain);
    Ok(wire::PublishJwtAuthorityResponse { jwt_authorities: bundle_to_proto(&bundle).jwt_authorities })
}

/// The key as a value. Whether it is tainted is for this trust domain's operators to say.
fn parsed(context: &Context, key: types::JwtKey) -> Result<JwtAuthority, Status> {
    let wire = types::Bundle {
        trust_domain: context.trust_domain.to_string(),
        jwt_authorities: vec![types::JwtKey { tainted: false, ..key }],
        ..types::Bundle::default()
    };
    let parsed =
        bundle_from_proto(&wire).map_err(|error| bad_request(&format!("invalid JWT authority: {error}")))?;
    parsed.jwt_authorities.into_iter().next().ok_or_else(|| bad_request("missing JWT authority"))
}

fn add(bundle: &mut Bundle, authority: &JwtAuthority) -> Result<(), Refused> {
    match bundle.jwt_authority(authority.kid()) {
        // Brought again, as after a lost answer: an operator's taint stays.
        Some(known) if known.spki_der() == authority.spki_der() => Ok(()),
        Some(_) => Err(Refused::Taken),
        None if bundle.jwt_authorities.len() >= FROM_BELOW_MAX => Err(Refused::Full),
        None => {
            bundle.jwt_authorities.push(authority.clone());
            bundle.check().map_err(Refused::Bundle)
        }
    }
}

fn status(authority: &JwtAuthority, refused: Refused) -> Status {
    let kid = authority.kid();
    match refused {
        Refused::Taken => {
            let message = format!("the key ID {kid:?} belongs to another JWT authority");
            refusal(Code::AlreadyExists, Reason::AlreadyExists, &message)
        }
        Refused::Full | Refused::Bundle(BundleError::TooMany(_)) => {
            let message = format!("the bundle holds {FROM_BELOW_MAX} JWT authorities, which is the most");
            refusal(Code::ResourceExhausted, Reason::Overloaded, &message)
        }
        Refused::Bundle(error) => bad_request(&format!("invalid JWT authority: {}", ErrorChain(&error))),
        Refused::Store(error) => {
            warn!(local_authority_id = kid, error = %ErrorChain(&error), "cannot store a JWT authority");
            refusal(Code::Internal, Reason::StoreFailed, "failed to publish JWT key: it could not be stored")
        }
    }
}

#[cfg(test)]
mod tests {
    use spindle_keys::{Key, KeyType};

    use super::*;
    use crate::fixtures::trust_domain;

    #[test]
    fn keys_from_below_leave_room_for_our_own_and_a_known_one_is_taken_even_then() {
        let key = Key::generate(KeyType::EcP256).unwrap();
        let authority = |kid: &str| JwtAuthority::new(kid, key.spki_der(), None, false).unwrap();
        let mut bundle = Bundle::new(trust_domain());
        for number in 0..FROM_BELOW_MAX {
            assert!(add(&mut bundle, &authority(&number.to_string())).is_ok());
        }
        assert!(matches!(add(&mut bundle, &authority("more")), Err(Refused::Full)));
        assert!(add(&mut bundle, &authority("0")).is_ok());
        assert_eq!(bundle.jwt_authorities.len(), FROM_BELOW_MAX);
        let full = status(&authority("more"), Refused::Full);
        assert_eq!(full.code(), Code::ResourceExhausted, "{full:?}");
    }
}
