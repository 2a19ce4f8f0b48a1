//! Any sequence of calls gives the answers that a simple model gives, also after the server was killed and came back.
//!
//! The server is a real one over its real sockets, on each embedded store. It lives in an async runtime of its own: a kill
//! drops the runtime with all tasks in it, wherever they stand, and nobody closes the store. Start at [`Session::take`].

mod registry;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use spindle_proto::spire::api::server::agent::v1 as agent_api;
use spindle_proto::spire::api::server::bundle::v1 as bundle_api;
use spindle_proto::spire::api::server::entry::v1 as entry_api;
use spindle_proto::spire::api::types;
use spindle_server::StoreKind;
use spindle_spiffe_core::Clock;
use spindle_testkit::{NOW, TestAuthority};
use tokio::runtime::Runtime;
use tonic::{Code, Status};

use self::registry::{Entry, Made, Registry, agent_path, alias_path};
use self::steps::{Draft, Filter, HowMuch, Mode, Step};
use crate::support::{TestAgent, TestServer, attest, code_of, csr_of, selector, wire_id};

/// Far more entries than a sequence makes.
const EVERYTHING: i32 = 0;

/// A server, the model beside it, and the agents that attested.
struct Session {
    runtime: Runtime,
    server: TestServer,
    model: Registry,
    agents: BTreeMap<u8, TestAgent>,
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

impl Session {
    fn start(kind: StoreKind) -> Self {
        let runtime = runtime();
        let server = runtime.block_on(TestServer::start_with(|config| config.store.kind = kind));
        Self { runtime, server, model: Registry::default(), agents: BTreeMap::new() }
    }

    /// Does one step with both, and compares what they answer.
    fn take(&mut self, step: &Step) {
        if matches!(step, Step::Kill) {
            return self.kill();
        }
        let Self { runtime, server, model, agents } = self;
        runtime.block_on(async {
            match step {
                Step::Create(drafts) => create(server, model, drafts).await,
                Step::Update(place, draft, how_much) => update(server, model, *place, draft, *how_much).await,
                Step::Delete(places) => delete(server, model, places).await,
                Step::List(filter, page_size) => list(server, model, filter, *page_size).await,
                Step::MakeToken(token) => make_token(server, model, *token).await,
                Step::Attest(token) => attest_agent(server, model, agents, *token).await,
                Step::Ban(token) => ban(server, model, *token).await,
                Step::Evict(token) => evict(server, model, *token).await,
                Step::Ask(token) => ask(server, model, agents, *token).await,
                Step::ListAgents(banned, page_size) => {
                    list_agents(server, model, *banned, *page_size).await;
                }
                Step::Wait => {
                    server.clock.advance(1);
                }
                Step::SetBundle(name) => set_bundle(server, model, name).await,
                Step::DeleteBundle(name, mode) => delete_bundle(server, model, name, *mode).await,
                Step::Kill => {}
            }
        });
    }

    fn kill(&mut self) {
        self.server.abandon();
        // Dropped where they stand: connections of agents, tasks, the store's last handle.
        self.runtime = runtime();
        self.model.restart();
        self.runtime.block_on(self.server.restart_stopped());
    }

