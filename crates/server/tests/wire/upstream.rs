//! A server below an upstream authority in files: chains, bundles, orders and restarts as callers see them.

use std::process::Command;

use spindle_proto::spire::api::server::localauthority::v1 as wire;
use spindle_proto::spire::api::server::svid::v1 as svid_api;
use spindle_server::{DiskUpstreamSettings, KeyType, StoreKind, UpstreamSettings};
use spindle_spiffe_core::pem::certificates_to_pem;
use spindle_spiffe_core::{Reason, X509Svid};
use spindle_testkit::{NOW, TestFolder, UpstreamFiles, left_out};
use tonic::{Code, Status};

use crate::support::{TestServer, csr_of, entry, expect_refusal, in_time};

/// A server whose upstream authority is in `folder`.
async fn below(folder: &TestFolder, files: &UpstreamFiles, key_type: KeyType) -> TestServer {
    let [cert_file_path, key_file_path, bundle] = files.write(folder);
    TestServer::start_with(|config| {
        config.store.kind = StoreKind::Sled;
        config.ca_key_type = key_type;
        let bundle_file_path = Some(bundle);
        let disk = DiskUpstreamSettings { cert_file_path, key_file_path, bundle_file_path };
        config.upstream = Some(UpstreamSettings::Disk(disk));
    })
    .await
}

/// An SVID that a fresh agent fetches for a workload of its own.
async fn fetched(server: &TestServer) -> X509Svid {
    let agent = server.attest().await;
    let entry_id = server.create_one(entry(&agent.id, "/web", &["unix:uid:1"])).await;
    let key = spindle_keys::Key::generate(KeyType::EcP256).unwrap();
    let params = vec![svid_api::NewX509svidParams { entry_id, csr: csr_of(&key).into() }];
    let request = svid_api::BatchNewX509svidRequest { params };
    let answer = in_time(agent.svids().batch_new_x509svid(request)).await.unwrap().into_inner();
    server.verified(answer.results[0].svid.as_ref().unwrap()).await
}

async fn states(server: &TestServer) -> wire::GetX509AuthorityStateResponse {
    let request = wire::GetX509AuthorityStateRequest {};
    server.local_authorities().await.get_x509_authority_state(request).await.unwrap().into_inner()
}

/// Prepares an authority and lets it sign.
async fn rotate(server: &TestServer) {
    let mut client = server.local_authorities().await;
    let prepared = client.prepare_x509_authority(wire::PrepareX509AuthorityRequest {}).await.unwrap();
    let authority_id = prepared.into_inner().prepared_authority.unwrap().authority_id;
    client.activate_x509_authority(wire::ActivateX509AuthorityRequest { authority_id }).await.unwrap();
}

async fn taint(server: &TestServer, key_id: &str) -> Result<String, Status> {
    let request = wire::TaintX509UpstreamAuthorityRequest { subject_key_id: key_id.into() };
    let answer = server.local_authorities().await.taint_x509_upstream_authority(request).await?;
    Ok(answer.into_inner().upstream_authority_subject_key_id)
}

async fn revoke(server: &TestServer, key_id: &str) -> Result<String, Status> {
    let request = wire::RevokeX509UpstreamAuthorityRequest { subject_key_id: key_id.into() };
    let answer = server.local_authorities().await.revoke_x509_upstream_authority(request).await?;
    Ok(answer.into_inner().upstream_authority_subject_key_id)
}

#[tokio::test]
async fn agents_and_workloads_get_chains_that_lead_to_the_upstream_root_with_every_key_type() {
    for key_type in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let folder = TestFolder::new();
        let files = UpstreamFiles::with_intermediate("one", NOW);
        let server = below(&folder, &files, key_type).await;
        let svid = fetched(&server).await;
        assert_eq!(
            svid.intermediates().len(),
            2,
            "the server's authority and what signed it, without the root"
        );
        let bundle = server.bundle().await;
        assert_eq!(bundle.x509_authorities.len(), 1);
        assert_eq!(bundle.x509_authorities[0].der(), files.root());
        check_with_openssl(&folder, &svid, &files);
    }
}

/// OpenSSL's strict checks at the tests' time.
fn check_with_openssl(folder: &TestFolder, svid: &X509Svid, files: &UpstreamFiles) {
    if Command::new("openssl").arg("version").output().is_err() {
        return left_out("OpenSSL on chains to an upstream root", "there is no openssl command");
    }
    let root = folder.file("root.pem", certificates_to_pem([files.root()]));
    let above = folder.file("above.pem", certificates_to_pem(svid.intermediates()));
    let leaf = folder.file("leaf.pem", certificates_to_pem([svid.leaf()]));
    let at = NOW.unix_secs().to_string();
    let verified = Command::new("openssl")
        .args(["verify", "-x509_strict", "-purpose", "sslserver", "-attime", &at, "-CAfile"])
        .arg(root)
        .arg("-untrusted")
        .args([above, leaf])
        .output()
        .unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}

