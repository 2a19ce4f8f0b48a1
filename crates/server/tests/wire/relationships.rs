//! Federation relationships: made, changed, listed, deleted and refused, and the bundles that come with them.

use spindle_proto::convert::bundle_to_proto;
use spindle_proto::refusal::item_ok;
use spindle_proto::spire::api::server::bundle::v1::GetFederatedBundleRequest;
use spindle_proto::spire::api::server::trustdomain::v1 as wire;
use spindle_proto::spire::api::types;
use spindle_proto::spire::api::types::federation_relationship::BundleEndpointProfile as Profile;
use spindle_server::StoreKind;
use spindle_spiffe_core::{Bundle, Reason};
use spindle_testkit::{NOW, TestAuthority};
use tonic::{Code, Status};

use crate::support::{TestServer, code_of, expect_refusal, in_time};

type Item = (types::Status, Option<types::FederationRelationship>);

fn web(name: &str) -> types::FederationRelationship {
    types::FederationRelationship {
        trust_domain: name.into(),
        bundle_endpoint_url: format!("https://{name}/bundle"),
        bundle_endpoint_profile: Some(Profile::HttpsWeb(types::HttpsWebProfile {})),
        trust_domain_bundle: None,
    }
}

fn spiffe(endpoint_spiffe_id: &str) -> Option<Profile> {
    Some(Profile::HttpsSpiffe(types::HttpsspiffeProfile { endpoint_spiffe_id: endpoint_spiffe_id.into() }))
}

fn bundle(name: &str, sequence: u64) -> types::Bundle {
    bundle_to_proto(&Bundle { sequence, ..TestAuthority::new(name, NOW).bundle() })
}

async fn create(server: &TestServer, relationships: Vec<types::FederationRelationship>) -> Vec<Item> {
    let request = wire::BatchCreateFederationRelationshipRequest {
        federation_relationships: relationships,
        output_mask: None,
    };
    let answer = in_time(server.trust_domains().await.batch_create_federation_relationship(request)).await;
    let results = answer.unwrap().into_inner().results;
    results.into_iter().map(|item| (item.status.unwrap(), item.federation_relationship)).collect()
}

async fn update(
    server: &TestServer,
    relationship: types::FederationRelationship,
    input_mask: Option<types::FederationRelationshipMask>,
) -> Item {
    let request = wire::BatchUpdateFederationRelationshipRequest {
        federation_relationships: vec![relationship],
        input_mask,
        output_mask: None,
    };
    let answer = in_time(server.trust_domains().await.batch_update_federation_relationship(request)).await;
    let item = answer.unwrap().into_inner().results.remove(0);
    (item.status.unwrap(), item.federation_relationship)
}

async fn delete(server: &TestServer, name: &str) -> (types::Status, String) {
    let request = wire::BatchDeleteFederationRelationshipRequest { trust_domains: vec![name.into()] };
    let answer = in_time(server.trust_domains().await.batch_delete_federation_relationship(request)).await;
    let item = answer.unwrap().into_inner().results.remove(0);
    (item.status.unwrap(), item.trust_domain)
}

async fn get(server: &TestServer, name: &str) -> Result<types::FederationRelationship, Status> {
    let request = wire::GetFederationRelationshipRequest { trust_domain: name.into(), output_mask: None };
    Ok(server.trust_domains().await.get_federation_relationship(request).await?.into_inner())
}

async fn stored_bundle(server: &TestServer, name: &str) -> Result<types::Bundle, Status> {
    let request = GetFederatedBundleRequest { trust_domain: name.into(), output_mask: None };
    Ok(server.bundles().await.get_federated_bundle(request).await?.into_inner())
}

#[track_caller]
fn check_item(status: &types::Status, code: Code, reason: Reason, says: &str) {
    assert_eq!(Code::from(status.code), code, "{status:?}");
    assert_eq!(status.reason, reason.code(), "{status:?}");
    assert!(status.message.contains(says), "{says}: {status:?}");
}

#[tokio::test]
async fn a_relationship_is_made_once_and_comes_back_as_it_was_given() {
    let server = TestServer::start().await;
    let with_spiffe = types::FederationRelationship {
        bundle_endpoint_profile: spiffe("spiffe://endpoint.example/server"),
        ..web("b.example")
    };
    let given = vec![web("a.example"), with_spiffe];
    let items = create(&server, given.clone()).await;
    assert_eq!(items, given.iter().map(|one| (item_ok(), Some(one.clone()))).collect::<Vec<_>>());
    for one in &given {
        assert_eq!(&get(&server, &one.trust_domain).await.unwrap(), one);
        assert_eq!(&get(&server, &format!("spiffe://{}", one.trust_domain)).await.unwrap(), one);
    }
    let other =
        types::FederationRelationship { bundle_endpoint_url: "https://x/".into(), ..web("a.example") };
    let (status, none) = create(&server, vec![other]).await.remove(0);
    check_item(&status, Code::AlreadyExists, Reason::RelationshipExists, "already exists");
    assert_eq!((none, get(&server, "a.example").await.unwrap()), (None, given[0].clone()));
}

