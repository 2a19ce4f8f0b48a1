//! The audit log, as real calls of every kind of caller leave it.

use std::sync::{Arc, LazyLock, Mutex};

use serde_json::Value;
use spindle_proto::spire::api::server::agent::v1 as agent_api;
use spindle_proto::spire::api::server::bundle::v1 as bundle_api;
use spindle_proto::spire::api::server::debug::v1 as debug_api;
use spindle_proto::spire::api::server::debug::v1::debug_client::DebugClient;
use spindle_proto::spire::api::server::entry::v1 as entry_api;
use spindle_proto::spire::api::server::svid::v1 as svid_api;
use spindle_server::RateLimitSettings;
use tonic::Code;
use tracing::Event;
use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::support::{TestServer, attest, csr, entry, id, in_time, wire_id};

/// Collects the records of this thread, which is all that a test's server runs on.
#[derive(Clone, Default)]
struct Records(Arc<Mutex<Vec<Value>>>);

impl<S: tracing::Subscriber> Layer<S> for Records {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut seen = Seen::default();
        event.record(&mut seen);
        if seen.message == "API accessed" {
            self.0.lock().unwrap().push(serde_json::from_str(&seen.more).expect("an object"));
        }
    }
}

#[derive(Default)]
struct Seen {
    message: String,
    more: String,
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == spindle_runtime::MORE_FIELDS {
            self.more = value.to_owned();
        }
    }
}

/// Tracing asks only the subscriber of the thread at hand while there is a single one, and a thread that has none would switch the
/// records off for the thread that has it. So there are always two.
static ANOTHER: LazyLock<tracing::Dispatch> =
    LazyLock::new(|| tracing::Dispatch::new(tracing_subscriber::registry()));

