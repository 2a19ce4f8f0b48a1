//! Changing what is known about other trust domains: their bundles, and the relationships those come by.
//!
//! Each operation is one transaction whose preconditions carry the rules, tried anew when somebody else was quicker: no
//! entry is left that federates with a trust domain without a bundle, however many create and delete at once. The one
//! exception is a bundle that more entries refer to than a transaction may change; see `federation/removal.rs`.

pub(crate) mod bundles;
pub(crate) mod relationships;
pub(crate) mod removal;

use spindle_spiffe_core::bundle::BundleError;
use spindle_spiffe_core::{Reason, TrustDomain};
use spindle_store::{InvalidTransaction, StoreError, Transaction};
use tonic::Code;

use crate::directory::{CommitError, Directory, View, unlinking_key};

/// How often a change is made anew when others keep changing the same trust domain.
const TRIES_MAX: usize = 8;

/// Why an operation changed nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FederationFault {
    /// There is a bundle already.
    #[error("bundle already exists")]
    BundleExists,
    /// There is no bundle.
    #[error("bundle not found")]
    BundleNotFound,
    /// Entries refer to the bundle that was to go.
    #[error("cannot delete bundle; federated with {0} registration entries")]
    InUse(usize),
    /// There is a relationship already.
    #[error("federation relationship already exists")]
    RelationshipExists,
    /// There is no relationship.
    #[error("federation relationship not found")]
    RelationshipNotFound,
    /// Keys that make no bundle together.
    #[error(transparent)]
    Invalid(#[from] BundleError),
    /// Others kept changing the same trust domain.
    #[error("trust domain {0} is being changed by others")]
    Contended(TrustDomain),
    /// Each key is within its bounds, the whole is not.
    #[error("the bundle is too large: {0}")]
    TooLarge(InvalidTransaction),
    /// The store failed.
    #[error("the change could not be stored: {0}")]
    Store(StoreError),
}

impl From<StoreError> for FederationFault {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Invalid(invalid) => Self::TooLarge(invalid),
            error => Self::Store(error),
        }
    }
}

impl FederationFault {
    /// The code that goes with it, of SPIRE's where that makes sense of it.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::BundleExists | Self::RelationshipExists => Code::AlreadyExists,
            Self::BundleNotFound | Self::RelationshipNotFound => Code::NotFound,
            Self::InUse(_) => Code::FailedPrecondition,
            Self::Invalid(_) | Self::TooLarge(_) => Code::InvalidArgument,
            Self::Contended(_) => Code::Aborted,
            Self::Store(_) => Code::Internal,
        }
    }

    /// The reason that goes with it.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::BundleExists => Reason::BundleExists,
            Self::BundleNotFound => Reason::BundleNotFound,
            Self::InUse(_) => Reason::BundleInUse,
            Self::RelationshipExists => Reason::RelationshipExists,
            Self::RelationshipNotFound => Reason::RelationshipNotFound,
            Self::Invalid(_) => Reason::BadRequest,
            Self::Contended(_) => Reason::Overloaded,
            Self::TooLarge(_) => Reason::MessageTooLarge,
            Self::Store(_) => Reason::StoreFailed,
        }
    }
}

/// Commits what `make` adds to a transaction, made anew from the newest view when somebody else was quicker. Before a
/// trust domain is written whose entries are still being unlinked from an earlier bundle, that is brought to its end.
async fn write<T>(
    directory: &Directory,
    name: &TrustDomain,
    make: impl Fn(&View, Transaction) -> Result<(Transaction, T), FederationFault>,
) -> Result<T, FederationFault> {
    for _ in 0..TRIES_MAX {
        removal::finish(directory, name).await?;
        let (draft, made) = make(&directory.view(), Transaction::new().absent(unlinking_key(name)))?;
        match directory.commit(draft).await {
            Ok(_) => return Ok(made),
            // What stood in the way shows in the next view, or has gone again.
            Err(CommitError::Conflict(_)) => {}
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
    }
    Err(FederationFault::Contended(name.clone()))
}
