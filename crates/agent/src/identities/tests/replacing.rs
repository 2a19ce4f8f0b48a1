//! What becomes of SVIDs whose authority is tainted or gone.

use super::*;

/// What became of `count` SVIDs: how many calls it took, the most in one, and the time until all were replaced.
async fn replaced(count: usize, taint: bool) -> (usize, usize, Duration) {
    let rig = rig(600);
    let ours = rig.server.authority.bundle.authorities()[0].clone();
    let other = Authority::new(&trust_domain()).bundle.authorities()[0].clone();
    let bundle = |x509_authorities| Some(Bundle { x509_authorities, ..Bundle::new(trust_domain()) });
    let mut view = rig.view();
    let entries = (0..count).map(|number| one(&format!("e{number}"))).collect();
    let own_bundle = bundle(vec![ours.clone(), other.clone()]);
    rig.apply(|update| Update { snapshot: true, own_bundle, entries, ..update }).await;
    let first = until(&mut view, |view| view.content.identities.len() == count).await;
    rig.server.calls.store(0, Ordering::SeqCst);
    rig.server.largest.store(0, Ordering::SeqCst);
    let own_bundle = bundle(if taint { vec![ours.with_taint(true), other] } else { vec![other] });
    let begun = Instant::now();
    rig.apply(|update| Update { own_bundle, ..update }).await;
    let old = serials(&first);
    until(&mut view, |view| {
        assert_eq!(view.content.identities.len(), count, "each serves on until its successor is there");
        serials(view).iter().all(|serial| !old.contains(serial))
    })
    .await;
    let (calls, largest) = (&rig.server.calls, &rig.server.largest);
    (calls.load(Ordering::SeqCst), largest.load(Ordering::SeqCst), begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn svids_below_a_tainted_authority_are_replaced_in_small_steps_from_a_moment_of_the_agents_own() {
    let (calls, largest, took) = replaced(250, true).await;
    assert!(largest <= 10 && calls >= 25, "{calls} calls, up to {largest} in one");
    assert!(took >= Duration::from_millis(2400), "a hundred a second: {took:?}");
    assert!(took <= pace::START_MAX + Duration::from_secs(10), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn svids_whose_authority_is_gone_are_replaced_at_once() {
    let (calls, largest, took) = replaced(250, false).await;
    assert_eq!((calls, largest), (1, 250));
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_revocation_in_the_middle_of_the_replacement_hurries_the_rest() {
    let rig = rig(600);
    let ours = rig.server.authority.bundle.authorities()[0].clone();
    let other = Authority::new(&trust_domain()).bundle.authorities()[0].clone();
    let bundle = |x509_authorities| Some(Bundle { x509_authorities, ..Bundle::new(trust_domain()) });
    let mut view = rig.view();
    let (own_bundle, entries) = (bundle(vec![ours.clone()]), vec![one("a"), one("b")]);
    rig.apply(|update| Update { snapshot: true, own_bundle, entries, ..update }).await;
    let first = until(&mut view, |view| view.content.identities.len() == 2).await;
    let begun = Instant::now();
    let own_bundle = bundle(vec![ours.with_taint(true), other.clone()]);
    rig.apply(|update| Update { own_bundle, ..update }).await;
    let own_bundle = bundle(vec![other]);
    rig.apply(|update| Update { own_bundle, ..update }).await;
    until(&mut view, |view| serials(view) != serials(&first)).await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    let calls = rig.server.calls.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(rig.server.calls.load(Ordering::SeqCst), calls, "what is replaced is not replaced once more");
}

#[tokio::test(start_paused = true)]
async fn an_svid_whose_authority_is_tainted_is_replaced_and_others_stay() {
    let rig = rig(600);
    let ours = rig.server.authority.bundle.authorities()[0].clone();
    let other = Authority::new(&trust_domain()).bundle.authorities()[0].clone();
    let bundle = |authorities: &[&X509Authority]| {
        let x509_authorities = authorities.iter().map(|one| (*one).clone()).collect();
        Some(Bundle { x509_authorities, ..Bundle::new(trust_domain()) })
    };
    let mut view = rig.view();
    let (own_bundle, entries) = (bundle(&[&ours, &other]), vec![one("a")]);
    rig.apply(|update| Update { snapshot: true, own_bundle, entries, ..update }).await;
    let first = until(&mut view, |view| view.content.identities.len() == 1).await;
    let own_bundle = bundle(&[&ours]);
    rig.apply(|update| Update { own_bundle, ..update }).await;
    assert_eq!(rig.server.calls.load(Ordering::SeqCst), 1, "another authority left");
    let own_bundle = bundle(&[&ours.clone().with_taint(true)]);
    rig.apply(|update| Update { own_bundle, ..update }).await;
    until(&mut view, |view| serials(view) != serials(&first)).await;
}
