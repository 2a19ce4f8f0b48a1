//! The bundles of other trust domains: how they are made, changed, listed and deleted, and what is refused. Also what is
//! added to the server's own.

use spindle_proto::convert::bundle_to_proto;
use spindle_proto::refusal::item_ok;
use spindle_proto::spire::api::server::bundle::v1 as wire;
use spindle_proto::spire::api::types;
use spindle_server::StoreKind;
use spindle_spiffe_core::{Bundle, Reason};
use spindle_testkit::{NOW, TestAuthority};
use tonic::{Code, Status};
use wire::batch_delete_federated_bundle_request::Mode;

use crate::support::{TestServer, code_of, expect_refusal, in_time};

/// One item of a batch: status and bundle.
type Item = (types::Status, Option<types::Bundle>);

/// What a batch does with its bundles.
#[derive(Clone, Copy, Debug)]
enum Verb {
    Create,
    Update,
    Set,
}

const VERBS: [Verb; 3] = [Verb::Create, Verb::Update, Verb::Set];

/// A bundle with one root.
fn bundle(name: &str, sequence: u64) -> types::Bundle {
    bundle_to_proto(&Bundle {
        sequence,
        refresh_hint_secs: Some(60),
        ..TestAuthority::new(name, NOW).bundle()
    })
}

fn jwt_key(kid: &str) -> types::JwtKey {
    let key = spindle_keys::Key::generate(spindle_keys::KeyType::EcP256).unwrap();
    types::JwtKey {
        public_key: key.spki_der().to_vec().into(),
        key_id: kid.into(),
        expires_at: 0,
        tainted: false,
    }
}

fn wit_key(kid: &str) -> types::WitKey {
    let types::JwtKey { public_key, key_id, expires_at, tainted } = jwt_key(kid);
    types::WitKey { public_key, key_id, expires_at, tainted }
}

async fn send(server: &TestServer, verb: Verb, bundle: Vec<types::Bundle>) -> Result<Vec<Item>, Status> {
    send_masked(server, verb, bundle, None, None).await
}

async fn send_masked(
    server: &TestServer,
    verb: Verb,
    bundle: Vec<types::Bundle>,
    input_mask: Option<types::BundleMask>,
    output_mask: Option<types::BundleMask>,
) -> Result<Vec<Item>, Status> {
    let mut client = server.bundles().await;
    Ok(match verb {
        Verb::Create => {
            let request = wire::BatchCreateFederatedBundleRequest { bundle, output_mask };
            let results = in_time(client.batch_create_federated_bundle(request)).await?.into_inner().results;
            results.into_iter().map(|item| (item.status.unwrap(), item.bundle)).collect()
        }
        Verb::Update => {
            let request = wire::BatchUpdateFederatedBundleRequest { bundle, input_mask, output_mask };
            let results = in_time(client.batch_update_federated_bundle(request)).await?.into_inner().results;
            results.into_iter().map(|item| (item.status.unwrap(), item.bundle)).collect()
        }
        Verb::Set => {
            let request = wire::BatchSetFederatedBundleRequest { bundle, output_mask };
            let results = in_time(client.batch_set_federated_bundle(request)).await?.into_inner().results;
            results.into_iter().map(|item| (item.status.unwrap(), item.bundle)).collect()
        }
    })
}

async fn one(server: &TestServer, verb: Verb, bundle: types::Bundle) -> Item {
    send(server, verb, vec![bundle]).await.unwrap().remove(0)
}

async fn get(server: &TestServer, name: &str) -> Result<types::Bundle, Status> {
    let request = wire::GetFederatedBundleRequest { trust_domain: name.into(), output_mask: None };
    Ok(server.bundles().await.get_federated_bundle(request).await?.into_inner())
}