#[tokio::test]
async fn a_restart_goes_on_with_the_same_chain() {
    let folder = TestFolder::new();
    let mut server = below(&folder, &UpstreamFiles::with_intermediate("one", NOW), KeyType::EcP256).await;
    let (before, bundle) = (fetched(&server).await, server.bundle().await);
    server.restart().await;
    assert_eq!(fetched(&server).await.intermediates(), before.intermediates());
    assert_eq!(server.bundle().await, bundle);
}

#[tokio::test]
async fn an_upstream_root_is_swapped_tainted_and_revoked_while_agents_stay() {
    let folder = TestFolder::new();
    let (old, new) = (UpstreamFiles::self_signed("old", NOW), UpstreamFiles::self_signed("new", NOW));
    let server = below(&folder, &old, KeyType::EcP256).await;
    let agent = server.attest().await;
    assert_eq!(states(&server).await.active.unwrap().upstream_authority_subject_key_id, old.root_key_id());
    new.write(&folder);
    rotate(&server).await;
    let shown = states(&server).await;
    assert_eq!(shown.active.unwrap().upstream_authority_subject_key_id, new.root_key_id());
    assert_eq!(shown.old.unwrap().upstream_authority_subject_key_id, old.root_key_id());
    expect_refusal(revoke(&server, &old.root_key_id()).await, Code::Internal, Reason::AuthorityState);
    assert_eq!(taint(&server, &old.root_key_id().to_uppercase()).await.unwrap(), old.root_key_id());
    agent.knock().await.expect("tainted is still trusted");
    let (key, svid) = agent.renew().await;
    let renewed = server.connect(key, &svid).await;
    assert_eq!(revoke(&server, &old.root_key_id()).await.unwrap(), old.root_key_id());
    renewed.knock().await.expect("it hangs from the new root");
    server.try_dial(&agent.svid, &agent.key).await.expect_err("the root of that one is gone");
    assert_eq!(server.bundle().await.x509_authorities.len(), 1);
    fetched(&server).await;
}

#[tokio::test]
async fn orders_about_the_wrong_root_are_refused() {
    let folder = TestFolder::new();
    let (old, new) = (UpstreamFiles::self_signed("old", NOW), UpstreamFiles::self_signed("new", NOW));
    let server = below(&folder, &old, KeyType::EcP256).await;
    for key_id in ["", "abcd", &old.root_key_id(), &new.root_key_id(), &"f".repeat(100_000)] {
        expect_refusal(taint(&server, key_id).await, Code::InvalidArgument, Reason::AuthorityNotFound);
        expect_refusal(revoke(&server, key_id).await, Code::InvalidArgument, Reason::AuthorityNotFound);
    }
    let mut client = server.local_authorities().await;
    let authority_id = states(&server).await.active.unwrap().authority_id;
    let taint = wire::TaintX509AuthorityRequest { authority_id: authority_id.clone() };
    let tainted = client.taint_x509_authority(taint).await;
    let text = expect_refusal(tainted, Code::FailedPrecondition, Reason::UpstreamAuthority);
    assert_eq!(text, "local authority can't be tainted if there is an upstream authority");
    let revoke = wire::RevokeX509AuthorityRequest { authority_id };
    let revoked = client.revoke_x509_authority(revoke).await;
    expect_refusal(revoked, Code::FailedPrecondition, Reason::UpstreamAuthority);
}

#[tokio::test]
async fn a_server_whose_upstream_files_are_broken_does_not_start_and_one_that_runs_goes_on() {
    let folder = TestFolder::new();
    let files = UpstreamFiles::self_signed("one", NOW);
    let mut server = below(&folder, &files, KeyType::EcP256).await;
    let [_, key, _] = files.write(&folder);
    std::fs::write(&key, "no key").unwrap();
    rotate(&server).await;
    assert_eq!(states(&server).await.active.unwrap().upstream_authority_subject_key_id, files.root_key_id());
    server.stop().await;
    let error = server.try_boot_on(0).await.expect_err("nobody can sign");
    let error = spindle_spiffe_core::ErrorChain(&error).to_string();
    assert!(error.contains("no unencrypted private key") && error.contains("upstream.key"), "{error}");
    files.write(&folder);
    server.restart_stopped().await;
    fetched(&server).await;
}