impl Records {
    fn start() -> (Self, DefaultGuard) {
        LazyLock::force(&ANOTHER);
        let records = Self::default();
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(records.clone()));
        (records, guard)
    }

    /// What was recorded since the last look. A record is written as the last of an answer leaves, so it may come a moment
    /// after the caller has read it.
    async fn take(&self, count: usize) -> Vec<Value> {
        in_time(async {
            while self.0.lock().unwrap().len() < count {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let records = std::mem::take(&mut *self.0.lock().unwrap());
        assert_eq!(records.len(), count, "{records:#?}");
        records
    }
}

async fn audited() -> TestServer {
    TestServer::start_with(|config| {
        config.operations.audit_log = true;
        config.admin_ids = vec![id("/operator")];
    })
    .await
}

/// Whether a record has these fields.
#[track_caller]
fn check(record: &Value, expected: &[(&str, Value)]) {
    for (name, value) in expected {
        assert_eq!(&record[name], value, "{name} of {record:#}");
    }
    assert_eq!(record["type"], "audit");
    assert_eq!(record["request_id"].as_str().unwrap().len(), 36);
}

#[tokio::test]
async fn a_local_caller_is_named_by_user_group_and_program() {
    let server = audited().await;
    let (records, _guard) = Records::start();
    let channel = server.admin().await;
    let mut client = agent_api::agent_client::AgentClient::new(channel);
    client.count_agents(agent_api::CountAgentsRequest::default()).await.unwrap();
    let record = records.take(1).await.remove(0);
    let exe = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    check(
        &record,
        &[
            ("status", "success".into()),
            ("authorized_as", "local".into()),
            ("authorized_via", "transport".into()),
            ("caller_uid", own_uid().into()),
            ("caller_path", exe.into()),
        ],
    );
    assert!(record["caller_gid"].is_u64() && record.get("status_code").is_none(), "{record:#}");
}

/// The owner of a file that this process has made.
fn own_uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    tempfile::tempfile().unwrap().metadata().unwrap().uid()
}

#[tokio::test]
async fn each_item_of_a_batch_has_a_record_with_its_outcome() {
    let server = audited().await;
    let (records, _guard) = Records::start();
    let parent = id("/node");
    let good = entry(&parent, "/web", &["unix:uid:1"]);
    let bad = entry(&parent, "/web", &[]);
    let request = entry_api::BatchCreateEntryRequest { entries: vec![good, bad], output_mask: None };
    server.entries().await.batch_create_entry(request).await.unwrap();
    let both = records.take(2).await;
    let fields = [("spiffe_id", id("/web").to_string().into()), ("parent_id", parent.to_string().into())];
    check(&both[0], &fields);
    check(&both[0], &[("status", "success".into()), ("selectors", "unix:uid:1".into())]);
    check(&both[1], &fields);
    check(&both[1], &[("status", "error".into()), ("status_code", 3.into())]);
    assert!(both[1]["status_message"].as_str().unwrap().contains("selector"), "{:#}", both[1]);
    assert_eq!(both[0]["request_id"], both[1]["request_id"], "one call");
}

#[tokio::test]
async fn attestation_issue_and_renewal_are_recorded_with_the_agent_and_the_hash_of_the_request() {
    let server = audited().await;
    let token = server.join_token().await;
    let stranger = server.dial(None).await;
    let (records, _guard) = Records::start();
    attest(stranger.clone(), token.as_bytes(), &csr()).await.unwrap();
    let record = records.take(1).await.remove(0);
    let agent_id = format!("spiffe://example.org/spire/agent/join_token/{token}");
    check(
        &record,
        &[
            ("status", "success".into()),
            ("authorized_as", "nobody".into()),
            ("authorized_via", "".into()),
            ("node_attestor_type", "join_token".into()),
            ("agent_id", agent_id.into()),
        ],
    );
    assert!(record["caller_addr"].as_str().unwrap().starts_with("127.0.0.1:"), "{record:#}");
    attest(stranger, token.as_bytes(), &csr()).await.expect_err("the token is used up");
    let record = records.take(1).await.remove(0);
    check(
        &record,
        &[("status", "error".into()), ("status_code", 3.into()), ("node_attestor_type", "join_token".into())],
    );
    assert!(!record.to_string().contains(&token), "a token is a secret: {record:#}");
    drop(_guard);

    let agent = server.attest().await;
    let entry_id = server.create_one(entry(&agent.id, "/web", &["unix:uid:1"])).await;
    let (records, _guard) = Records::start();
    let param = |entry_id: &str| svid_api::NewX509svidParams { entry_id: entry_id.into(), csr: csr().into() };
    let params = vec![param(&entry_id), param("none")];
    agent.svids().batch_new_x509svid(svid_api::BatchNewX509svidRequest { params }).await.unwrap();
    let both = records.take(2).await;
    let caller = [("authorized_as", "agent".into()), ("caller_id", agent.id.to_string().into())];
    both.iter().for_each(|record| check(record, &caller));
    check(&both[0], &[("entry_id", entry_id.into()), ("spiffe_id", id("/web").to_string().into())]);
    assert!(both[0]["expires_at"].is_i64() && both[0]["csr"].as_str().unwrap().len() == 64, "{:#}", both[0]);
    check(&both[1], &[("entry_id", "none".into()), ("status_code", 5.into())]);
    agent.renew().await;
    let record = records.take(1).await.remove(0);
    check(&record, &[("authorized_via", "datastore".into()), ("status", "success".into())]);
    assert_eq!(record["csr"].as_str().unwrap().len(), 64);
}

#[tokio::test]
async fn a_refused_call_says_why_and_an_admin_by_which_list_it_is_one() {
    let server = audited().await;
    let operator = server.dial_as("/operator").await;
    let (records, _guard) = Records::start();
    let mut client = agent_api::agent_client::AgentClient::new(operator);
    let request = agent_api::GetAgentRequest { id: Some(wire_id("/spire/agent/x/y")), output_mask: None };
    assert_eq!(client.get_agent(request).await.expect_err("none").code(), Code::NotFound);
    check(
        &records.take(1).await[0],
        &[
            ("authorized_as", "admin".into()),
            ("authorized_via", "config".into()),
            ("caller_id", id("/operator").to_string().into()),
            ("spiffe_id", id("/spire/agent/x/y").to_string().into()),
            ("status", "error".into()),
            ("status_code", 5.into()),
            ("status_message", "agent not found".into()),
        ],
    );
    drop(_guard);
    let other = entry_api::BatchCreateEntryRequest {
        entries: vec![spindle_proto::spire::api::types::Entry {
            admin: true,
            ..entry(&id("/node"), "/other", &["a:b"])
        }],
        output_mask: None,
    };
    server.entries().await.batch_create_entry(other).await.unwrap();
    let other = server.dial_as("/other").await;
    let (records, _guard) = Records::start();
    let mut client = agent_api::agent_client::AgentClient::new(other);
    client.count_agents(agent_api::CountAgentsRequest::default()).await.unwrap();
    check(
        &records.take(1).await[0],
        &[("authorized_as", "admin".into()), ("authorized_via", "entries".into())],
    );
}

#[tokio::test]
async fn probes_leave_a_record_only_when_they_fail_and_nobody_leaves_one_when_it_is_off() {
    let server = audited().await;
    let stranger = server.dial(None).await;
    let (records, _guard) = Records::start();
    DebugClient::new(server.admin().await).get_info(debug_api::GetInfoRequest {}).await.unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(server.admin().await);
    health.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap();
    health
        .check(tonic_health::pb::HealthCheckRequest { service: "x".into() })
        .await
        .expect_err("no such service");
    check(&records.take(1).await[0], &[("status", "error".into()), ("status_code", 3.into())]);
    let mut client = agent_api::agent_client::AgentClient::new(stranger.clone());
    client.count_agents(agent_api::CountAgentsRequest::default()).await.expect_err("not for strangers");
    // The next record is the one of this call: as with SPIRE, whom the gate turns away leaves none.
    let mut bundles = bundle_api::bundle_client::BundleClient::new(stranger);
    bundles.get_bundle(bundle_api::GetBundleRequest::default()).await.unwrap();
    check(
        &records.take(1).await[0],
        &[("authorized_as", "nobody".into()), ("trust_domain_id", "example.org".into())],
    );
    drop(_guard);
    let server = TestServer::start().await;
    let (records, _guard) = Records::start();
    server.bundle().await;
    server.stop_and_count(&records).await;
}

impl TestServer {
    /// Nothing more can be written once the server has ended.
    async fn stop_and_count(mut self, records: &Records) {
        self.stop().await;
        records.take(0).await;
    }
}

#[tokio::test]
async fn a_stream_is_recorded_once_when_it_ends() {
    use spindle_proto::spire::api::server::entry::v1::SyncAuthorizedEntriesRequest;
    let server = audited().await;
    let agent = server.attest().await;
    let (records, _guard) = Records::start();
    let requests = tokio_stream::iter([SyncAuthorizedEntriesRequest::default()]);
    let mut answers = agent.entries().sync_authorized_entries(requests).await.unwrap().into_inner();
    while answers.message().await.unwrap().is_some() {}
    check(
        &records.take(1).await[0],
        &[
            ("status", "success".into()),
            ("authorized_as", "agent".into()),
            ("caller_id", agent.id.to_string().into()),
        ],
    );
}

#[tokio::test]
async fn each_item_of_a_batch_that_is_broken_off_has_a_record_that_says_its_outcome_is_unknown() {
    let server = TestServer::start_with(|config| {
        config.operations.audit_log = true;
        config.rate_limits = RateLimitSettings { attestation: false, signing: true };
    })
    .await;
    let agent = server.attest().await;
    let params = vec![svid_api::NewX509svidParams { entry_id: "none".into(), csr: csr().into() }; 500];
    let request = svid_api::BatchNewX509svidRequest { params };
    // The whole of what the agent may have in a second, so that the next batch waits.
    agent.svids().batch_new_x509svid(request.clone()).await.unwrap();
    let (records, _guard) = Records::start();
    let mut patience = 1;
    let told = in_time(async {
        loop {
            let mut client = agent.svids();
            let mut call = Box::pin(client.batch_new_x509svid(request.clone()));
            // Whether the server has the batch by then nobody can see from here; so longer each time until it had.
            for _ in 0..patience {
                if futures_util::poll!(&mut call).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            patience *= 2;
            drop(call);
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
            let told = std::mem::take(&mut *records.0.lock().unwrap());
            if !told.is_empty() {
                return told;
            }
        }
    })
    .await;
    assert_eq!(told.len(), 500);
    for record in &told {
        check(record, &[("entry_id", "none".into()), ("status", "error".into()), ("status_code", 1.into())]);
        let message = record["status_message"].as_str().unwrap();
        assert!(message.ends_with("whether it was carried out is unknown"), "{record:#}");
    }
}