async fn list(
    server: &TestServer,
    page_size: i32,
    page_token: &str,
) -> Result<(Vec<String>, String), Status> {
    let request =
        wire::ListFederatedBundlesRequest { page_size, page_token: page_token.into(), ..Default::default() };
    let page = server.bundles().await.list_federated_bundles(request).await?.into_inner();
    Ok((page.bundles.into_iter().map(|bundle| bundle.trust_domain).collect(), page.next_page_token))
}

#[track_caller]
fn check_item(item: &Item, code: Code, reason: Reason, says: &str) {
    let (status, bundle) = item;
    assert_eq!(Code::from(status.code), code, "{status:?}");
    assert_eq!(status.reason, reason.code(), "{status:?}");
    assert!(status.message.contains(says), "{says}: {status:?}");
    assert_eq!(bundle, &None, "a refused item carries none");
}

#[tokio::test]
async fn a_bundle_is_made_once_and_comes_back_as_it_was_given() {
    let server = TestServer::start().await;
    let mut given = bundle("other.example", 7);
    given.jwt_authorities = vec![jwt_key("one")];
    assert_eq!(one(&server, Verb::Create, given.clone()).await, (item_ok(), Some(given.clone())));
    assert_eq!(get(&server, "other.example").await.unwrap(), given);
    let again = one(&server, Verb::Create, bundle("other.example", 8)).await;
    check_item(&again, Code::AlreadyExists, Reason::BundleExists, "bundle already exists");
    assert_eq!(get(&server, "other.example").await.unwrap(), given, "the first stays");
}

#[tokio::test]
async fn setting_makes_a_bundle_or_replaces_all_of_it() {
    let server = TestServer::start().await;
    let mut first = bundle("other.example", 7);
    first.jwt_authorities = vec![jwt_key("one")];
    assert_eq!(one(&server, Verb::Set, first.clone()).await, (item_ok(), Some(first)));
    let second = types::Bundle { refresh_hint: 0, ..bundle("other.example", 3) };
    assert_eq!(one(&server, Verb::Set, second.clone()).await, (item_ok(), Some(second.clone())));
    assert_eq!(get(&server, "other.example").await.unwrap(), second, "a sequence number may fall");
    let empty = types::Bundle { trust_domain: "other.example".into(), ..Default::default() };
    assert_eq!(one(&server, Verb::Set, empty.clone()).await, (item_ok(), Some(empty)));
}

#[tokio::test]
async fn an_update_changes_what_its_mask_names_and_needs_a_bundle() {
    let server = TestServer::start().await;
    let missing = one(&server, Verb::Update, bundle("other.example", 1)).await;
    check_item(&missing, Code::NotFound, Reason::BundleNotFound, "bundle not found");
    let first = types::Bundle { jwt_authorities: vec![jwt_key("one")], ..bundle("other.example", 7) };
    one(&server, Verb::Create, first.clone()).await;
    let second = types::Bundle {
        jwt_authorities: vec![jwt_key("two")],
        refresh_hint: 5,
        ..bundle("other.example", 9)
    };
    let update = async |mask| {
        send_masked(&server, Verb::Update, vec![second.clone()], Some(mask), None)
            .await
            .unwrap()
            .remove(0)
            .1
            .unwrap()
    };
    let mut expected = first;
    assert_eq!(update(types::BundleMask::default()).await, expected, "nothing is named");
    expected.sequence_number = 9;
    assert_eq!(update(types::BundleMask { sequence_number: true, ..Default::default() }).await, expected);
    expected.refresh_hint = 5;
    assert_eq!(update(types::BundleMask { refresh_hint: true, ..Default::default() }).await, expected);
    expected.jwt_authorities = second.jwt_authorities.clone();
    assert_eq!(update(types::BundleMask { jwt_authorities: true, ..Default::default() }).await, expected);
    expected.x509_authorities = second.x509_authorities.clone();
    assert_eq!(update(types::BundleMask { x509_authorities: true, ..Default::default() }).await, expected);
    assert_eq!(expected, second);
    let third = bundle("other.example", 10);
    assert_eq!(one(&server, Verb::Update, third.clone()).await.1, Some(third), "no mask means all");
}

