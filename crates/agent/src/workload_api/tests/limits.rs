//! How often callers with the same selectors may call.

use spindle_proto::refusal::retry_after_of;

use super::*;
use crate::config::RateLimits;
use crate::fixtures::calling_as;
use crate::gate::GateSettings;

/// More than any machine answers in a second one after the other.
const CALLS_MAX: usize = 100_000;

#[tokio::test]
async fn streams_of_svids_beyond_the_limit_are_told_when_to_come_back_and_the_agent_itself_has_no_limit() {
    let rig = rig().await;
    rig.publish(vec![mine("a")]);
    let rate_limits = RateLimits { fetch_x509_svid: 1, ..RateLimits::default() };
    let settings = GateSettings { rate_limits, ..GateSettings::default() };
    let callers = Callers::new(vec![unix()], ProcRoot::default());
    let gate = Gate::with(settings, rig.cache.clone(), callers, rig.shutdown.clone());
    let api = workload_api(gate, &rig.cache, &rig.issuer, false);
    let mut process = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let client = |pid| SpiffeWorkloadApiClient::with_interceptor(api.clone(), calling_as(pid));
    let open = async |pid| client(pid).fetch_x509svid(with_header(X509svidRequest {})).await;

    let mut first = open(process.id()).await.unwrap().into_inner();
    assert_eq!(ids(&first.message().await.unwrap().unwrap()), ["spiffe://prod.example/a"]);
    let mut calls = 0;
    let refused = loop {
        calls += 1;
        match open(process.id()).await {
            Err(refused) => break refused,
            Ok(_) => assert!(calls < CALLS_MAX, "no limit"),
        }
    };
    assert!(retry_after_of(&refused).is_some_and(|after| after <= Duration::from_secs(1)));
    let text = "rate limit exceeded for /SpiffeWorkloadAPI/FetchX509SVID";
    check_refused::<()>(Err(refused), Code::Unavailable, Reason::Overloaded, text);

    let other = client(process.id()).fetch_x509_bundles(with_header(X509BundlesRequest {})).await;
    assert!(other.is_ok(), "a method without a limit");
    for _ in 0..10 {
        assert!(open(std::process::id()).await.is_ok(), "the agent itself");
    }
    rig.publish(vec![mine("b")]);
    assert_eq!(first.message().await.unwrap().unwrap().svids.len(), 2, "an open stream does not count again");
    process.kill().unwrap();
    process.wait().unwrap();
}
