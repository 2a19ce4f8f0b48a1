//! What one set of selectors may see: the identities that match, in order, and the trust bundles that go with them.
//!
//! Pure. A [`View`] is immutable and shared by all streams with the same selectors. Its [`Content`] is what a workload
//! is told; two views with the same content share it, and with it the encoded answers, which are built once.
//! Start at [`View::compute`].

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use spindle_spiffe_core::{
    Bundle, EntryId, Hint, RegistrationEntry, Selectors, SpiffeId, TrustDomain, X509Bundle, X509Svid,
};
use zeroize::Zeroizing;

use super::encode;
use super::hints::unique_hints;
use super::snapshot::Snapshot;

/// An X509-SVID with its private key. The key is wiped when the last view lets go of it.
pub(crate) struct HeldSvid {
    /// Unique in the life of the process: names this SVID in fingerprints.
    pub(crate) number: u64,
    /// The certificate chain.
    pub(crate) svid: X509Svid,
    /// The private key as PKCS#8 in DER.
    pub(crate) key_pkcs8: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for HeldSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeldSvid({}, serial {})", self.svid.spiffe_id(), self.svid.serial())
    }
}

/// Why an entry has no SVID to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unready {
    /// It is about to be signed, or being signed: worth a short wait.
    Signing,
    /// It is signed once a workload that matches asks (`disable_x509_svid_prefetch`).
    OnDemand,
    /// Signing failed or the SVID ran out; it is tried again later.
    Failed(Arc<str>),
}

impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signing => f.write_str("it is being signed"),
            Self::OnDemand => f.write_str("it waits to be asked for"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

/// One entry and the SVID it has, if any.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The registration.
    pub(crate) entry: Arc<RegistrationEntry>,
    /// The SVID, or why there is none.
    pub(crate) state: Result<Arc<HeldSvid>, Unready>,
}

/// An identity as a workload is shown it.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    /// The registration.
    pub(crate) entry: Arc<RegistrationEntry>,
    /// Its SVID.
    pub(crate) held: Arc<HeldSvid>,
    /// Its hint, unless another identity of the answer has it.
    pub(crate) hint: Hint,
}

/// A trust bundle under a number that changes with its content.
#[derive(Clone, Debug)]
pub(crate) struct NumberedBundle {
    /// Unique in the life of the process.
    pub(crate) number: u64,
    /// The part that X509-SVIDs are verified with.
    pub(crate) bundle: X509Bundle,
    /// The keys of all SVID types.
    pub(crate) whole: Arc<Bundle>,
    jwt_key_set: Arc<OnceLock<Bytes>>,
    wit_key_set: Arc<OnceLock<Bytes>>,
}

impl NumberedBundle {
    pub(crate) fn new(number: u64, whole: Bundle) -> Self {
        let (bundle, whole) = (whole.x509_bundle(), Arc::new(whole));
        Self { number, bundle, whole, jwt_key_set: Arc::default(), wit_key_set: Arc::default() }
    }

    /// The keys of JWT-SVIDs as a plain JWK Set (RFC 7517 5) in JSON; built on first use.
    pub(crate) fn jwt_key_set(&self) -> &Bytes {
        self.jwt_key_set.get_or_init(|| self.whole.jwt_key_set().into())
    }

    /// The keys of WIT-SVIDs in the same form.
    pub(crate) fn wit_key_set(&self) -> &Bytes {
        self.wit_key_set.get_or_init(|| self.whole.wit_key_set().into())
    }
}

/// What makes two contents the same message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint {
    shown: Vec<(u64, Hint)>,
    bundles: Vec<u64>,
}