#[tokio::test]
async fn keys_that_an_update_brings_together_must_make_a_bundle() {
    let server = TestServer::start().await;
    let other = bundle("other.example", 1);
    let x509_key = {
        let authority =
            spindle_spiffe_core::X509Authority::parse(other.x509_authorities[0].asn1.to_vec().into());
        types::JwtKey { public_key: authority.unwrap().spki_der().to_vec().into(), ..jwt_key("shared") }
    };
    one(&server, Verb::Create, other).await;
    let given = types::Bundle {
        trust_domain: "other.example".into(),
        jwt_authorities: vec![x509_key],
        ..Default::default()
    };
    let mask = types::BundleMask { jwt_authorities: true, ..Default::default() };
    let item = send_masked(&server, Verb::Update, vec![given], Some(mask), None).await.unwrap().remove(0);
    check_item(
        &item,
        Code::InvalidArgument,
        Reason::BadRequest,
        "is also the key of an authority of another",
    );
}

#[tokio::test]
async fn an_output_mask_keeps_the_name_and_what_it_names() {
    let server = TestServer::start().await;
    for (n, verb) in [Verb::Create, Verb::Update, Verb::Set].into_iter().enumerate() {
        let mask = Some(types::BundleMask { sequence_number: true, ..Default::default() });
        let given = bundle("other.example", n as u64 + 1);
        let item = send_masked(&server, verb, vec![given], None, mask).await.unwrap().remove(0);
        let expected = types::Bundle {
            trust_domain: "other.example".into(),
            sequence_number: n as u64 + 1,
            ..Default::default()
        };
        assert_eq!(item, (item_ok(), Some(expected)), "{verb:?}");
    }
}

#[tokio::test]
async fn what_the_sender_says_of_taint_is_passed_over() {
    let server = TestServer::start().await;
    let clean = types::Bundle {
        jwt_authorities: vec![jwt_key("one")],
        wit_authorities: vec![wit_key("two")],
        ..bundle("other.example", 1)
    };
    let mut given = clean.clone();
    given.x509_authorities[0].tainted = true;
    given.jwt_authorities[0].tainted = true;
    given.wit_authorities[0].tainted = true;
    for verb in VERBS {
        assert_eq!(one(&server, verb, given.clone()).await, (item_ok(), Some(clean.clone())), "{verb:?}");
    }
}

#[tokio::test]
async fn the_trust_domain_may_be_given_as_an_id() {
    let server = TestServer::start().await;
    for verb in VERBS {
        let given =
            types::Bundle { trust_domain: "spiffe://other.example".into(), ..bundle("other.example", 1) };
        assert_eq!(one(&server, verb, given).await.1.unwrap().trust_domain, "other.example", "{verb:?}");
    }
    assert_eq!(server.delete_bundle("spiffe://other.example", Mode::Restrict).await, item_ok());
}

