//! Below an upstream authority: chains, roots, restarts, and distrust of a root.

use spindle_spiffe_core::Reason;
use spindle_testkit::UpstreamFiles;
use tonic::Code;

use super::*;
use crate::config::{DiskUpstreamSettings, UpstreamSettings};
use crate::live::Reloadable;

/// The folder of an upstream authority's files, which the test replaces.
struct Hand(TestFolder);

impl Hand {
    /// An upstream authority that reads these files.
    async fn holding(
        &self,
        files: &UpstreamFiles,
        clock: &ManualClock,
    ) -> Option<Arc<dyn UpstreamAuthority>> {
        let [cert_file_path, key_file_path, bundle] = files.write(&self.0);
        let bundle_file_path = Some(bundle);
        let settings =
            UpstreamSettings::Disk(DiskUpstreamSettings { cert_file_path, key_file_path, bundle_file_path });
        let entropy = Arc::new(spindle_runtime::SystemEntropy);
        let live =
            LiveSettings::new(Reloadable { upstream: Some(settings.clone()), ..Reloadable::default() });
        Some(crate::upstream::open(&settings, live, &trust_domain(), clock.shared(), entropy).await.unwrap())
    }

    fn swap(&self, files: &UpstreamFiles) {
        files.write(&self.0);
    }
}

/// A bench whose first authority is signed by these files, and the folder that they are in.
async fn below(files: &UpstreamFiles) -> (Bench, Hand) {
    let (clock, directory) = (ManualClock::default(), directory());
    let hand = Hand(TestFolder::new());
    let subscriptions = Subscriptions::of(&directory);
    let keys: Arc<dyn KeyManager> = Arc::new(MemoryKeys::new());
    let upstream = hand.holding(files, &clock).await;
    let authorities =
        authorities_below(&directory, &subscriptions, keys.clone(), &clock, CA_TTL_SECS, upstream);
    authorities.start().await.unwrap();
    (Bench { clock, directory, subscriptions, keys, authorities }, hand)
}

/// What must hold at every moment below an upstream authority.
fn check_below(bench: &Bench) {
    let now = bench.clock.now();
    let bundles = X509Bundles::from(bench.bundle().x509_bundle());
    let svid = bench.authorities.identity().svid().expect("the server has an SVID");
    verify_x509_svid(svid.chain(), &bundles, now).expect("the server's own SVID leads to a root");
    let active = bench.authorities.active().unwrap();
    assert_eq!(svid.intermediates(), active.upstream_chain());
    assert!(!bench.trusted().contains(&bench.active()), "an intermediate is no root");
    assert_eq!(bench.authorities.server_svid().len(), svid.chain().len());
}

#[track_caller]
fn refused(outcome: Result<Standing, OrderError>, code: Code, reason: Reason, text: &str) {
    let error = outcome.expect_err("a refusal");
    assert_eq!((error.to_string().as_str(), error.code(), error.reason()), (text, code, reason));
}

#[tokio::test]
async fn the_bundle_holds_the_upstream_root_and_every_chain_leads_to_it() {
    let files = UpstreamFiles::self_signed("one", NOW);
    let (bench, _) = below(&files).await;
    check_below(&bench);
    assert_eq!(bench.trusted(), [files.root_key_id()]);
    let states = bench.authorities.states().unwrap();
    assert_eq!(states.active.upstream_authority_id, files.root_key_id());
    let sequence = bench.bundle().sequence;
    bench.at(CA_TTL_SECS / 2 + 1).await;
    assert!(bench.prepared().is_some());
    assert_eq!(bench.bundle().sequence, sequence, "the next one hangs from the same root");
    let first = bench.active();
    bench.at(CA_TTL_SECS * 5 / 6 + 1).await;
    assert_ne!(bench.active(), first);
    check_below(&bench);
}

