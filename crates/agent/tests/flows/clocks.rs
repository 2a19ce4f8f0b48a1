//! Agents whose clock is not the server's.

use std::sync::atomic::AtomicI64;

use spindle_spiffe_core::Timestamp;

use super::*;

/// The machine's clock, wrong by a number of seconds that a test chooses.
#[derive(Clone, Default)]
struct WrongClock(Arc<AtomicI64>);

impl WrongClock {
    fn by(secs: i64) -> Self {
        Self(Arc::new(AtomicI64::new(secs)))
    }

    fn set(&self, secs: i64) {
        self.0.store(secs, Ordering::SeqCst);
    }
}

impl Clock for WrongClock {
    fn now(&self) -> Timestamp {
        SystemClock.now() + self.0.load(Ordering::SeqCst)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_clock_is_behind_joins_serves_and_renews() {
    let rig = Rig::new(Fake::new(true, 6)).await;
    rig.fake.put([mine("a")]);
    let agent = start_with(rig.config(Some("good")), Arc::new(WrongClock::by(-300)));
    agent.is_ready().await;
    assert_eq!(next(&mut agent.fetch().await.unwrap()).await.unwrap().svids.len(), 1);
    let mut serials = rig.fake.serials.subscribe();
    timeout(LONG, serials.wait_for(|seen| seen.len() >= 2)).await.expect("it renews").unwrap();
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_clock_jumps_past_its_svid_is_renewed_and_goes_on() {
    let rig = Rig::new(Fake::new(true, 6)).await;
    rig.fake.put([mine("a")]);
    let clock = WrongClock::default();
    let agent = start_with(rig.config(Some("good")), Arc::new(clock.clone()));
    agent.is_ready().await;
    rig.fake.agent_ttl_secs.store(3600, Ordering::SeqCst);
    clock.set(60);
    let mut serials = rig.fake.serials.subscribe();
    timeout(LONG, serials.wait_for(|seen| seen.len() >= 2)).await.expect("it renews").unwrap();
    rig.fake.put([mine("b")]);
    let mut stream = agent.fetch().await.unwrap();
    while next(&mut stream).await.unwrap().svids.len() < 2 {}
    agent.stop().await;
}
