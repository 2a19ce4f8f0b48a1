mod replacing;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use spindle_proto::refusal::come_back;
use spindle_runtime::SystemEntropy;
use spindle_spiffe_core::{JwtAuthority, Selectors, X509Authority};
use tokio::sync::{Notify, watch};
use tonic::Status;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use super::*;
use crate::cache::View;
use crate::call_error::CallError;
use crate::fixtures::{Authority, ManualClock, entry, selectors, trust_domain};

/// Signs with a test authority, for the entries it is told to know.
struct FakeServer {
    authority: Authority,
    clock: ManualClock,
    ttl_secs: i64,
    refused: Mutex<HashSet<String>>,
    down: Mutex<bool>,
    busy_for: Mutex<Option<Duration>>,
    calls: AtomicUsize,
    largest: AtomicUsize,
    called: Notify,
}

impl Signer for FakeServer {
    fn sign(
        &self,
        requests: Vec<SigningRequest>,
    ) -> BoxFuture<'static, Result<Vec<Result<Vec<Bytes>, String>>, CallError>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.largest.fetch_max(requests.len(), Ordering::SeqCst);
        self.called.notify_one();
        let answer = if *self.down.lock().unwrap() {
            Err(Status::unavailable("down").into())
        } else if let Some(after) = *self.busy_for.lock().unwrap() {
            Err(come_back("too many", after).into())
        } else {
            Ok(requests.iter().map(|request| self.answer(request)).collect())
        };
        Box::pin(async { answer })
    }
}

impl FakeServer {
    fn answer(&self, request: &SigningRequest) -> Result<Vec<Bytes>, String> {
        let id = request.entry_id.as_str();
        if self.refused.lock().unwrap().contains(id) {
            return Err("entry not found or not authorized".into());
        }
        let (_, csr) = X509CertificationRequest::from_der(&request.csr).unwrap();
        csr.verify_signature().unwrap();
        let spki = csr.certification_request_info.subject_pki.raw;
        let spiffe_id = trust_domain().member(&format!("/{id}")).unwrap();
        let svid = self.authority.sign(&spiffe_id, spki, self.clock.now(), self.ttl_secs);
        Ok(vec![svid.to_der().into()])
    }
}

struct Rig {
    cache: Arc<Cache>,
    server: Arc<FakeServer>,
    updates: mpsc::Sender<Update>,
    clock: ManualClock,
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

fn rig(ttl_secs: i64) -> Rig {
    rig_with(ttl_secs, RenewalPolicy::default(), 1000)
}

#[expect(clippy::disallowed_methods, reason = "the handle ends with the rig")]
fn rig_with(ttl_secs: i64, policy: RenewalPolicy, cache_max: usize) -> Rig {
    let clock = ManualClock::default();
    let cache = Arc::new(Cache::new(trust_domain()));
    let server = Arc::new(FakeServer {
        authority: Authority::new(&trust_domain()),
        clock: clock.clone(),
        ttl_secs,
        refused: Mutex::default(),
        down: Mutex::default(),
        busy_for: Mutex::default(),
        calls: AtomicUsize::new(0),
        largest: AtomicUsize::new(0),
        called: Notify::new(),
    });
    let (updates, receiver) = mpsc::channel(1);
    let parts = Parts {
        cache: cache.clone(),
        signer: server.clone(),
        updates: receiver,
        clock: Arc::new(clock.clone()),
        entropy: Arc::new(SystemEntropy),
        key_type: KeyType::EcP256,
        policy,
        cache_max,
        metrics: Arc::default(),
    };
    let task = tokio::spawn(Identities::new(parts).run(Shutdown::new()));
    Rig { cache, server, updates, clock, _task: tokio_util::task::AbortOnDropHandle::new(task) }
}

impl Rig {
    async fn update(&self, snapshot: bool, entries: Vec<RegistrationEntry>, removed: &[&str]) {
        let removed = removed.iter().map(|id| id.parse().unwrap()).collect();
        self.apply(|update| Update { snapshot, entries, removed, ..update }).await;
    }

    /// Sends what `change` makes of a change of nothing.
    async fn apply(&self, change: impl FnOnce(Update) -> Update) {
        let (applied, done) = oneshot::channel();
        let nothing = Update {
            snapshot: false,
            entries: Vec::new(),
            removed: Vec::new(),
            own_bundle: None,
            federated: Vec::new(),
            unreadable_federated: Vec::new(),
            removed_federated: Vec::new(),
            is_first: false,
            applied,
        };
        self.updates.send(change(nothing)).await.unwrap();
        done.await.unwrap();
    }