#[tokio::test]
async fn bad_bundles_are_refused_one_by_one_and_change_nothing() {
    let server = TestServer::start().await;
    let good = bundle("good.example", 1);
    let bad = |change: fn(&mut types::Bundle)| {
        let mut bundle = bundle("other.example", 1);
        change(&mut bundle);
        bundle
    };
    let cases = [
        (bad(|b| b.trust_domain.clear()), "trust domain argument is not valid"),
        (bad(|b| b.trust_domain = "Other".into()), "trust domain argument is not valid"),
        (bad(|b| b.trust_domain = "spiffe://".into()), "trust domain argument is not valid"),
        (
            bad(|b| b.x509_authorities[0].asn1 = b"junk".as_slice().into()),
            "failed to convert bundle: invalid X.509",
        ),
        (bad(|b| b.x509_authorities[0].asn1.clear()), "invalid X.509 authority"),
        (bad(|b| b.jwt_authorities = vec![jwt_key("")]), "invalid JWT authority"),
        (
            bad(|b| {
                b.jwt_authorities =
                    vec![types::JwtKey { public_key: b"x".as_slice().into(), ..jwt_key("a") }];
            }),
            "invalid JWT authority",
        ),
        (bad(|b| b.jwt_authorities = vec![jwt_key("a"), jwt_key("a")]), "key ID"),
        (bad(|b| b.refresh_hint = -1), "refresh hint"),
    ];
    for verb in VERBS {
        for (bad, says) in &cases {
            check_item(
                &one(&server, verb, bad.clone()).await,
                Code::InvalidArgument,
                Reason::BadRequest,
                says,
            );
        }
        let items = send(&server, verb, vec![cases[0].0.clone(), good.clone()]).await.unwrap();
        let codes: Vec<Code> = items.iter().map(|(status, _)| status.code.into()).collect();
        assert_eq!(codes, [Code::InvalidArgument, Code::Ok], "the rest of a batch goes on: {verb:?}");
    }
    assert_eq!(list(&server, 0, "").await.unwrap().0, ["good.example"]);
}

#[tokio::test]
async fn the_servers_own_bundle_is_not_for_these_calls() {
    let server = TestServer::start().await;
    let before = server.bundle().await;
    for (verb, says) in VERBS.into_iter().zip(["creating a", "updating a", "setting a"]) {
        for name in ["example.org", "spiffe://example.org"] {
            let given = types::Bundle { trust_domain: name.into(), ..bundle("example.org", 99) };
            let item = one(&server, verb, given).await;
            check_item(&item, Code::InvalidArgument, Reason::OwnTrustDomain, says);
        }
    }
    for mode in [Mode::Restrict, Mode::Delete, Mode::Dissociate] {
        let status = server.delete_bundle("example.org", mode).await;
        check_item(&(status, None), Code::InvalidArgument, Reason::OwnTrustDomain, "removing the bundle");
    }
    assert_eq!(server.bundle().await, before);
}

#[tokio::test]
async fn a_bundle_that_no_entry_needs_goes_in_every_mode() {
    let server = TestServer::start().await;
    for mode in [Mode::Restrict, Mode::Delete, Mode::Dissociate] {
        one(&server, Verb::Set, bundle("other.example", 1)).await;
        assert_eq!(server.delete_bundle("other.example", mode).await, item_ok(), "{mode:?}");
        let gone = get(&server, "other.example").await;
        expect_refusal(gone, Code::NotFound, Reason::BundleNotFound);
        let status = server.delete_bundle("other.example", mode).await;
        check_item(&(status, None), Code::NotFound, Reason::BundleNotFound, "bundle not found");
    }
    for name in ["", "Other", "spiffe://"] {
        let status = server.delete_bundle(name, Mode::Restrict).await;
        check_item(
            &(status, None),
            Code::InvalidArgument,
            Reason::BadRequest,
            "trust domain argument is not valid",
        );
    }
}

#[tokio::test]
async fn a_mode_that_there_is_not_is_refused_before_anything_is_deleted() {
    let server = TestServer::start().await;
    one(&server, Verb::Set, bundle("other.example", 1)).await;
    let request =
        wire::BatchDeleteFederatedBundleRequest { trust_domains: vec!["other.example".into()], mode: 9 };
    let answer = server.bundles().await.batch_delete_federated_bundle(request).await;
    let message = expect_refusal(answer, Code::InvalidArgument, Reason::BadRequest);
    assert!(message.contains("failed to parse deletion mode"), "{message}");
    get(&server, "other.example").await.unwrap();
}

