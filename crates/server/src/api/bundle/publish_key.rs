//! `PublishJWTAuthority` and `PublishWITAuthority`: a server below this one adds a key that its tokens are signed with.
//!
//! No upstream authority that this version has takes such keys, so they go into the bundle of this server's own store.

use spindle_ca::TokenFamily;
use spindle_proto::convert::ConvertError;
use spindle_proto::refusal::refusal;
use spindle_spiffe_core::bundle::{BundleError, KEYS_MAX};
use spindle_spiffe_core::{Bundle, ErrorChain, Reason, SpiffeId, TokenAuthority};
use spindle_store::Transaction;
use tonic::{Code, Status};
use tracing::{info, warn};

use crate::api::filter::bad_request;
use crate::bundles;
use crate::context::Context;
use crate::directory::CommitError;
use crate::rate_limit::Source;

/// The most authorities of one family a bundle grows to by keys from below: a server below cannot fill it so far that this
/// server has no room for its own.
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

/// Adds the key that came, and returns the bundle as it stands then. Whether the key is tainted is for this trust domain's
/// operators to say.
pub(super) async fn publish<F: TokenFamily>(
    context: &Context,
    caller: &SpiffeId,
    source: Option<Source>,
    given: Option<Result<Vec<TokenAuthority>, ConvertError>>,
) -> Result<Bundle, Status> {
    context.rate_limits.publishing(source).await?;
    let authority = parsed::<F>(given)?;
    let added = bundles::edit_own(&context.directory, &context.trust_domain, Transaction::new(), |bundle| {
        add::<F>(bundle, &authority)
    });
    added.await.map_err(|refused| status::<F>(&authority, refused))?;
    info!(spiffe_id = %caller, local_authority_id = authority.kid(), "{} of a server below published", F::AUTHORITY);
    Ok(bundles::own(&context.directory.view(), &context.trust_domain))
}

fn parsed<F: TokenFamily>(
    given: Option<Result<Vec<TokenAuthority>, ConvertError>>,
) -> Result<TokenAuthority, Status> {
    let missing = || bad_request(&format!("missing {}", F::AUTHORITY));
    let parsed = given.ok_or_else(missing)?;
    let parsed = parsed.map_err(|error| bad_request(&format!("invalid {}: {error}", F::AUTHORITY)))?;
    parsed.into_iter().next().ok_or_else(missing)
}

fn add<F: TokenFamily>(bundle: &mut Bundle, authority: &TokenAuthority) -> Result<(), Refused> {
    match F::authority(bundle, authority.kid()) {
        // Brought again, as after a lost answer: an operator's taint stays.
        Some(known) if known.spki_der() == authority.spki_der() => Ok(()),
        Some(_) => Err(Refused::Taken),
        None if F::authorities(bundle).len() >= FROM_BELOW_MAX => Err(Refused::Full),
        None => {
            F::authorities_mut(bundle).push(authority.clone());
            bundle.check().map_err(Refused::Bundle)
        }
    }
}

fn status<F: TokenFamily>(authority: &TokenAuthority, refused: Refused) -> Status {
    let kid = authority.kid();
    match refused {
        Refused::Taken | Refused::Bundle(BundleError::RepeatedKeyId(_)) => {
            let message = format!("the key ID {kid:?} belongs to another authority");
            refusal(Code::AlreadyExists, Reason::AlreadyExists, &message)
        }
        Refused::Full | Refused::Bundle(BundleError::TooMany(_)) => {
            let message = format!("the bundle holds {FROM_BELOW_MAX} {} keys, which is the most", F::NAME);
            refusal(Code::ResourceExhausted, Reason::Overloaded, &message)
        }
        Refused::Bundle(error) => bad_request(&format!("invalid {}: {}", F::AUTHORITY, ErrorChain(&error))),
        Refused::Store(error) => {
            warn!(local_authority_id = kid, error = %ErrorChain(&error), "cannot store a {}", F::AUTHORITY);
            let message = format!("failed to publish {} key: it could not be stored", F::NAME);
            refusal(Code::Internal, Reason::StoreFailed, &message)
        }
    }
}

#[cfg(test)]
mod tests {
    use spindle_ca::{Jwt, Wit};
    use spindle_keys::{Key, KeyType};

    use super::*;
    use crate::fixtures::trust_domain;

    #[test]
    fn keys_from_below_leave_room_for_our_own_and_a_known_one_is_taken_even_then() {
        let key = Key::generate(KeyType::EcP256).unwrap();
        let authority = |kid: &str| TokenAuthority::new(kid, key.spki_der(), None, false).unwrap();
        let mut bundle = Bundle::new(trust_domain());
        for number in 0..FROM_BELOW_MAX {
            assert!(add::<Jwt>(&mut bundle, &authority(&number.to_string())).is_ok());
        }
        assert!(matches!(add::<Jwt>(&mut bundle, &authority("more")), Err(Refused::Full)));
        assert!(add::<Jwt>(&mut bundle, &authority("0")).is_ok());
        assert_eq!(bundle.jwt_authorities.len(), FROM_BELOW_MAX);
        let full = status::<Jwt>(&authority("more"), Refused::Full);
        assert_eq!(full.code(), Code::ResourceExhausted, "{full:?}");
    }
    #[test]
    fn wit_45_a_key_id_of_the_other_family_is_taken() {
        let authority = |kid: &str| {
            let key = Key::generate(KeyType::EcP256).unwrap();
            TokenAuthority::new(kid, key.spki_der(), None, false).unwrap()
        };
        let mut bundle = Bundle::new(trust_domain());
        assert!(add::<Jwt>(&mut bundle, &authority("one")).is_ok());
        let clash = authority("one");
        let refused = add::<Wit>(&mut bundle.clone(), &clash).unwrap_err();
        assert_eq!(status::<Wit>(&clash, refused).code(), Code::AlreadyExists);
        assert!(add::<Wit>(&mut bundle, &authority("two")).is_ok());
    }
}