    fn view(&self) -> watch::Receiver<View> {
        self.cache.subscribe(&everybody())
    }
}

fn everybody() -> Selectors {
    selectors(&["unix:uid:1"])
}

fn one(id: &str) -> RegistrationEntry {
    entry(id, &["unix:uid:1"])
}

async fn until(view: &mut watch::Receiver<View>, holds: impl FnMut(&View) -> bool) -> View {
    let waited = tokio::time::timeout(Duration::from_secs(120), view.wait_for(holds)).await;
    waited.expect("the condition comes about").unwrap().clone()
}

fn serials(view: &View) -> Vec<String> {
    view.content.identities.iter().map(|one| one.held.svid.serial().to_string()).collect()
}

#[tokio::test]
async fn a_new_entry_gets_an_svid_with_its_own_key() {
    let rig = rig(600);
    let mut view = rig.view();
    rig.update(true, vec![one("a"), one("b")], &[]).await;
    let seen = until(&mut view, |view| view.content.identities.len() == 2).await;
    let keys: HashSet<Vec<u8>> =
        seen.content.identities.iter().map(|one| one.held.key_pkcs8.to_vec()).collect();
    assert_eq!(keys.len(), 2);
}

#[tokio::test]
async fn the_update_is_shown_before_it_is_acknowledged() {
    let rig = rig(600);
    *rig.server.down.lock().unwrap() = true;
    rig.update(true, vec![one("a")], &[]).await;
    assert!(*rig.cache.synced().borrow());
    assert!(rig.cache.snapshot().identity(&"a".parse().unwrap()).is_some());
}

#[tokio::test]
async fn a_removed_entry_is_withdrawn_with_the_update() {
    let rig = rig(600);
    let mut view = rig.view();
    rig.update(true, vec![one("a"), one("b")], &[]).await;
    until(&mut view, |view| view.content.identities.len() == 2).await;
    rig.update(false, vec![], &["a"]).await;
    assert_eq!(rig.view().borrow().content.identities.len(), 1);
}

#[tokio::test]
async fn a_snapshot_removes_what_it_does_not_name_and_keeps_the_svids_of_the_rest() {
    let rig = rig(600);
    let mut view = rig.view();
    rig.update(true, vec![one("a"), one("b")], &[]).await;
    let before = until(&mut view, |view| view.content.identities.len() == 2).await;
    rig.update(true, vec![one("b")], &[]).await;
    assert_eq!(serials(&rig.view().borrow()), serials(&before)[1..]);
}

#[tokio::test]
async fn a_refused_entry_keeps_none_of_the_others() {
    let rig = rig(600);
    rig.server.refused.lock().unwrap().insert("bad".into());
    let mut view = rig.view();
    rig.update(true, vec![one("bad"), one("good")], &[]).await;
    let seen = until(&mut view, |view| view.content.identities.len() == 1 && !view.is_signing()).await;
    assert!(matches!(&seen.unready[0].2, Unready::Failed(why) if why.contains("not authorized")));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_is_asked_again_and_all_entries_are_signed() {
    let rig = rig(600);
    *rig.server.down.lock().unwrap() = true;
    let mut view = rig.view();
    rig.update(true, vec![one("a"), one("b")], &[]).await;
    while rig.server.calls.load(Ordering::SeqCst) < 3 {
        rig.server.called.notified().await;
    }
    assert!(view.borrow_and_update().is_signing());
    *rig.server.down.lock().unwrap() = false;
    until(&mut view, |view| view.content.identities.len() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn updates_without_news_do_not_hasten_the_next_call_but_a_new_connection_does() {
    let rig = rig(600);
    *rig.server.down.lock().unwrap() = true;
    rig.update(true, vec![one("a")], &[]).await;
    while rig.server.calls.load(Ordering::SeqCst) < 5 {
        rig.server.called.notified().await;
    }
    // The next call is seconds away, in a virtual time that stands still while there is work.
    for _ in 0..100 {
        rig.update(false, vec![one("a")], &[]).await;
    }
    assert_eq!(rig.server.calls.load(Ordering::SeqCst), 5);
    rig.apply(|update| Update { is_first: true, ..update }).await;
    let began = Instant::now();
    rig.server.called.notified().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn a_bundle_that_cannot_be_understood_or_is_empty_takes_no_good_one_away() {
    let rig = rig(600);
    let bundle = |name: &str| {
        let name: TrustDomain = name.parse().unwrap();
        let x509_authorities = Authority::new(&name).bundle.authorities().to_vec();
        Bundle { x509_authorities, ..Bundle::new(name) }
    };
    let partners = vec![bundle("partner.example"), bundle("other.example")];
    let own = Some(bundle("prod.example"));
    rig.apply(|update| Update { snapshot: true, own_bundle: own, federated: partners, ..update }).await;
    let (empty, unreadable) = (Bundle::new(trust_domain()), vec!["partner.example".parse().unwrap()]);
    rig.apply(|update| Update {
        snapshot: true,
        own_bundle: Some(empty),
        unreadable_federated: unreadable,
        ..update
    })
    .await;
    let snapshot = rig.cache.snapshot();
    assert!(!snapshot.own_bundle().bundle.is_empty());
    let names: Vec<String> = snapshot.federated_names().map(ToString::to_string).collect();
    assert_eq!(names, ["partner.example"]);
}

#[tokio::test]
async fn jwt_authorities_that_come_are_tainted_or_go_touch_no_x509_svid() {
    let rig = rig(600);
    let x509_authorities = rig.server.authority.bundle.authorities().to_vec();
    let bundle = |jwt_authorities: &[&JwtAuthority]| {
        let (x509_authorities, jwt_authorities) =
            (x509_authorities.clone(), jwt_authorities.iter().map(|one| (*one).clone()).collect());
        Some(Bundle { x509_authorities, jwt_authorities, ..Bundle::new(trust_domain()) })
    };
    let jwt = |kid: &str| {
        let key = spindle_keys::Key::generate(KeyType::EcP256).unwrap();
        JwtAuthority::new(kid, key.spki_der(), None, false).unwrap()
    };
    let (first, second) = (jwt("1"), jwt("2"));
    let tainted = first.clone().with_taint(true);
    let mut view = rig.view();
    let (own_bundle, entries) = (bundle(&[&first]), vec![one("a")]);
    rig.apply(|update| Update { snapshot: true, own_bundle, entries, ..update }).await;
    until(&mut view, |view| view.content.identities.len() == 1).await;
    let answer = view.borrow().content.x509_svids();
    for jwt_authorities in [&[&first, &second][..], &[&tainted, &second], &[&second], &[]] {
        let own_bundle = bundle(jwt_authorities);
        rig.apply(|update| Update { own_bundle, ..update }).await;
    }
    assert_eq!(rig.server.calls.load(Ordering::SeqCst), 1, "nothing was signed anew");
    assert_eq!(view.borrow().content.x509_svids(), answer, "and no stream of X509-SVIDs has news");
    assert_eq!(rig.cache.snapshot().own_bundle().bundle, rig.server.authority.bundle);
}

#[tokio::test(start_paused = true)]
async fn an_svid_is_replaced_by_one_with_another_key_at_about_half_its_life() {
    let rig = rig(590);
    let mut view = rig.view();
    rig.update(true, vec![one("a")], &[]).await;
    let before = until(&mut view, |view| view.content.identities.len() == 1).await;
    let lifetime = 600;
    rig.clock.advance(lifetime / 2 - 10 - lifetime / 20 - 1);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(rig.server.calls.load(Ordering::SeqCst), 1, "too early");
    rig.clock.advance(lifetime / 10 + 2);
    let after = until(&mut view, |view| serials(view) != serials(&before)).await;
    assert_ne!(
        before.content.identities[0].held.key_pkcs8[..],
        after.content.identities[0].held.key_pkcs8[..]
    );
}

#[tokio::test(start_paused = true)]
async fn rotation_goes_on_after_the_clock_was_set_back() {
    let rig = rig(600);
    let mut view = rig.view();
    rig.update(true, vec![one("a")], &[]).await;
    let before = until(&mut view, |view| view.content.identities.len() == 1).await;
    rig.clock.advance(-100_000);
    until(&mut view, |view| serials(view) != serials(&before)).await;
}

#[tokio::test(start_paused = true)]
async fn an_svid_that_cannot_be_renewed_serves_to_its_end_and_is_then_withdrawn() {
    let rig = rig(50);
    let mut view = rig.view();
    rig.update(true, vec![one("a")], &[]).await;
    until(&mut view, |view| view.content.identities.len() == 1).await;
    *rig.server.down.lock().unwrap() = true;
    rig.clock.advance(50);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(view.borrow_and_update().content.identities.len(), 1);
    rig.clock.advance(1);
    let seen = until(&mut view, |view| view.content.identities.is_empty()).await;
    assert!(matches!(&seen.unready[0].2, Unready::Failed(why) if why.contains("expired")));
    *rig.server.down.lock().unwrap() = false;
    until(&mut view, |view| view.content.identities.len() == 1).await;
}

#[tokio::test]
async fn many_entries_are_signed_in_bounded_batches() {
    let rig = rig(600);
    let mut view = rig.view();
    let entries = (0..BATCH_MAX + 1).map(|number| one(&format!("e{number}"))).collect();
    rig.update(true, entries, &[]).await;
    until(&mut view, |view| view.content.identities.len() == BATCH_MAX + 1).await;
    assert_eq!(rig.server.calls.load(Ordering::SeqCst), 2);
    assert_eq!(rig.server.largest.load(Ordering::SeqCst), BATCH_MAX);
}

#[tokio::test]
async fn an_entry_without_prefetch_is_signed_when_a_workload_asks() {
    let rig = rig(600);
    let mut quiet = one("quiet");
    quiet.disable_x509_svid_prefetch = true;
    rig.update(true, vec![quiet], &[]).await;
    assert_eq!(rig.server.calls.load(Ordering::SeqCst), 0);
    until(&mut rig.view(), |view| view.content.identities.len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_a_pause_gets_it_and_some_jitter_more() {
    let rig = rig(600);
    let mut view = rig.view();
    let asked = Duration::from_secs(20);
    *rig.server.busy_for.lock().unwrap() = Some(asked);
    rig.update(true, vec![one("a"), one("b"), one("c")], &[]).await;
    rig.server.called.notified().await;
    *rig.server.busy_for.lock().unwrap() = None;
    let start = Instant::now();
    // News does not cut the pause short: the server is there, and busy.
    rig.update(false, vec![one("d")], &[]).await;
    until(&mut view, |view| view.content.identities.len() == 4).await;
    let waited = start.elapsed();
    assert!(waited >= asked && waited <= asked * 3 / 2 + Duration::from_secs(1), "{waited:?}");
    assert_eq!(rig.server.calls.load(Ordering::SeqCst), 2, "nobody asked in between");
    assert_eq!(
        rig.server.largest.load(Ordering::SeqCst),
        4,
        "a busy server is no reason for smaller batches"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pause_without_end_is_not_obeyed() {
    let rig = rig(600);
    let mut view = rig.view();
    *rig.server.busy_for.lock().unwrap() = Some(Duration::from_secs(1_000_000));
    rig.update(true, vec![one("a")], &[]).await;
    rig.server.called.notified().await;
    *rig.server.busy_for.lock().unwrap() = None;
    let start = Instant::now();
    until(&mut view, |view| view.content.identities.len() == 1).await;
    assert!(start.elapsed() <= CALL_BACKOFF.max * 3 / 2 + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn svids_beyond_the_caches_size_are_signed_for_streams_alone_and_let_go_when_these_are_over() {
    let rig = rig_with(600, RenewalPolicy::default(), 2);
    let entries = ["a", "b", "c"].map(|id| entry(id, &[&format!("unix:path:/{id}")]));
    let held = || -> Vec<String> {
        let snapshot = rig.cache.snapshot();
        let held = snapshot.identities().filter(|one| one.state.is_ok());
        held.map(|one| one.entry.id.to_string()).collect()
    };
    let subscribe = |id: &str| rig.cache.subscribe(&selectors(&[&format!("unix:path:/{id}")]));
    let is_served = |view: &View| view.content.identities.len() == 1;
    rig.update(true, entries.into(), &[]).await;
    let mut a = subscribe("a");
    until(&mut a, is_served).await;
    drop(subscribe("b"));
    assert_eq!(held(), ["a", "b"]);
    let mut c = subscribe("c");
    until(&mut c, is_served).await;
    assert_eq!(held(), ["a", "c"], "nobody has a stream for b");
    let mut b = subscribe("b");
    until(&mut b, is_served).await;
    assert_eq!(held(), ["a", "b", "c"], "streams are served whatever the size is");
    drop((a, b));
    rig.update(false, vec![entry("d", &["unix:path:/d"])], &["c"]).await;
    assert_eq!(held(), ["a", "b"], "the rest waits to be asked for");
}

#[tokio::test(start_paused = true)]
async fn an_availability_target_renews_long_before_half_of_the_life() {
    let day = Duration::from_secs(86_400);
    let policy = RenewalPolicy::with_availability_target(Some(4 * day));
    let rig = rig_with(5 * 86_400, policy, 1000);
    let mut view = rig.view();
    rig.update(true, vec![one("a")], &[]).await;
    let first = until(&mut view, |view| view.content.identities.len() == 1).await;
    let number = |view: &View| view.content.identities[0].held.number;
    rig.clock.advance(86_400 - 1200);
    rig.update(false, vec![one("b")], &[]).await;
    until(&mut view, |view| view.content.identities.len() == 2).await;
    assert_eq!(number(&view.borrow()), number(&first), "more than the target is left");
    rig.clock.advance(1300);
    until(&mut view, |view| number(view) != number(&first)).await;
}