#[tokio::test]
async fn a_bundle_that_comes_along_becomes_the_trust_domains() {
    let server = TestServer::start().await;
    let (first, second) = (bundle("other.example", 1), bundle("other.example", 2));
    let with = |bundle: &types::Bundle| types::FederationRelationship {
        trust_domain_bundle: Some(bundle.clone()),
        ..web("other.example")
    };
    create(&server, vec![with(&first)]).await;
    assert_eq!(stored_bundle(&server, "other.example").await.unwrap(), first);
    assert_eq!(get(&server, "other.example").await.unwrap(), with(&first));
    assert_eq!(update(&server, with(&second), None).await, (item_ok(), Some(with(&second))));
    assert_eq!(stored_bundle(&server, "other.example").await.unwrap(), second);
    // Without one, and with one that the mask leaves out, it stays.
    update(&server, web("other.example"), None).await;
    let url_only = types::FederationRelationshipMask { bundle_endpoint_url: true, ..Default::default() };
    update(&server, with(&first), Some(url_only)).await;
    assert_eq!(stored_bundle(&server, "other.example").await.unwrap(), second);
    // It also stays when the relationship goes, and shows in the next one.
    assert_eq!(delete(&server, "other.example").await, (item_ok(), "other.example".into()));
    assert_eq!(stored_bundle(&server, "other.example").await.unwrap(), second);
    assert_eq!(create(&server, vec![web("other.example")]).await, [(item_ok(), Some(with(&second)))]);
}

#[tokio::test]
async fn a_relationship_that_cannot_be_made_leaves_no_bundle_behind() {
    let server = TestServer::start().await;
    create(&server, vec![web("other.example")]).await;
    let with = types::FederationRelationship {
        trust_domain_bundle: Some(bundle("other.example", 1)),
        ..web("other.example")
    };
    let (status, _) = create(&server, vec![with]).await.remove(0);
    check_item(&status, Code::AlreadyExists, Reason::RelationshipExists, "already exists");
    let none = stored_bundle(&server, "other.example").await;
    expect_refusal(none, Code::NotFound, Reason::BundleNotFound);
}

#[tokio::test]
async fn an_update_changes_what_its_mask_names_and_needs_a_relationship() {
    let server = TestServer::start().await;
    let (status, _) = update(&server, web("other.example"), None).await;
    check_item(&status, Code::NotFound, Reason::RelationshipNotFound, "federation relationship not found");
    create(&server, vec![web("other.example")]).await;
    let new = types::FederationRelationship {
        bundle_endpoint_url: "https://new.example:8443/".into(),
        bundle_endpoint_profile: spiffe("spiffe://other.example/endpoint"),
        ..web("other.example")
    };
    let mask = types::FederationRelationshipMask::default();
    assert_eq!(update(&server, new.clone(), Some(mask)).await.1, Some(web("other.example")));
    let mask = types::FederationRelationshipMask { bundle_endpoint_url: true, ..mask };
    let half = types::FederationRelationship {
        bundle_endpoint_url: new.bundle_endpoint_url.clone(),
        ..web("other.example")
    };
    assert_eq!(update(&server, new.clone(), Some(mask)).await.1, Some(half));
    let mask = types::FederationRelationshipMask { bundle_endpoint_profile: true, ..Default::default() };
    assert_eq!(update(&server, new.clone(), Some(mask)).await.1, Some(new.clone()));
    assert_eq!(update(&server, web("other.example"), None).await.1, Some(web("other.example")));
    // What the mask leaves out has to be well formed too, as in SPIRE.
    let bad = types::FederationRelationship { bundle_endpoint_profile: None, ..new };
    let mask = types::FederationRelationshipMask { bundle_endpoint_url: true, ..Default::default() };
    let (status, _) = update(&server, bad, Some(mask)).await;
    check_item(&status, Code::InvalidArgument, Reason::BadRequest, "bundle endpoint profile");
}

