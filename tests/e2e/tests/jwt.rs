//! The JWT profile with a real server: tokens, keys, validation, a rotation of the authority, a server that is away.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use spindle_e2e::{Domain, Node, PATIENCE, WorkloadClient, entry, id, own_uid, with_header};
use spindle_proto::refusal::reason_of;
use spindle_proto::spire::api::server::localauthority::v1 as authority;
use spindle_proto::spire::api::server::localauthority::v1::local_authority_client::LocalAuthorityClient;
use spindle_proto::spire::api::types::entry::AdditionalAttributes;
use spindle_proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, Jwtsvid, JwtsvidRequest, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse,
};
use spindle_runtime::SystemClock;
use spindle_server::StoreKind;
use spindle_spiffe_core::bundle_document::parse;
use spindle_spiffe_core::{Bundle, Clock, JwtValidation, validate_jwt_svid};
use tonic::{Code, Status, Streaming};

async fn fetch(client: &mut WorkloadClient, audience: &[&str]) -> Result<Vec<Jwtsvid>, Status> {
    let audience = audience.iter().map(|one| (*one).to_owned()).collect();
    let request = JwtsvidRequest { audience, spiffe_id: String::new() };
    Ok(client.fetch_jwtsvid(with_header(request)).await?.into_inner().svids)
}