#[tokio::test]
async fn a_restart_goes_on_with_the_same_authority_and_its_chain() {
    let files = UpstreamFiles::with_intermediate("one", NOW);
    let (bench, hand) = below(&files).await;
    let (first, sequence) = (bench.active(), bench.bundle().sequence);
    bench.at(CA_TTL_SECS / 2 + 1).await;
    let prepared = bench.prepared();
    let keys = bench.keys.clone();
    let bench = {
        let upstream = hand.holding(&files, &bench.clock).await;
        bench.restarted_below(keys.clone(), upstream).await
    };
    assert_eq!((bench.active(), bench.prepared()), (first.clone(), prepared));
    assert_eq!(
        bench.authorities.active().unwrap().upstream_chain().len(),
        2,
        "ours, and the one that signed it"
    );
    assert_eq!(bench.bundle().sequence, sequence);
    check_below(&bench);
    // Without its root in the bundle nobody would trust it.
    bundles_without_roots(&bench).await;
    let upstream = hand.holding(&files, &bench.clock).await;
    let bench = bench.restarted_below(keys, upstream).await;
    assert_ne!(bench.active(), first);
    check_below(&bench);
}

async fn bundles_without_roots(bench: &Bench) {
    let trust_domain = trust_domain();
    let edited = crate::bundles::edit_own(&bench.directory, &trust_domain, Transaction::new(), |bundle| {
        bundle.x509_authorities.clear();
        Ok::<(), CommitError>(())
    });
    edited.await.unwrap();
}

#[tokio::test]
async fn an_authority_ends_with_what_is_above_it() {
    let (bench, _) = below(&UpstreamFiles::ending("short", NOW, NOW + 3600)).await;
    assert_eq!(bench.authorities.active().unwrap().validity().not_after, NOW + 3600);
    bench.at(1801).await;
    assert!(bench.prepared().is_some(), "it rotates by the shorter life");
    bench.clock.set(NOW + 3601);
    let error = bench.authorities.advance().await.expect_err("nothing is left above it");
    assert!(ErrorChain(&error).to_string().contains("upstream"), "{}", ErrorChain(&error));
}

#[tokio::test]
async fn local_authorities_are_not_distrusted_below_an_upstream_authority() {
    let (bench, _) = below(&UpstreamFiles::self_signed("one", NOW)).await;
    let first = bench.active();
    let (code, reason) = (Code::FailedPrecondition, Reason::UpstreamAuthority);
    let text = "local authority can't be tainted if there is an upstream authority";
    refused(bench.order(Order::Taint(first.clone())).await, code, reason, text);
    let text = "local authority can't be revoked if there is an upstream authority";
    refused(bench.order(Order::Revoke(first)).await, code, reason, text);
}

#[tokio::test]
async fn a_root_is_tainted_and_revoked_once_another_one_signs() {
    let (old, new) = (UpstreamFiles::self_signed("old", NOW), UpstreamFiles::self_signed("new", NOW));
    let (bench, hand) = below(&old).await;
    let (old_id, new_id) = (old.root_key_id(), new.root_key_id());
    let taint = |id: &str| bench.order(Order::TaintUpstream(id.into()));
    let revoke = |id: &str| bench.order(Order::RevokeUpstream(id.into()));
    let invalid = |why: &str| format!("provided subject key id is not valid: {why}");
    let (argument, unknown) = (Code::InvalidArgument, Reason::AuthorityNotFound);
    refused(taint("").await, argument, unknown, &invalid("no subject key ID provided"));
    let current = invalid("unable to use upstream authority signing current authority");
    refused(taint(&old_id).await, argument, unknown, &current);

    hand.swap(&new);
    let prepared = bench.order(Order::Prepare).await.unwrap();
    assert_eq!(prepared.upstream_authority_id, new_id);
    assert_eq!(bench.trusted(), [old_id.clone(), new_id.clone()]);
    let early = invalid("only upstream authorities signing an old authority can be used");
    refused(taint(&new_id).await, argument, Reason::AuthorityState, &early);
    bench.order(Order::Activate(prepared.authority_id)).await.unwrap();
    refused(taint(&new_id).await, argument, unknown, &current);
    let other = invalid("upstream authority didn't sign the old local authority");
    refused(taint("abcd").await, argument, unknown, &other);
    let untainted =
        "failed to revoke X.509 upstream authority: it is not possible to revoke an untainted root CA";
    refused(revoke(&old_id).await, Code::Internal, Reason::AuthorityState, untainted);

    taint(&old_id.to_ascii_uppercase()).await.unwrap();
    let tainted: Vec<bool> = bench.bundle().x509_authorities.iter().map(X509Authority::is_tainted).collect();
    assert_eq!(tainted, [true, false]);
    let again = "failed to taint upstream authority: root CA is already tainted";
    refused(taint(&old_id).await, Code::Internal, Reason::AuthorityState, again);
    revoke(&old_id).await.unwrap();
    assert_eq!(bench.trusted(), [new_id]);
    check_below(&bench);
}