#[tokio::test]
async fn bad_relationships_are_refused_one_by_one_and_change_nothing() {
    let server = TestServer::start().await;
    create(&server, vec![web("other.example")]).await;
    let bad = |change: &dyn Fn(&mut types::FederationRelationship)| {
        let mut relationship = web("other.example");
        change(&mut relationship);
        relationship
    };
    let url = |url: &str| {
        let url = url.to_owned();
        bad(&move |one| one.bundle_endpoint_url = url.clone())
    };
    let cases = [
        (bad(&|one| one.trust_domain.clear()), "trust domain"),
        (bad(&|one| one.trust_domain = "Other".into()), "trust domain"),
        (url(""), "bundle endpoint URL"),
        (url("http://other.example"), "must use the https scheme"),
        (url("other.example/bundle"), "bundle endpoint URL"),
        (url("https:///bundle"), "must specify the host"),
        (url("https://user:secret@other.example"), "must not contain user info"),
        (url("https://other.example:0"), "port"),
        (url("https://other.example/\n"), "percent-encoded"),
        (bad(&|one| one.bundle_endpoint_profile = None), "bundle endpoint profile"),
        (bad(&|one| one.bundle_endpoint_profile = spiffe("")), "endpoint SPIFFE ID"),
        (bad(&|one| one.bundle_endpoint_profile = spiffe("https://x")), "endpoint SPIFFE ID"),
        (bad(&|one| one.trust_domain_bundle = Some(bundle("third.example", 1))), "that of third.example"),
        (bad(&|one| one.trust_domain_bundle = Some(types::Bundle::default())), "trust domain"),
    ];
    for (relationship, says) in cases {
        let created = create(&server, vec![relationship.clone(), web("good.example")]).await;
        check_item(&created[0].0, Code::InvalidArgument, Reason::BadRequest, says);
        assert!(created[0].0.message.starts_with("failed to convert federation relationship: "));
        assert!(!created[0].0.message.contains("secret"), "{:?}", created[0].0);
        assert_eq!(created[1].0, item_ok(), "the rest of a batch goes on");
        let (status, none) = update(&server, relationship, None).await;
        check_item(&status, Code::InvalidArgument, Reason::BadRequest, says);
        assert_eq!(none, None);
        delete(&server, "good.example").await;
    }
    assert_eq!(get(&server, "other.example").await.unwrap(), web("other.example"));
}