/// Fetches until the agent knows this process's entries.
async fn served(client: &mut WorkloadClient, audience: &[&str], count: usize) -> Result<Vec<Jwtsvid>> {
    let attempts = async {
        loop {
            match fetch(client, audience).await {
                Ok(svids) if svids.len() == count => return Ok(svids),
                Err(status) if status.code() != Code::PermissionDenied => return Err(status.into()),
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, attempts).await.context("this process is not served in time")?
}

async fn validate(
    client: &mut WorkloadClient,
    audience: &str,
    svid: &str,
) -> Result<ValidateJwtsvidResponse, Status> {
    let request = ValidateJwtsvidRequest { audience: audience.into(), svid: svid.into() };
    Ok(client.validate_jwtsvid(with_header(request)).await?.into_inner())
}

async fn bundles(client: &mut WorkloadClient) -> Result<Streaming<JwtBundlesResponse>> {
    Ok(client.fetch_jwt_bundles(with_header(JwtBundlesRequest {})).await?.into_inner())
}

/// The next set of keys that differs from the last, read as another implementation would: only `use` is added, which a
/// bundle document needs.
async fn keys(stream: &mut Streaming<JwtBundlesResponse>) -> Result<Bundle> {
    let message = tokio::time::timeout(PATIENCE, stream.message()).await??.context("the stream has ended")?;
    let text = std::str::from_utf8(&message.bundles["spiffe://example.org"])?;
    let document = text.replace("\"kid\"", "\"use\": \"jwt-svid\", \"kid\"");
    Ok(parse(spindle_e2e::trust_domain(), document.as_bytes())?.bundle)
}

/// The id of the key that signed the token, having checked it with `bundle`.
fn check(token: &str, audience: &str, bundle: &Bundle) -> Result<String> {
    let how = JwtValidation::new([audience], SystemClock.now())?;
    let validated = validate_jwt_svid(token, bundle, &how)?;
    assert_eq!(validated.spiffe_id(), &id("/web"));
    Ok(validated.key_id().to_owned())
}

async fn domain_and_node(kind: StoreKind) -> Result<(Domain, Node, WorkloadClient)> {
    let domain = Domain::start(kind, 3600, 600).await?;
    let node = domain.node("node").await?;
    let client = node.workload().await?;
    Ok((domain, node, client))
}

#[tokio::test(flavor = "multi_thread")]
async fn wap_02_wap_40_tokens_of_a_real_server_pass_here_and_at_the_agent_and_nowhere_else() -> Result<()> {
    let (mut domain, node, mut client) = domain_and_node(StoreKind::Memory).await?;
    domain.register(&node.id, "/web", &[&own_uid()]).await?;
    let token = served(&mut client, &["db", "cache"], 1).await?.remove(0).svid;
    let bundle = keys(&mut bundles(&mut client).await?).await?;
    for audience in ["db", "cache"] {
        check(&token, audience, &bundle)?;
        let answer = validate(&mut client, audience, &token).await?;
        assert_eq!(answer.spiffe_id, id("/web").to_string());
    }
    let status = validate(&mut client, "other", &token).await.expect_err("it is for others");
    assert_eq!(
        (status.code(), reason_of(&status).as_deref()),
        (Code::InvalidArgument, Some("token_audience"))
    );
    assert!(check(&token, "other", &bundle).is_err());
    let again = fetch(&mut client, &["cache", "db"]).await?.remove(0).svid;
    assert_eq!(again, token, "one audience is one token");
    node.stop().await?;
    domain.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_with_jti_gives_another_token_at_each_call() -> Result<()> {
    let (mut domain, node, mut client) = domain_and_node(StoreKind::Memory).await?;
    let mut with_jti = entry(&node.id, "/web", &[&own_uid()])?;
    with_jti.additional_attributes =
        Some(AdditionalAttributes { jwt_svid_include_jti: true, ..Default::default() });
    domain.register_with(with_jti).await?;
    let mut tokens = BTreeSet::from([served(&mut client, &["db"], 1).await?.remove(0).svid]);
    for _ in 0..3 {
        tokens.insert(fetch(&mut client, &["db"]).await?.remove(0).svid);
    }
    assert_eq!(tokens.len(), 4);
    node.stop().await?;
    domain.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taint_of_the_jwt_authority_makes_the_agent_drop_its_tokens_and_a_revocation_ends_the_old_ones()
-> Result<()> {
    let (mut domain, node, mut client) = domain_and_node(StoreKind::Memory).await?;
    domain.register(&node.id, "/web", &[&own_uid()]).await?;
    let old = served(&mut client, &["db"], 1).await?.remove(0).svid;
    let mut stream = bundles(&mut client).await?;
    let old_kid = check(&old, "db", &keys(&mut stream).await?)?;

    let mut admin = LocalAuthorityClient::new(domain.admin().await?);
    let prepared = admin.prepare_jwt_authority(authority::PrepareJwtAuthorityRequest {}).await?.into_inner();
    let new_kid = prepared.prepared_authority.context("a prepared authority")?.authority_id;
    let both = keys(&mut stream).await?;
    assert!(both.jwt_authority(&new_kid).is_some(), "published before it signs");
    let activate = authority::ActivateJwtAuthorityRequest { authority_id: new_kid.clone() };
    admin.activate_jwt_authority(activate).await?;
    assert_eq!(fetch(&mut client, &["db"]).await?[0].svid, old, "it is still good");
    let taint = authority::TaintJwtAuthorityRequest { authority_id: old_kid.clone() };
    admin.taint_jwt_authority(taint).await?;
    let replaced = async {
        loop {
            let token = fetch(&mut client, &["db"]).await?.remove(0).svid;
            if token != old {
                return anyhow::Ok(token);
            }
        }
    };
    let new = tokio::time::timeout(PATIENCE, replaced).await.context("the old token stays")??;
    assert_eq!(check(&new, "db", &both)?, new_kid);
    validate(&mut client, "db", &old).await?;

    let revoke = authority::RevokeJwtAuthorityRequest { authority_id: old_kid.clone() };
    admin.revoke_jwt_authority(revoke).await?;
    let rest = keys(&mut stream).await?;
    assert!(rest.jwt_authority(&old_kid).is_none());
    assert!(check(&old, "db", &rest).is_err());
    let status = validate(&mut client, "db", &old).await.expect_err("its key is gone");
    assert_eq!(
        (status.code(), reason_of(&status).as_deref()),
        (Code::InvalidArgument, Some("token_not_trusted"))
    );
    check(&new, "db", &rest)?;
    node.stop().await?;
    domain.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_server_is_away_held_tokens_serve_and_others_are_unavailable_until_it_is_back() -> Result<()>
{
    let (mut domain, node, mut client) = domain_and_node(StoreKind::Sled).await?;
    domain.register(&node.id, "/web", &[&own_uid()]).await?;
    let held = served(&mut client, &["db"], 1).await?.remove(0).svid;
    domain.stop().await?;
    assert_eq!(fetch(&mut client, &["db"]).await?[0].svid, held);
    let mut waiting = node.workload().await?;
    let (later, restarted) = tokio::join!(fetch(&mut waiting, &["late"]), domain.restart());
    restarted?;
    // Within the time of one call the agent tries again: either it had its token, or was told to come back.
    match later {
        Ok(svids) => assert_eq!(svids.len(), 1),
        Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
    }
    let back = async { while fetch(&mut client, &["late"]).await.is_err() {} };
    tokio::time::timeout(PATIENCE, back).await.context("the server is back")?;
    node.stop().await?;
    domain.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn wap_41_wap_45_wap_79_several_identities_come_in_the_order_of_entry_ids_with_one_hint_each()
-> Result<()> {
    let (mut domain, node, mut client) = domain_and_node(StoreKind::Memory).await?;
    for (entry_id, path) in [("b", "/second"), ("a", "/first"), ("c", "/third")] {
        let mut one = entry(&node.id, path, &[&own_uid()])?;
        (one.id, one.hint) = (entry_id.into(), "internal".into());
        domain.register_with(one).await?;
    }
    for _ in 0..2 {
        let svids = served(&mut client, &["db"], 3).await?;
        let ids: Vec<String> = svids.iter().map(|svid| svid.spiffe_id.clone()).collect();
        assert_eq!(ids, ["/first", "/second", "/third"].map(|path| id(path).to_string()));
        let hints: Vec<&str> = svids.iter().map(|svid| &*svid.hint).filter(|hint| !hint.is_empty()).collect();
        assert_eq!(hints, ["internal"]);
        let (_stream, x509) = node.served_stream().await?;
        let of_x509: Vec<&str> = x509.svids.iter().map(|svid| &*svid.hint).collect();
        let of_jwt: Vec<&str> = svids.iter().map(|svid| &*svid.hint).collect();
        assert_eq!(of_x509, of_jwt, "both profiles show the hint at the same identity");
        assert!(x509.crl.is_empty(), "no bundle has a revocation list");
    }
    node.stop().await?;
    domain.stop().await
}