#[tokio::test]
async fn with_an_intermediate_the_root_is_named_because_only_it_is_in_the_bundle() {
    let old = UpstreamFiles::with_intermediate("old", NOW);
    let (bench, hand) = below(&old).await;
    hand.swap(&UpstreamFiles::with_intermediate("new", NOW));
    let prepared = bench.order(Order::Prepare).await.unwrap().authority_id;
    bench.order(Order::Activate(prepared)).await.unwrap();
    let shown = bench.authorities.states().unwrap().old.unwrap().upstream_authority_id;
    assert_ne!(shown, old.root_key_id(), "the certificate that signed is shown, as SPIRE does");
    let text = "failed to taint upstream authority: no ca found with provided subject key ID";
    let by_signer = bench.order(Order::TaintUpstream(shown)).await;
    refused(by_signer, Code::Internal, Reason::AuthorityState, text);
    bench.order(Order::TaintUpstream(old.root_key_id())).await.unwrap();
    bench.order(Order::RevokeUpstream(old.root_key_id())).await.unwrap();
    assert_eq!(bench.trusted().len(), 1);
    check_below(&bench);
}

#[tokio::test]
async fn a_tainted_root_goes_with_the_next_authority_when_upstream_does_not_name_it() {
    let (old, new) = (UpstreamFiles::self_signed("old", NOW), UpstreamFiles::self_signed("new", NOW));
    let (bench, hand) = below(&old).await;
    hand.swap(&new);
    let prepared = bench.order(Order::Prepare).await.unwrap().authority_id;
    bench.order(Order::Activate(prepared)).await.unwrap();
    bench.order(Order::TaintUpstream(old.root_key_id())).await.unwrap();
    bench.order(Order::Prepare).await.unwrap();
    assert_eq!(bench.trusted(), [new.root_key_id()]);
    check_below(&bench);
}

#[tokio::test]
async fn a_self_signed_authority_signs_on_until_one_below_the_new_upstream_takes_over() {
    let bench = Bench::new().await;
    let first = bench.active();
    let files = UpstreamFiles::self_signed("one", NOW);
    let (keys, hand) = (bench.keys.clone(), Hand(TestFolder::new()));
    let upstream = hand.holding(&files, &bench.clock).await;
    let bench = bench.restarted_below(keys.clone(), upstream).await;
    assert_eq!(
        (bench.active(), bench.authorities.states().unwrap().active.upstream_authority_id),
        (first.clone(), String::new())
    );
    let prepared = bench.order(Order::Prepare).await.unwrap().authority_id;
    bench.order(Order::Activate(prepared)).await.unwrap();
    assert_eq!(bench.trusted(), [first, files.root_key_id()]);
    check_below(&bench);
    // And back again, when the upstream authority is gone.
    let bench = bench.restarted(keys).await;
    let prepared = bench.order(Order::Prepare).await.unwrap();
    assert_eq!(prepared.upstream_authority_id, "");
    bench.order(Order::Activate(prepared.authority_id)).await.unwrap();
    check(&bench);
}

#[tokio::test]
async fn an_upstream_that_may_have_no_authority_below_it_makes_none() {
    let (bench, hand) = below(&UpstreamFiles::self_signed("one", NOW)).await;
    let (first, sequence) = (bench.active(), bench.bundle().sequence);
    hand.swap(&UpstreamFiles::without_room_below("last", NOW));
    let error = bench.order(Order::Prepare).await.expect_err("the path would be too long");
    assert_eq!((error.code(), error.reason()), (Code::Internal, Reason::AuthorityFailed));
    assert!(error.to_string().contains("not trusted by its upstream roots"), "{error}");
    assert_eq!((bench.active(), bench.bundle().sequence), (first, sequence));
    check_below(&bench);
}
