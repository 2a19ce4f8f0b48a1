//! WIT-SVIDs from end to end: a server that has them, an agent, and a caller who verifies what it gets.

use anyhow::{Context, Result, bail};
use spindle_e2e::{Domain, Node, PATIENCE, entry, id, own_uid, trust_domain};
use spindle_proto::spire::api::server::localauthority::v1 as authority;
use spindle_proto::spire::api::server::localauthority::v1::local_authority_client::LocalAuthorityClient;
use spindle_proto::spire::api::types;
use spindle_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use spindle_proto::workload::{WitBundlesRequest, WitsvidRequest, WitsvidResponse};
use spindle_runtime::SystemClock;
use spindle_server::StoreKind;
use spindle_spiffe_core::{Bundle, Clock, WitValidation, validate_wit_svid};
use spindle_transport::connect_unix;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status, Streaming};

async fn domain(svid_ttl_secs: i64) -> Result<Domain> {
    Domain::start_with(StoreKind::Sled, 3600, svid_ttl_secs, |config| config.wit.enabled = true).await
}

fn with_header<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    request
}

async fn stream(node: &Node) -> Result<Streaming<WitsvidResponse>, Status> {
    let channel =
        connect_unix(&node.socket_path).await.map_err(|error| Status::unavailable(error.to_string()))?;
    let request = with_header(WitsvidRequest { spiffe_id: String::new() });
    Ok(SpiffeWorkloadApiClient::new(channel).fetch_witsvid(request).await?.into_inner())
}

async fn next(stream: &mut Streaming<WitsvidResponse>) -> Result<WitsvidResponse> {
    match tokio::time::timeout(PATIENCE, stream.message()).await.context("the stream stays silent")? {
        Ok(Some(message)) => Ok(message),
        Ok(None) => bail!("the stream has ended"),
        Err(status) => Err(status.into()),
    }
}

/// Opens a stream once this process is served, as an acknowledged entry may still be on its way to the agent.
async fn served(node: &Node) -> Result<(Streaming<WitsvidResponse>, WitsvidResponse)> {
    let attempts = async {
        loop {
            match stream(node).await {
                Ok(mut stream) => {
                    let first = next(&mut stream).await?;
                    return Ok((stream, first));
                }
                Err(status) if status.code() == Code::PermissionDenied => {}
                Err(status) => return Err(status.into()),
            }
        }
    };
    tokio::time::timeout(PATIENCE, attempts).await.context("this process is not served in time")?
}

/// The own trust domain's keys for WIT-SVIDs, as the agent hands them to this process.
async fn bundle(node: &Node) -> Result<Bundle> {
    let channel = connect_unix(&node.socket_path).await?;
    let mut client = SpiffeWorkloadApiClient::new(channel);
    let mut stream = client.fetch_wit_bundles(with_header(WitBundlesRequest {})).await?.into_inner();
    let bundles = stream.message().await?.context("no bundles")?.bundles;
    let keys = bundles.get("spiffe://example.org").context("the own trust domain is missing")?;
    Ok(Bundle::from_wit_key_set(trust_domain(), keys.as_bytes())?)
}

