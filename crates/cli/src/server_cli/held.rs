//! What a server holds, asked over SPIRE's API, so that the server may be SPIRE's or ours.

use std::collections::BTreeSet;

use spindle_proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use spindle_proto::spire::api::server::bundle::v1::{
    GetBundleRequest, GetFederatedBundleRequest, ListFederatedBundlesRequest,
};
use spindle_proto::spire::api::server::entry::v1::ListEntriesRequest;
use spindle_proto::spire::api::server::entry::v1::entry_client::EntryClient;
use spindle_proto::spire::api::server::trustdomain::v1::ListFederationRelationshipsRequest;
use spindle_proto::spire::api::server::trustdomain::v1::trust_domain_client::TrustDomainClient;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::{Reason, TrustDomain};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::entry::batch::ANSWER_BYTES_MAX;
use super::entry::show;
use crate::client::refused;
use crate::error::Failure;
use crate::federation_plan::Federation;

/// Bundles or relationships asked for in one call; each has at most a few hundred KiB.
const FEDERATION_PAGE_SIZE: i32 = 50;

/// The bundle and all entries of a server.
pub(super) struct Held {
    pub(super) trust_domain: TrustDomain,
    pub(super) bundle: types::Bundle,
    pub(super) entries: Vec<types::Entry>,
}

impl Held {
    /// Asks the server at the other end of `channel`.
    pub(super) async fn by(channel: &Channel) -> Result<Self, Failure> {
        let answer = BundleClient::new(channel.clone()).get_bundle(GetBundleRequest::default()).await;
        let bundle =
            answer.map_err(|status| refused("cannot read the server's bundle", &status))?.into_inner();
        let trust_domain = bundle.trust_domain.parse().map_err(|error| {
            Failure::because(format!("the server calls its trust domain {:?}", bundle.trust_domain), &error)
        })?;
        let request = ListEntriesRequest { page_size: show::PAGE_SIZE, ..Default::default() };
        let entries = show::all(entries(channel), request).await?;
        Ok(Self { trust_domain, bundle, entries })
    }

    /// Refuses what is meant for another trust domain. `what` is what it is, as a plural.
    pub(super) fn expect(&self, trust_domain: Option<&TrustDomain>, what: &str) -> Result<(), Failure> {
        match trust_domain {
            Some(other) if *other != self.trust_domain => {
                let (own, reason) = (&self.trust_domain, Reason::WrongTrustDomain);
                let text = format!(
                    "{what} are of trust domain {other:?}, the server is of {own:?} (reason: {reason})"
                );
                Err(Failure::new(text).try_this("name the socket of the right server"))
            }
            _ => Ok(()),
        }
    }
}

/// A client that takes large pages.
pub(super) fn entries(channel: &Channel) -> EntryClient<Channel> {
    EntryClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
}

/// The bundles of other trust domains on the server, and its relationships with them. A server without those calls has none.
pub(super) async fn federation(channel: &Channel) -> Result<Federation, Failure> {
    let client = BundleClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
    let bundles = or_none(bundles(client).await, "cannot list bundles")?;
    let client = TrustDomainClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
    let mut relationships = or_none(relationships(client).await, "cannot list relationships")?;
    // The bundles stand by themselves.
    relationships.iter_mut().for_each(|relationship| relationship.trust_domain_bundle = None);
    Ok(Federation { bundles, relationships })
}

fn or_none<T>(listed: Result<Vec<T>, Status>, what: &str) -> Result<Vec<T>, Failure> {
    match listed {
        Err(status) if status.code() == Code::Unimplemented => Ok(Vec::new()),
        listed => listed.map_err(|status| refused(what, &status)),
    }
}

/// All bundles of other trust domains.
pub(super) async fn bundles(mut client: BundleClient<Channel>) -> Result<Vec<types::Bundle>, Status> {
    let mut bundles = Vec::new();
    let mut request = ListFederatedBundlesRequest { page_size: FEDERATION_PAGE_SIZE, ..Default::default() };
    loop {
        let page = client.list_federated_bundles(request.clone()).await?.into_inner();
        bundles.extend(page.bundles);
        if page.next_page_token.is_empty() {
            return Ok(bundles);
        }
        request.page_token = page.next_page_token;
    }
}

/// All federation relationships, with their bundles.
pub(super) async fn relationships(
    mut client: TrustDomainClient<Channel>,
) -> Result<Vec<types::FederationRelationship>, Status> {
    let mut relationships = Vec::new();
    let mut request =
        ListFederationRelationshipsRequest { page_size: FEDERATION_PAGE_SIZE, ..Default::default() };
    loop {
        let page = client.list_federation_relationships(request.clone()).await?.into_inner();
        relationships.extend(page.federation_relationships);
        if page.next_page_token.is_empty() {
            return Ok(relationships);
        }
        request.page_token = page.next_page_token;
    }
}

/// Which of the trust domains that the entries federate with have no bundle on the server.
pub(super) async fn without_bundle<'a>(
    channel: &Channel,
    entries: impl Iterator<Item = &'a types::Entry>,
) -> Result<BTreeSet<String>, Failure> {
    let bare = |name: &'a String| name.strip_prefix("spiffe://").unwrap_or(name);
    let named: BTreeSet<&str> = entries.flat_map(|entry| entry.federates_with.iter().map(bare)).collect();
    let mut client = BundleClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
    let mut missing = BTreeSet::new();
    for name in named {
        // Whether it is there is all that matters.
        let mask = types::BundleMask::default();
        let request = GetFederatedBundleRequest { trust_domain: name.into(), output_mask: Some(mask) };
        match client.get_federated_bundle(request).await {
            Ok(_) => {}
            Err(status) if status.code() == Code::NotFound => {
                missing.insert(name.to_owned());
            }
            // An entry may federate with the server's own trust domain, of which nobody may ask here.
            Err(status) if status.code() == Code::InvalidArgument => {}
            Err(status) => return Err(refused(&format!("cannot look for the bundle of {name}"), &status)),
        }
    }
    Ok(missing)
}
