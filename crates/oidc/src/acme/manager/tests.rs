use std::path::Path;

use rcgen::{CertificateParams, KeyPair};
use spindle_testkit::{ManualClock, NOW, SeededEntropy};

use super::*;
use crate::config::ListenAddress;

/// A cache directory with a certificate of `oidc.test` that is valid from `from` on for 90 days, as ACME servers make them.
fn cached(dir: &Path, from: Timestamp, change: impl FnOnce(String) -> String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["oidc.test".to_owned()]).unwrap();
    let at = |secs: i64| time_of(from + secs);
    (params.not_before, params.not_after) = (at(0), at(90 * DAY));
    let pem = key.serialize_pem() + &params.self_signed(&key).unwrap().pem();
    std::fs::write(dir.join("oidc.test"), change(pem)).unwrap();
}

fn time_of(at: Timestamp) -> ::time::OffsetDateTime {
    ::time::OffsetDateTime::from_unix_timestamp(at.unix_secs()).unwrap()
}

const DAY: i64 = 24 * 3600;

async fn manager(dir: &Path) -> (Manager, Arc<Certificates>) {
    let config = AcmeConfig {
        directory_url: "https://127.0.0.1:1/directory".into(),
        email: "a@b.test".into(),
        cache_dir: Some(dir.into()),
        domains: vec!["oidc.test".parse().unwrap()],
        address: ListenAddress::all(0),
    };
    let clock = ManualClock::at(NOW).shared();
    super::super::open(config, clock, Arc::new(SeededEntropy::new(1))).await.unwrap()
}

/// When the one domain is tried for, in seconds from now, and whether it is served already.
async fn next(dir: &Path) -> (i64, bool) {
    let (manager, certificates) = manager(dir).await;
    let served = format!("{certificates:?}").contains("oidc.test");
    (manager.held[0].life.next(NOW).secs_since(NOW), served)
}

#[tokio::test]
async fn a_certificate_of_the_cache_is_served_and_renewed_when_two_thirds_of_its_life_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    cached(dir.path(), NOW - 10 * DAY, |pem| pem);
    let (next, served) = next(dir.path()).await;
    assert!(served && (46 * DAY..54 * DAY).contains(&next), "{next}");
}

#[tokio::test]
async fn a_certificate_that_is_due_or_over_or_broken_is_asked_for_at_once() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(next(dir.path()).await, (0, false));
    cached(dir.path(), NOW - 80 * DAY, |pem| pem);
    assert_eq!(next(dir.path()).await, (0, true));
    cached(dir.path(), NOW - 91 * DAY, |pem| pem);
    assert_eq!(next(dir.path()).await, (0, true));
    cached(dir.path(), NOW, |pem| pem.replace("PRIVATE KEY", "PUBLIC KEY"));
    assert_eq!(next(dir.path()).await, (0, false));
    let other = KeyPair::generate().unwrap().serialize_pem();
    cached(dir.path(), NOW, |pem| other + &pem[pem.find("-----BEGIN CERTIFICATE").unwrap()..]);
    assert_eq!(next(dir.path()).await, (0, false));
}

#[tokio::test]
async fn failures_are_tried_again_after_growing_pauses_and_a_reload_tries_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut manager, _) = manager(dir.path()).await;
    let mut pauses = Vec::new();
    for _ in 0..9 {
        let life = &mut manager.held[0].life;
        life.failed(NOW, Jitter::NONE);
        pauses.push(life.next(NOW).secs_since(NOW));
    }
    assert_eq!(pauses, [300, 600, 1200, 2400, 4800, 9600, 19_200, 21_600, 21_600]);
    manager.held[0].life.hurry(NOW);
    assert_eq!(manager.held[0].life.next(NOW), NOW);
}

#[tokio::test]
async fn a_renewal_that_fails_keeps_the_old_certificate() {
    let dir = tempfile::tempdir().unwrap();
    cached(dir.path(), NOW - 80 * DAY, |pem| pem);
    let (mut manager, certificates) = manager(dir.path()).await;
    // Nobody listens on that port, or the system trusts nobody: either way there is no certificate.
    manager.replace(0).await;
    assert!(manager.held[0].life.next(NOW) > NOW);
    assert!(format!("{certificates:?}").contains("oidc.test"));
}
