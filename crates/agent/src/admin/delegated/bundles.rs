//! SubscribeToX509Bundles and SubscribeToJWTBundles: the bundles of all trust domains that the agent knows, and again
//! whenever they change. A trust domain that is gone is gone from the next message; SPIRE keeps it for the life of the stream.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use spindle_proto::spire::api::agent::delegatedidentity::v1 as wire;
use tokio::sync::watch;
use tonic::Status;

use super::delegate::AdmittedDelegate;
use crate::cache::{NumberedBundle, Snapshot};
use crate::frames::{Messages, framed};
use crate::gate::{Gate, stopping};

/// Which keys are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Certificates.
    X509,
    /// Keys of JWT-SVIDs.
    Jwt,
}

/// The messages of one stream.
pub(super) struct Bundles {
    gate: Arc<Gate>,
    delegate: AdmittedDelegate,
    kind: Kind,
    changes: watch::Receiver<u64>,
    sent: Option<Bytes>,
}

impl Bundles {
    pub(super) fn new(gate: Arc<Gate>, delegate: AdmittedDelegate, kind: Kind) -> Self {
        let changes = gate.cache().bundle_changes();
        Self { gate, delegate, kind, changes, sent: None }
    }

    async fn wait(&mut self) -> Result<Bytes, Status> {
        loop {
            self.delegate.check_again().await?;
            self.changes.mark_unchanged();
            let message = encode(self.kind, &self.gate.cache().snapshot());
            if self.sent.as_ref() != Some(&message) {
                self.sent = Some(message.clone());
                return Ok(message);
            }
            tokio::select! {
                changed = self.changes.changed() => changed.map_err(|_| stopping())?,
                changed = self.delegate.changed() => changed?,
            }
        }
    }
}

fn encode(kind: Kind, snapshot: &Snapshot) -> Bytes {
    let federated = snapshot.federated_names().filter_map(|name| snapshot.federated(name));
    let all = std::iter::once(snapshot.own_bundle()).chain(federated);
    let map = |value: fn(&NumberedBundle) -> Bytes| -> BTreeMap<String, Bytes> {
        all.map(|one| (one.bundle.trust_domain().id().to_string(), value(one))).collect()
    };
    match kind {
        Kind::X509 => framed(&wire::SubscribeToX509BundlesResponse {
            ca_certificates: map(|one| one.bundle.to_der().into()),
        }),
        Kind::Jwt => {
            framed(&wire::SubscribeToJwtBundlesResponse { bundles: map(|one| one.jwt_key_set().clone()) })
        }
    }
}

impl Messages for Bundles {
    async fn next(&mut self) -> Result<Bytes, Status> {
        let shutdown = self.gate.shutdown().clone();
        // Cancel-safe: a message is kept as sent only when it is returned.
        tokio::select! {
            biased;
            () = shutdown.begun() => Err(stopping()),
            next = self.wait() => next,
        }
    }
}
