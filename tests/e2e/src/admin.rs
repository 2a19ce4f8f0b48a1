//! What an operator does over the admin socket, one call each, on one kept connection.
//!
//! A refused item is an error here: callers that expect one use the generated clients. Start at [`Admin::connect`].

use std::path::Path;

use anyhow::{Context, Result, ensure};
use spindle_proto::convert::bundle_from_proto;
use spindle_proto::spire::api::server::agent::v1 as agent_api;
use spindle_proto::spire::api::server::bundle::v1 as bundle_api;
use spindle_proto::spire::api::server::entry::v1 as entry_api;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::X509Bundle;
use spindle_transport::connect_unix;
use tonic::transport::Channel;

/// How long a join token lasts, in seconds: longer than any start.
const TOKEN_TTL_SECS: i32 = 600;

/// A connection to the admin socket. Clones share it.
#[derive(Clone)]
pub struct Admin(Channel);

impl Admin {
    /// Connects to the admin socket at `path`.
    ///
    /// # Errors
    /// When nobody answers there.
    pub async fn connect(path: &Path) -> Result<Self> {
        Ok(Self(connect_unix(path).await?))
    }

    /// Makes a join token.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn join_token(&self) -> Result<String> {
        let mut client = agent_api::agent_client::AgentClient::new(self.0.clone());
        let request = agent_api::CreateJoinTokenRequest { ttl: TOKEN_TTL_SECS, ..Default::default() };
        Ok(client.create_join_token(request).await?.into_inner().value)
    }

    /// The trust domain's X.509 bundle.
    ///
    /// # Errors
    /// When the server refuses or answers with no bundle.
    pub async fn bundle(&self) -> Result<X509Bundle> {
        let mut client = bundle_api::bundle_client::BundleClient::new(self.0.clone());
        let bundle = client.get_bundle(bundle_api::GetBundleRequest::default()).await?.into_inner();
        Ok(bundle_from_proto(&bundle)?.x509_bundle())
    }

    /// Registers entries in one call; returns their ids in the same order.
    ///
    /// # Errors
    /// When the server refuses the call or any of the entries.
    pub async fn register_all(&self, entries: Vec<types::Entry>) -> Result<Vec<String>> {
        let mut client = entry_api::entry_client::EntryClient::new(self.0.clone());
        let request = entry_api::BatchCreateEntryRequest { entries, output_mask: None };
        let results = client.batch_create_entry(request).await?.into_inner().results;
        let id = |result: entry_api::batch_create_entry_response::Result| {
            let status = result.status.context("a status in each result")?;
            ensure!(status.code == 0, "entry refused: {} {}", status.code, status.message);
            Ok(result.entry.context("the entry in the result")?.id)
        };
        results.into_iter().map(id).collect()
    }

    /// Registers an entry; returns its id.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn register(&self, entry: types::Entry) -> Result<String> {
        self.register_all(vec![entry]).await?.pop().context("one result for one entry")
    }

    /// Replaces entries in one call.
    ///
    /// # Errors
    /// When the server refuses the call or any of the entries.
    pub async fn update_all(&self, entries: Vec<types::Entry>) -> Result<()> {
        let mut client = entry_api::entry_client::EntryClient::new(self.0.clone());
        let request = entry_api::BatchUpdateEntryRequest { entries, input_mask: None, output_mask: None };
        let results = client.batch_update_entry(request).await?.into_inner().results;
        results.into_iter().try_for_each(|result| accepted("update", result.status))
    }

    /// One page of the entries that a request selects.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn list(&self, request: entry_api::ListEntriesRequest) -> Result<Vec<types::Entry>> {
        let mut client = entry_api::entry_client::EntryClient::new(self.0.clone());
        Ok(client.list_entries(request).await?.into_inner().entries)
    }

    /// Deletes an entry.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn unregister(&self, entry_id: &str) -> Result<()> {
        self.unregister_all(vec![entry_id.to_owned()]).await
    }

    /// Deletes entries in one call.
    ///
    /// # Errors
    /// When the server refuses the call or any of the entries.
    pub async fn unregister_all(&self, ids: Vec<String>) -> Result<()> {
        let mut client = entry_api::entry_client::EntryClient::new(self.0.clone());
        let request = entry_api::BatchDeleteEntryRequest { ids };
        let results = client.batch_delete_entry(request).await?.into_inner().results;
        results.into_iter().try_for_each(|result| accepted("delete", result.status))
    }
}

/// That one item of a batch was taken.
fn accepted(verb: &str, status: Option<types::Status>) -> Result<()> {
    let status = status.context("a status in each result")?;
    ensure!(status.code == 0, "{verb} refused: {} {}", status.code, status.message);
    Ok(())
}