#[tokio::test]
async fn a_delete_names_each_trust_domain_as_it_was_given() {
    let server = TestServer::start().await;
    for name in ["a.example", "b.example"] {
        one(&server, Verb::Set, bundle(name, 1)).await;
    }
    let names = ["spiffe://a.example", "none.example", "b.example", "b.example"].map(String::from);
    let request = wire::BatchDeleteFederatedBundleRequest { trust_domains: names.to_vec(), mode: 0 };
    let results =
        server.bundles().await.batch_delete_federated_bundle(request).await.unwrap().into_inner().results;
    let codes: Vec<Code> = results.iter().map(|item| code_of(&item.status)).collect();
    assert_eq!(codes, [Code::Ok, Code::NotFound, Code::Ok, Code::NotFound]);
    assert!(results.iter().map(|item| &item.trust_domain).eq(&names));
}

#[tokio::test]
async fn a_batch_of_too_many_items_is_refused_whole() {
    let server = TestServer::start().await;
    let many = vec![types::Bundle::default(); 10_001];
    for verb in VERBS {
        expect_refusal(
            send(&server, verb, many.clone()).await,
            Code::InvalidArgument,
            Reason::MessageTooLarge,
        );
    }
    let trust_domains = vec![String::new(); 10_001];
    let request = wire::BatchDeleteFederatedBundleRequest { trust_domains, mode: 0 };
    let answer = server.bundles().await.batch_delete_federated_bundle(request).await;
    expect_refusal(answer, Code::InvalidArgument, Reason::MessageTooLarge);
}

#[tokio::test]
async fn a_bundle_larger_than_a_record_is_refused_by_name_of_the_bound() {
    let server = TestServer::start().await;
    let key = jwt_key("x");
    // A thousand keys with the longest IDs that there are.
    let long = |n: usize| types::JwtKey { key_id: format!("{n:01024}"), ..key.clone() };
    let given =
        types::Bundle { jwt_authorities: (0..1000).map(long).collect(), ..bundle("other.example", 1) };
    for verb in [Verb::Create, Verb::Set] {
        let item = one(&server, verb, given.clone()).await;
        check_item(&item, Code::InvalidArgument, Reason::MessageTooLarge, "the bundle is too large");
    }
    assert_eq!(list(&server, 0, "").await.unwrap().0, [""; 0]);
}

#[tokio::test]
async fn bundles_are_listed_in_pages_without_the_servers_own() {
    let server = TestServer::start().await;
    // Before, around and after the own name.
    let names = ["a.example", "example.aaa", "example.zzz", "z.example"];
    for name in names {
        one(&server, Verb::Set, bundle(name, 1)).await;
    }
    assert_eq!(list(&server, 0, "").await.unwrap(), (names.map(String::from).to_vec(), String::new()));
    assert_eq!(list(&server, -1, "ignored").await.unwrap().0, names);
    let (mut found, mut token, mut sizes) = (Vec::new(), String::new(), Vec::new());
    loop {
        let (page, next) = list(&server, 3, &token).await.unwrap();
        sizes.push(page.len());
        found.extend(page);
        if next.is_empty() {
            break;
        }
        token = next;
    }
    assert_eq!(
        (found.as_slice(), sizes.as_slice()),
        (names.map(String::from).as_slice(), [3, 1, 0].as_slice())
    );
    let refused = list(&server, 1, "not a token").await;
    let message = expect_refusal(refused, Code::Internal, Reason::BadRequest);
    assert!(message.contains("could not parse token"), "{message}");
    let mask = Some(types::BundleMask::default());
    let request = wire::ListFederatedBundlesRequest { output_mask: mask, ..Default::default() };
    let bare = server.bundles().await.list_federated_bundles(request).await.unwrap().into_inner().bundles;
    assert_eq!(bare[0], types::Bundle { trust_domain: "a.example".into(), ..Default::default() });
}

async fn append(
    server: &TestServer,
    x509: Vec<types::X509Certificate>,
    jwt: Vec<types::JwtKey>,
) -> Result<types::Bundle, Status> {
    let request =
        wire::AppendBundleRequest { x509_authorities: x509, jwt_authorities: jwt, ..Default::default() };
    Ok(in_time(server.bundles().await.append_bundle(request)).await?.into_inner())
}