    /// Everything is as the model says, and as it was acknowledged.
    fn check(&mut self) {
        self.take(&Step::List(Filter::default(), EVERYTHING));
        self.take(&Step::ListAgents(None, EVERYTHING));
        for token in 0..3 {
            self.take(&Step::Ask(token));
        }
        self.runtime.block_on(list_bundles(&self.server, &self.model));
    }
}

fn now(server: &TestServer) -> i64 {
    server.clock.now().unix_secs()
}

fn wire(draft: &Draft) -> types::Entry {
    types::Entry {
        id: draft.id.unwrap_or_default().into(),
        parent_id: Some(wire_id(draft.parent)),
        spiffe_id: Some(wire_id(draft.path)),
        selectors: draft.selectors.iter().map(|text| selector(text)).collect(),
        hint: draft.hint.into(),
        downstream: draft.downstream,
        federates_with: draft.federates_with.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

/// An entry of an answer in the model's terms.
fn read(wire: &types::Entry) -> Entry {
    let path = |id: &Option<types::Spiffeid>| id.as_ref().unwrap().path.clone();
    Entry {
        id: wire.id.clone(),
        parent: path(&wire.parent_id),
        path: path(&wire.spiffe_id),
        selectors: wire.selectors.iter().map(|s| format!("{}:{}", s.r#type, s.value)).collect(),
        hint: wire.hint.clone(),
        downstream: wire.downstream,
        federates_with: wire.federates_with.iter().cloned().collect(),
        revision: wire.revision_number,
        created_at: wire.created_at,
    }
}

fn code<T>(answer: Result<T, Status>) -> Result<T, Code> {
    answer.map_err(|status| status.code())
}

async fn create(server: &TestServer, model: &mut Registry, drafts: &[Draft]) {
    let entries = drafts.iter().map(wire).collect();
    let request = entry_api::BatchCreateEntryRequest { entries, output_mask: None };
    let results = server.entries().await.batch_create_entry(request).await.unwrap().into_inner().results;
    assert_eq!(results.len(), drafts.len());
    for (draft, result) in drafts.iter().zip(results) {
        let mut expected = Entry::of(draft, now(server));
        let found = result.entry.as_ref().map(read);
        match model.judge(&expected) {
            Made::New => {
                let found = found.unwrap_or_else(|| panic!("{draft:?}: {:?}", result.status));
                if expected.id.is_empty() {
                    expected.id.clone_from(&found.id);
                }
                assert_eq!((code_of(&result.status), &found), (Code::Ok, &expected), "{draft:?}");
                model.entries.push(found);
            }
            Made::Similar(ids) => {
                assert_eq!(code_of(&result.status), Code::AlreadyExists, "{draft:?}");
                let id = found.expect("the similar entry comes back").id;
                assert!(ids.contains(&id), "{draft:?}: {id} is none of {ids:?}");
            }
            Made::IdTaken => {
                assert_eq!((code_of(&result.status), found), (Code::AlreadyExists, None), "{draft:?}");
            }
            Made::NoBundle => {
                assert_eq!((code_of(&result.status), found), (Code::Internal, None), "{draft:?}");
            }
        }
    }
}

async fn update(server: &TestServer, model: &mut Registry, place: usize, draft: &Draft, how_much: HowMuch) {
    let id = model.at(place).map_or_else(|| "nobody".to_owned(), |entry| entry.id.clone());
    let input_mask =
        (how_much == HowMuch::Hint).then(|| types::EntryMask { hint: true, ..Default::default() });
    let entries = vec![types::Entry { id: id.clone(), ..wire(draft) }];
    let request = entry_api::BatchUpdateEntryRequest { entries, input_mask, output_mask: None };
    let answer = server.entries().await.batch_update_entry(request).await.unwrap().into_inner();
    let result = &answer.results[0];
    match model.update(&id, draft, how_much) {
        Ok(expected) => assert_eq!(result.entry.as_ref().map(read).as_ref(), Some(expected)),
        Err(code) => assert_eq!(code_of(&result.status), code),
    }
}

async fn delete(server: &TestServer, model: &mut Registry, places: &[usize]) {
    let id = |place: &usize| model.at(*place).map_or_else(|| "nobody".to_owned(), |entry| entry.id.clone());
    let ids: Vec<String> = places.iter().map(id).collect();
    let request = entry_api::BatchDeleteEntryRequest { ids: ids.clone() };
    let results = server.entries().await.batch_delete_entry(request).await.unwrap().into_inner().results;
    for (id, result) in ids.iter().zip(results) {
        let expected = if model.delete(id) { Code::Ok } else { Code::NotFound };
        assert_eq!((code_of(&result.status), &result.id), (expected, id));
    }
}

async fn list(server: &TestServer, model: &Registry, filter: &Filter, page_size: i32) {
    let by_selectors = filter.selectors.as_ref().map(|(how, texts)| types::SelectorMatch {
        selectors: texts.iter().map(|text| selector(text)).collect(),
        r#match: *how,
    });
    let wire_filter = entry_api::list_entries_request::Filter {
        by_parent_id: filter.parent.map(wire_id),
        by_spiffe_id: filter.path.map(wire_id),
        by_selectors,
        by_hint: filter.hint.map(Into::into),
        by_downstream: Some(filter.downstream),
        by_federates_with: filter
            .federates_with
            .map(|name| types::FederatesWithMatch { trust_domains: vec![name.into()], r#match: 2 }),
    };
    let mut entries = server.entries().await;
    let mut found = Vec::new();
    let mut request =
        entry_api::ListEntriesRequest { filter: Some(wire_filter), page_size, ..Default::default() };
    loop {
        let answer = entries.list_entries(request.clone()).await.unwrap().into_inner();
        check_page(page_size, answer.entries.len(), &answer.next_page_token);
        found.extend(answer.entries.iter().map(read));
        if answer.next_page_token.is_empty() {
            break;
        }
        request.page_token = answer.next_page_token;
    }
    assert_eq!(found, model.list(filter), "{filter:?} in pages of {page_size}");
}

/// A page is not larger than asked for, and has a token exactly when it has rows.
fn check_page(page_size: i32, rows: usize, token: &str) {
    if page_size > 0 {
        assert!(rows <= page_size as usize, "{rows} rows on a page of {page_size}");
        assert_eq!(rows == 0, token.is_empty(), "a page has a token exactly when it has rows");
    } else {
        assert_eq!(token, "", "no page was asked for");
    }
}

async fn make_token(server: &TestServer, model: &mut Registry, token: u8) {
    let request = agent_api::CreateJoinTokenRequest {
        ttl: 600,
        token: format!("token-{token}"),
        agent_id: alias_path(token).map(|path| wire_id(&path)),
    };
    let answer = code(server.agents().await.create_join_token(request).await);
    let expected = model.make_token(token, now(server));
    assert_eq!(answer.map(|_| ()).err(), expected.as_ref().err().copied());
    if let Ok(Some(mut alias)) = expected {
        alias.id = id_of_child(server, &alias).await;
        model.entries.push(alias);
    }
}

/// The id that the server gave to an entry which came with a token.
async fn id_of_child(server: &TestServer, alias: &Entry) -> String {
    let filter = entry_api::list_entries_request::Filter {
        by_parent_id: Some(wire_id(&alias.parent)),
        by_spiffe_id: Some(wire_id(&alias.path)),
        ..Default::default()
    };
    let request = entry_api::ListEntriesRequest { filter: Some(filter), ..Default::default() };
    let listed = server.entries().await.list_entries(request).await.unwrap().into_inner().entries;
    let found = listed.iter().map(read).find(|entry| entry.selectors == alias.selectors);
    found.expect("the entry that comes with the token").id
}

async fn attest_agent(
    server: &TestServer,
    model: &mut Registry,
    agents: &mut BTreeMap<u8, TestAgent>,
    token: u8,
) {
    let key = spindle_keys::Key::generate(spindle_keys::KeyType::EcP256).unwrap();
    let stranger = server.dial(None).await;
    let answer = attest(stranger, format!("token-{token}").as_bytes(), &csr_of(&key)).await;
    match (code(answer), model.attest(token)) {
        (Ok(result), Ok(())) => {
            agents.insert(token, server.connect(key, &result.svid.unwrap()).await);
        }
        (answer, expected) => assert_eq!(answer.err(), expected.err()),
    }
}

async fn ban(server: &TestServer, model: &mut Registry, token: u8) {
    let request = agent_api::BanAgentRequest { id: Some(wire_id(&agent_path(token))) };
    let answer = code(server.agents().await.ban_agent(request).await);
    assert_eq!(answer.map(|_| ()), model.ban(token));
}

async fn evict(server: &TestServer, model: &mut Registry, token: u8) {
    let request = agent_api::DeleteAgentRequest { id: Some(wire_id(&agent_path(token))) };
    let answer = code(server.agents().await.delete_agent(request).await);
    assert_eq!(answer.map(|_| ()), model.evict(token));
}

/// Asks over a connection of its own: an earlier one may have ended with an earlier server.
async fn ask(server: &TestServer, model: &Registry, agents: &mut BTreeMap<u8, TestAgent>, token: u8) {
    let Some(agent) = agents.remove(&token) else { return };
    let agent = server.reconnect(agent).await;
    let request = entry_api::GetAuthorizedEntriesRequest { output_mask: None };
    let answer = code(agent.entries().get_authorized_entries(request).await);
    let ids = answer.map(|answer| {
        answer.into_inner().entries.into_iter().map(|entry| entry.id).collect::<BTreeSet<String>>()
    });
    assert_eq!(ids, model.authorized(token), "agent {token}");
    agents.insert(token, agent);
}

async fn list_agents(server: &TestServer, model: &Registry, banned: Option<bool>, page_size: i32) {
    let filter = agent_api::list_agents_request::Filter { by_banned: banned, ..Default::default() };
    let mut request = agent_api::ListAgentsRequest { filter: Some(filter), page_size, ..Default::default() };
    let mut agents = server.agents().await;
    let mut found = Vec::new();
    loop {
        let answer = agents.list_agents(request.clone()).await.unwrap().into_inner();
        check_page(page_size, answer.agents.len(), &answer.next_page_token);
        found.extend(answer.agents.into_iter().map(|agent| (agent.id.unwrap().path, agent.banned)));
        if answer.next_page_token.is_empty() {
            break;
        }
        request.page_token = answer.next_page_token;
    }
    assert_eq!(found, model.list_agents(banned));
}

async fn set_bundle(server: &TestServer, model: &mut Registry, name: &str) {
    let authority = TestAuthority::new(name, NOW);
    let asn1 = authority.ca().certificate().to_vec().into();
    let bundle = types::Bundle {
        trust_domain: name.into(),
        x509_authorities: vec![types::X509Certificate { asn1, tainted: false }],
        ..Default::default()
    };
    let request = bundle_api::BatchSetFederatedBundleRequest { bundle: vec![bundle], ..Default::default() };
    let answer = server.bundles().await.batch_set_federated_bundle(request).await.unwrap().into_inner();
    assert_eq!(code_of(&answer.results[0].status), Code::Ok);
    model.set_bundle(name);
}

async fn delete_bundle(server: &TestServer, model: &mut Registry, name: &str, mode: Mode) {
    use bundle_api::batch_delete_federated_bundle_request::Mode as Wire;
    let mode_on_wire = match mode {
        Mode::Restrict => Wire::Restrict,
        Mode::Delete => Wire::Delete,
        Mode::Dissociate => Wire::Dissociate,
    };
    let request = bundle_api::BatchDeleteFederatedBundleRequest {
        trust_domains: vec![name.into()],
        mode: mode_on_wire.into(),
    };
    let answer = server.bundles().await.batch_delete_federated_bundle(request).await.unwrap().into_inner();
    assert_eq!(code_of(&answer.results[0].status), model.delete_bundle(name, mode));
}

async fn list_bundles(server: &TestServer, model: &Registry) {
    let request = bundle_api::ListFederatedBundlesRequest::default();
    let answer = server.bundles().await.list_federated_bundles(request).await.unwrap().into_inner();
    let found: Vec<String> = answer.bundles.into_iter().map(|bundle| bundle.trust_domain).collect();
    assert_eq!(found, model.list_bundles());
}

fn run(kind: StoreKind, steps: &[Step]) {
    let mut session = Session::start(kind);
    for step in steps {
        session.take(step);
    }
    session.check();
    session.take(&Step::Kill);
    session.check();
}

/// Sequences on each store: an environment variable, or some that suit every `cargo test`.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").map_or(24, |text| text.parse().expect("a number of cases"))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        max_shrink_iters: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_sequence_on_sled_answers_as_the_model_and_survives_kills(steps in steps::steps()) {
        run(StoreKind::Sled, &steps);
    }

    #[test]
    fn every_sequence_on_redb_answers_as_the_model_and_survives_kills(steps in steps::steps()) {
        run(StoreKind::Redb, &steps);
    }
}