#[tokio::test]
async fn nobody_has_a_relationship_with_himself() {
    let server = TestServer::start().await;
    let with = types::FederationRelationship {
        trust_domain_bundle: Some(bundle("example.org", 99)),
        ..web("example.org")
    };
    let before = server.bundle().await;
    let (status, _) = create(&server, vec![with.clone()]).await.remove(0);
    check_item(&status, Code::InvalidArgument, Reason::OwnTrustDomain, "for server trust domain");
    let (status, _) = update(&server, with, None).await;
    check_item(&status, Code::NotFound, Reason::RelationshipNotFound, "not found");
    assert_eq!(server.bundle().await, before);
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_what_is_no_name_is_refused() {
    let server = TestServer::start().await;
    let message =
        expect_refusal(get(&server, "none.example").await, Code::NotFound, Reason::RelationshipNotFound);
    assert_eq!(message, "federation relationship does not exist");
    let (status, name) = delete(&server, "spiffe://none.example").await;
    check_item(&status, Code::NotFound, Reason::RelationshipNotFound, "federation relationship not found");
    assert_eq!(name, "none.example");
    let (status, _) = delete(&server, "").await;
    check_item(&status, Code::InvalidArgument, Reason::BadRequest, "missing trust domain");
    for bad in ["Other", "spiffe://", "a b"] {
        let (status, name) = delete(&server, bad).await;
        check_item(&status, Code::InvalidArgument, Reason::BadRequest, "failed to parse trust domain");
        assert_eq!(name, bad);
        let message = expect_refusal(get(&server, bad).await, Code::InvalidArgument, Reason::BadRequest);
        assert!(message.contains("failed to parse trust domain"), "{message}");
    }
}

#[tokio::test]
async fn relationships_are_listed_in_pages() {
    let server = TestServer::start().await;
    let names = ["a.example", "b.example", "c.example"];
    create(&server, names.map(web).to_vec()).await;
    server.set_bundle(&TestAuthority::new("b.example", NOW).bundle()).await;
    let list = async |page_size, page_token: &str, output_mask| {
        let page_token = page_token.to_owned();
        let request = wire::ListFederationRelationshipsRequest { output_mask, page_size, page_token };
        let page = server.trust_domains().await.list_federation_relationships(request).await;
        page.map(|page| page.into_inner()).map(|page| (page.federation_relationships, page.next_page_token))
    };
    let (all, token) = list(0, "", None).await.unwrap();
    assert_eq!(all.iter().map(|one| one.trust_domain.as_str()).collect::<Vec<_>>(), names);
    let bundles: Vec<bool> = all.iter().map(|one| one.trust_domain_bundle.is_some()).collect();
    assert_eq!((bundles, token.as_str()), (vec![false, true, false], ""));
    let (first, token) = list(2, "", None).await.unwrap();
    let (second, token) = list(2, &token, None).await.unwrap();
    let (third, end) = list(2, &token, None).await.unwrap();
    assert_eq!(([first, second].concat(), third.len(), end.as_str()), (all, 0, ""));
    let (bare, _) = list(0, "", Some(types::FederationRelationshipMask::default())).await.unwrap();
    let expected = types::FederationRelationship { trust_domain: "b.example".into(), ..Default::default() };
    assert_eq!(bare[1], expected);
    let message = expect_refusal(list(1, "not a token", None).await, Code::Internal, Reason::BadRequest);
    assert!(message.contains("could not parse token"), "{message}");
}

#[tokio::test]
async fn a_refresh_says_what_is_missing_for_it() {
    let server = TestServer::start().await;
    let refresh = async |name: &str| {
        let request = wire::RefreshBundleRequest { trust_domain: name.into() };
        server.trust_domains().await.refresh_bundle(request).await
    };
    let message =
        expect_refusal(refresh("other.example").await, Code::NotFound, Reason::RelationshipNotFound);
    assert_eq!(message, "no relationship with trust domain \"other.example\"");
    // A bundle alone is managed by nobody.
    server.set_bundle(&TestAuthority::new("other.example", NOW).bundle()).await;
    expect_refusal(refresh("other.example").await, Code::NotFound, Reason::RelationshipNotFound);
    create(&server, vec![web("other.example")]).await;
    let message = expect_refusal(refresh("other.example").await, Code::Unimplemented, Reason::NotSupported);
    assert!(message.contains("does not fetch bundles yet"), "{message}");
    expect_refusal(refresh("Other").await, Code::InvalidArgument, Reason::BadRequest);
}

#[tokio::test]
async fn a_batch_of_too_many_items_is_refused_whole() {
    let server = TestServer::start().await;
    let mut client = server.trust_domains().await;
    let many = vec![types::FederationRelationship::default(); 10_001];
    let create = wire::BatchCreateFederationRelationshipRequest {
        federation_relationships: many.clone(),
        output_mask: None,
    };
    let create = client.batch_create_federation_relationship(create).await;
    expect_refusal(create, Code::InvalidArgument, Reason::MessageTooLarge);
    let update = wire::BatchUpdateFederationRelationshipRequest {
        federation_relationships: many,
        ..Default::default()
    };
    let update = client.batch_update_federation_relationship(update).await;
    expect_refusal(update, Code::InvalidArgument, Reason::MessageTooLarge);
    let trust_domains = vec![String::new(); 10_001];
    let delete = wire::BatchDeleteFederationRelationshipRequest { trust_domains };
    let delete = client.batch_delete_federation_relationship(delete).await;
    expect_refusal(delete, Code::InvalidArgument, Reason::MessageTooLarge);
}

#[tokio::test]
async fn relationships_are_there_again_after_a_restart() {
    let mut server = TestServer::start_with(|config| config.store.kind = StoreKind::Sled).await;
    let kept = types::FederationRelationship {
        bundle_endpoint_profile: spiffe("spiffe://other.example/endpoint"),
        trust_domain_bundle: Some(bundle("other.example", 4)),
        ..web("other.example")
    };
    create(&server, vec![kept.clone(), web("gone.example")]).await;
    delete(&server, "gone.example").await;
    server.restart().await;
    assert_eq!(get(&server, "other.example").await.unwrap(), kept);
    expect_refusal(get(&server, "gone.example").await, Code::NotFound, Reason::RelationshipNotFound);
}

#[tokio::test]
async fn of_many_who_make_the_same_relationship_at_once_one_does() {
    let server = TestServer::start().await;
    let tries = (0..8).map(|n| {
        let url = format!("https://other.example/{n}");
        create(
            &server,
            vec![types::FederationRelationship { bundle_endpoint_url: url, ..web("other.example") }],
        )
    });
    let items: Vec<Item> = futures_util::future::join_all(tries).await.into_iter().flatten().collect();
    let made: Vec<&Item> = items.iter().filter(|(status, _)| status.code == 0).collect();
    assert_eq!(made.len(), 1, "{items:?}");
    assert_eq!(Some(get(&server, "other.example").await.unwrap()), made[0].1);
    let codes: Vec<Code> = items.iter().map(|(status, _)| code_of(&Some(status.clone()))).collect();
    assert_eq!(codes.iter().filter(|code| **code == Code::AlreadyExists).count(), 7, "{codes:?}");
}