/// Verifies each WIT-SVID under the agent's bundle and compares it with its key; returns the identities and the key IDs.
async fn verified(node: &Node, answer: &WitsvidResponse) -> Result<Vec<(String, String)>> {
    let bundle = bundle(node).await?;
    let mut found = Vec::new();
    for svid in &answer.svids {
        let wit = validate_wit_svid(&svid.wit_svid, &bundle, &WitValidation::new(SystemClock.now()))?;
        assert_eq!(wit.claimed_spiffe_id().as_str(), svid.spiffe_id);
        let confirmed = wit.key().to_claim();
        for member in ["alg", "crv", "kty", "x", "y"] {
            let value = confirmed["jwk"][member].as_str().context("a text")?;
            assert!(svid.wit_svid_key.contains(&format!("{member:?}:{value:?}")), "{member}");
        }
        assert!(svid.wit_svid_key.contains("\"d\":"), "the key is private");
        let mut kids = bundle.wit_authorities.iter().map(|authority| authority.kid());
        let kid = kids.find(|kid| {
            let only = Bundle {
                wit_authorities: bundle.wit_authority(kid).cloned().into_iter().collect(),
                ..Bundle::new(trust_domain())
            };
            validate_wit_svid(&svid.wit_svid, &only, &WitValidation::new(SystemClock.now())).is_ok()
        });
        found.push((svid.spiffe_id.clone(), kid.context("no key vouches for it")?.to_owned()));
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn wap_64_wap_66_wap_71_wap_73_an_entry_reaches_an_open_stream_and_its_deletion_ends_the_last_one()
-> Result<()> {
    let mut domain = domain(600).await?;
    let node = domain.node("node").await?;
    let first = domain.register(&node.id, "/first", &[&own_uid()]).await?;
    let (mut stream, message) = served(&node).await?;
    assert_eq!(verified(&node, &message).await?[0].0, id("/first").to_string());

    let second = domain.register(&node.id, "/second", &[&own_uid()]).await?;
    let message = loop {
        let message = next(&mut stream).await?;
        if message.svids.len() == 2 {
            break message;
        }
    };
    let mut both: Vec<_> = verified(&node, &message).await?.into_iter().map(|(id, _)| id).collect();
    both.sort();
    assert_eq!(both, [id("/first").to_string(), id("/second").to_string()]);

    domain.unregister(&first).await?;
    let message = next(&mut stream).await?;
    assert_eq!(verified(&node, &message).await?[0].0, id("/second").to_string());
    domain.unregister(&second).await?;
    let status =
        tokio::time::timeout(PATIENCE, stream.message()).await?.expect_err("nothing is left to serve");
    assert_eq!(status.code(), Code::PermissionDenied);
    node.stop().await?;
    domain.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_stream_sees_renewals_each_with_a_new_key() -> Result<()> {
    let mut domain = domain(600).await?;
    let node = domain.node("node").await?;
    let short = types::Entry { x509_svid_ttl: 4, ..entry(&node.id, "/web", &[&own_uid()])? };
    domain.register_with(short).await?;
    let (mut stream, mut message) = served(&node).await?;
    let mut keys = std::collections::BTreeSet::new();
    while keys.len() < 3 {
        verified(&node, &message).await?;
        keys.insert(message.svids[0].wit_svid_key.clone());
        message = next(&mut stream).await?;
    }
    node.stop().await?;
    domain.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tainted_authority_is_replaced_in_every_stream_and_then_revoked() -> Result<()> {
    let mut domain = domain(600).await?;
    let node = domain.node("node").await?;
    domain.register(&node.id, "/web", &[&own_uid()]).await?;
    let (mut stream, message) = served(&node).await?;
    let first = verified(&node, &message).await?[0].1.clone();
    let mut client = LocalAuthorityClient::new(domain.admin().await?);
    let prepared = client.prepare_wit_authority(authority::PrepareWitAuthorityRequest {}).await?.into_inner();
    let second = prepared.prepared_authority.context("an authority")?.authority_id;
    client
        .activate_wit_authority(authority::ActivateWitAuthorityRequest { authority_id: second.clone() })
        .await?;
    client.taint_wit_authority(authority::TaintWitAuthorityRequest { authority_id: first.clone() }).await?;
    let message = next(&mut stream).await?;
    assert_eq!(verified(&node, &message).await?[0].1, second, "signed by the new one");
    client.revoke_wit_authority(authority::RevokeWitAuthorityRequest { authority_id: first.clone() }).await?;
    let gone = async {
        while bundle(&node).await?.wit_authority(&first).is_some() {}
        Ok::<_, anyhow::Error>(())
    };
    tokio::time::timeout(PATIENCE, gone).await??;
    verified(&node, &message).await?;
    node.stop().await?;
    domain.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn wap_62_gen_05_without_the_flag_both_methods_are_unimplemented() -> Result<()> {
    let mut domain = Domain::start(StoreKind::Memory, 3600, 600).await?;
    let node = domain.node("node").await?;
    domain.register(&node.id, "/web", &[&own_uid()]).await?;
    node.served_stream().await?;
    assert_eq!(stream(&node).await.expect_err("there are none").code(), Code::Unimplemented);
    let mut client = SpiffeWorkloadApiClient::new(connect_unix(&node.socket_path).await?);
    let refused = client.fetch_wit_bundles(with_header(WitBundlesRequest {})).await;
    assert_eq!(refused.expect_err("there are none").code(), Code::Unimplemented);
    node.stop().await?;
    domain.stop().await
}
