//! The operator's part of a local trust domain, over the admin socket.

use std::path::Path;

use spindle_agent::JoinToken;
use spindle_proto::convert::{bundle_from_proto, spiffe_id_to_proto};
use spindle_proto::spire::api::server::agent::v1::CreateJoinTokenRequest;
use spindle_proto::spire::api::server::agent::v1::agent_client::AgentClient;
use spindle_proto::spire::api::server::bundle::v1::GetBundleRequest;
use spindle_proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use spindle_proto::spire::api::server::entry::v1::entry_client::EntryClient;
use spindle_proto::spire::api::server::entry::v1::{
    BatchCreateEntryRequest, BatchDeleteEntryRequest, BatchUpdateEntryRequest,
};
use spindle_proto::spire::api::types;
use spindle_spiffe_core::{SpiffeId, TrustDomain, X509Bundle};
use tonic::Code;
use tonic::transport::Channel;

use super::LocalEntry;
use crate::client::{connect, item_refused, refused};
use crate::error::Failure;

/// How long a token can be used; it is used at once.
const TOKEN_TTL_SECS: i32 = 60;

/// Calls on the admin socket.
#[derive(Clone)]
pub(crate) struct Admin(Channel);

impl Admin {
    pub(super) async fn connect(socket: &Path) -> Result<Self, Failure> {
        Ok(Self(connect(socket, "server").await?))
    }

    /// The trust bundle, for the agent's first contact.
    pub(super) async fn bundle(&self, trust_domain: &TrustDomain) -> Result<X509Bundle, Failure> {
        let answer = BundleClient::new(self.0.clone()).get_bundle(GetBundleRequest::default()).await;
        let bundle = answer.map_err(|status| refused("cannot get the trust bundle", &status))?.into_inner();
        let bundle = bundle_from_proto(&bundle).map_err(|error| {
            Failure::because(format!("the bundle of {trust_domain} is malformed"), &error)
        })?;
        Ok(bundle.x509_bundle())
    }

    /// A token whose owner is also known as `node`.
    pub(super) async fn join_token(&self, node: &SpiffeId) -> Result<JoinToken, Failure> {
        let request = CreateJoinTokenRequest {
            ttl: TOKEN_TTL_SECS,
            token: String::new(),
            agent_id: Some(spiffe_id_to_proto(node)),
        };
        let answer = AgentClient::new(self.0.clone()).create_join_token(request).await;
        Ok(JoinToken::new(
            answer.map_err(|status| refused("cannot make a join token", &status))?.into_inner().value,
        ))
    }

    /// Makes the entry, or makes the one of an earlier run alike.
    pub(super) async fn ensure_entry(&self, parent: &SpiffeId, wanted: &LocalEntry) -> Result<(), Failure> {
        let what = format!("cannot register {}", wanted.spiffe_id);
        let entry = types::Entry {
            id: wanted.entry_id.clone(),
            spiffe_id: Some(spiffe_id_to_proto(&wanted.spiffe_id)),
            parent_id: Some(spiffe_id_to_proto(parent)),
            selectors: wanted.selectors.clone(),
            x509_svid_ttl: wanted.ttl_secs,
            ..types::Entry::default()
        };
        let mut client = EntryClient::new(self.0.clone());
        let request = BatchCreateEntryRequest { entries: vec![entry.clone()], output_mask: None };
        let created =
            client.batch_create_entry(request).await.map_err(|status| refused(&what, &status))?.into_inner();
        let result = created.results.into_iter().next().unwrap_or_default();
        let status = result.status.unwrap_or_default();
        match Code::from_i32(status.code) {
            Code::Ok => Ok(()),
            Code::AlreadyExists => {
                let present = result.entry.unwrap_or_default();
                if is_alike(&present, &entry) {
                    return Ok(());
                }
                // An equal entry may stand under another ID, made by hand.
                let id = if present.id.is_empty() { entry.id.clone() } else { present.id };
                let entries = vec![types::Entry { id, ..entry }];
                let request = BatchUpdateEntryRequest { entries, ..BatchUpdateEntryRequest::default() };
                let updated =
                    client.batch_update_entry(request).await.map_err(|status| refused(&what, &status))?;
                let result = updated.into_inner().results.into_iter().next().unwrap_or_default();
                check(&what, &result.status.unwrap_or_default())
            }
            _ => check(&what, &status),
        }
    }

    /// Deletes an entry.
    ///
    /// # Errors
    /// When there is none of that ID, or the server does not answer.
    pub(crate) async fn delete_entry(&self, id: &str) -> Result<(), Failure> {
        let what = format!("cannot delete entry {id}");
        let request = BatchDeleteEntryRequest { ids: vec![id.into()] };
        let answer = EntryClient::new(self.0.clone()).batch_delete_entry(request).await;
        let results = answer.map_err(|status| refused(&what, &status))?.into_inner().results;
        check(&what, &results.into_iter().next().and_then(|result| result.status).unwrap_or_default())
    }
}

/// Whether an entry of an earlier run can stay as it is.
fn is_alike(present: &types::Entry, wanted: &types::Entry) -> bool {
    present.spiffe_id == wanted.spiffe_id
        && present.parent_id == wanted.parent_id
        && present.selectors == wanted.selectors
        && present.x509_svid_ttl == wanted.x509_svid_ttl
}

/// The status of one item of a batch.
fn check(what: &str, status: &types::Status) -> Result<(), Failure> {
    if status.code == 0 { Ok(()) } else { Err(item_refused(what, status)) }
}