#[tokio::test]
async fn authorities_are_added_to_the_own_bundle_once() {
    let server = TestServer::start().await;
    let before = bundle_to_proto(&server.bundle().await);
    let root = bundle("example.org", 0).x509_authorities;
    let key = jwt_key("one");
    let after = append(&server, root.clone(), vec![key.clone()]).await.unwrap();
    let expected = types::Bundle {
        x509_authorities: [before.x509_authorities.clone(), root.clone()].concat(),
        jwt_authorities: [before.jwt_authorities.clone(), vec![key.clone()]].concat(),
        sequence_number: before.sequence_number + 1,
        ..before
    };
    assert_eq!(after, expected);
    let tainted = types::X509Certificate { tainted: true, ..root[0].clone() };
    let again = append(&server, vec![tainted], vec![key]).await.unwrap();
    assert_eq!(again, expected, "nothing is new, and nobody outside taints");
    let request = wire::AppendBundleRequest {
        x509_authorities: root,
        output_mask: Some(types::BundleMask { sequence_number: true, ..Default::default() }),
        ..Default::default()
    };
    let masked = server.bundles().await.append_bundle(request).await.unwrap().into_inner();
    assert!(masked.x509_authorities.is_empty() && masked.sequence_number == expected.sequence_number);
}

#[tokio::test]
async fn what_cannot_be_added_to_the_own_bundle_is_refused() {
    let server = TestServer::start().await;
    let before = server.bundle().await;
    let refused = async |x509, jwt, says: &str| {
        let answer = append(&server, x509, jwt).await;
        let message = expect_refusal(answer, Code::InvalidArgument, Reason::BadRequest);
        assert!(message.contains(says), "{message}");
    };
    refused(vec![], vec![], "no authorities to append").await;
    let junk = types::X509Certificate { asn1: b"junk".as_slice().into(), tainted: false };
    refused(vec![junk], vec![], "X.509 authority").await;
    refused(vec![], vec![jwt_key("")], "JWT authority").await;
    refused(vec![], vec![jwt_key("a"), jwt_key("a")], "key ID").await;
    let wit =
        wire::AppendBundleRequest { wit_authorities: vec![types::WitKey::default()], ..Default::default() };
    let answer = server.bundles().await.append_bundle(wit).await;
    let message = expect_refusal(answer, Code::InvalidArgument, Reason::BadRequest);
    assert!(message.contains("WIT authority"), "{message}");
    assert_eq!(server.bundle().await, before);
}

#[tokio::test]
async fn bundles_are_there_again_after_a_restart() {
    let mut server = TestServer::start_with(|config| config.store.kind = StoreKind::Sled).await;
    let given = types::Bundle { jwt_authorities: vec![jwt_key("one")], ..bundle("other.example", 7) };
    one(&server, Verb::Create, given.clone()).await;
    one(&server, Verb::Create, bundle("gone.example", 1)).await;
    server.delete_bundle("gone.example", Mode::Restrict).await;
    server.restart().await;
    assert_eq!(get(&server, "other.example").await.unwrap(), given);
    assert_eq!(list(&server, 0, "").await.unwrap().0, ["other.example"]);
}

#[tokio::test]
async fn of_many_who_make_the_same_bundle_at_once_one_does() {
    let server = TestServer::start().await;
    let tries = (1..=8).map(|n| one(&server, Verb::Create, bundle("other.example", n)));
    let items = futures_util::future::join_all(tries).await;
    let made: Vec<&Item> = items.iter().filter(|(status, _)| status.code == 0).collect();
    assert_eq!(made.len(), 1, "{items:?}");
    assert_eq!(Some(get(&server, "other.example").await.unwrap()), made[0].1);
}