/// Everything a workload is told, with the encoded answers.
pub(crate) struct Content {
    /// Matching identities that have an SVID, the default one first.
    pub(crate) identities: Vec<Shown>,
    /// The agent's own trust domain.
    pub(crate) own: NumberedBundle,
    /// Foreign trust domains that the matching entries federate with, by name.
    pub(crate) federated: Vec<NumberedBundle>,
    x509_svids: OnceLock<Bytes>,
    x509_bundles: OnceLock<Bytes>,
    jwt_bundles: OnceLock<Bytes>,
    wit_bundles: OnceLock<Bytes>,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content").field("identities", &self.identities).finish_non_exhaustive()
    }
}

/// Content, and the matching entries that are not part of it.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// What a workload is told.
    pub(crate) content: Arc<Content>,
    /// Matching entries without an SVID, for the operator and for short waits.
    pub(crate) unready: Arc<[(EntryId, SpiffeId, Unready)]>,
}

impl Content {
    /// The framed answer to FetchX509SVID; built on first use. Wiped on drop, for it holds private keys.
    pub(crate) fn x509_svids(&self) -> Bytes {
        self.x509_svids.get_or_init(|| encode::x509_svids(self)).clone()
    }

    /// The framed answer to FetchX509Bundles; built on first use.
    pub(crate) fn x509_bundles(&self) -> Bytes {
        self.x509_bundles.get_or_init(|| encode::x509_bundles(self)).clone()
    }

    /// The framed answer to FetchJWTBundles; built on first use.
    pub(crate) fn jwt_bundles(&self) -> Bytes {
        self.jwt_bundles.get_or_init(|| encode::jwt_bundles(self)).clone()
    }

    /// The framed answer to FetchWITBundles; built on first use.
    pub(crate) fn wit_bundles(&self) -> Bytes {
        self.wit_bundles.get_or_init(|| encode::wit_bundles(self)).clone()
    }

    /// What distinguishes this content from another.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint {
            shown: self.identities.iter().map(|one| (one.held.number, one.hint.clone())).collect(),
            bundles: std::iter::once(&self.own).chain(&self.federated).map(|one| one.number).collect(),
        }
    }
}

impl View {
    /// The view of `snapshot` for a workload that shows `selectors`: every entry whose selectors are all among them, in the
    /// order of entry ids, as SPIRE has it. The first is the default identity (Workload API 8), so whoever chooses ids
    /// chooses the default.
    pub(crate) fn compute(snapshot: &Snapshot, selectors: &Selectors) -> Self {
        let matching = snapshot.matching(selectors);
        let entries: Vec<&RegistrationEntry> = matching.iter().map(|one| one.entry.as_ref()).collect();
        // Over all of them, so that no hint moves when an SVID is late.
        let hints = unique_hints(&entries);
        let mut unready = Vec::new();
        let mut shown = Vec::new();
        for (identity, hint) in matching.iter().zip(hints) {
            match &identity.state {
                Ok(held) => shown.push(Shown { entry: identity.entry.clone(), held: held.clone(), hint }),
                Err(why) => {
                    unready.push((identity.entry.id.clone(), identity.entry.spiffe_id.clone(), why.clone()));
                }
            }
        }
        // Which bundles a workload may have follows from its entries, signed or not.
        let names: BTreeSet<&TrustDomain> =
            matching.iter().flat_map(|identity| &identity.entry.federates_with).collect();
        let federated = names.into_iter().filter_map(|name| snapshot.federated(name)).cloned().collect();
        let content = Content {
            identities: shown,
            own: snapshot.own_bundle().clone(),
            federated,
            x509_svids: OnceLock::new(),
            x509_bundles: OnceLock::new(),
            jwt_bundles: OnceLock::new(),
            wit_bundles: OnceLock::new(),
        };
        Self { content: Arc::new(content), unready: unready.into() }
    }

    /// Whether a stream would notice no difference.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        self.unready == other.unready && self.content.fingerprint() == other.content.fingerprint()
    }

    /// Whether a matching entry's SVID can be expected in a moment.
    pub(crate) fn is_signing(&self) -> bool {
        self.unready.iter().any(|(_, _, why)| matches!(why, Unready::Signing | Unready::OnDemand))
    }
}
