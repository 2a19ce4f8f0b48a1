//! Pods, as a kubelet tells them. The kubelet is a small HTTP server that answers in the form of a real one.

use super::*;
use crate::kubelet::fixtures::{FakeKubelet, POD_UID, pod_list};

fn object(key: Option<(&str, &str)>, uid: &str) -> Option<WorkloadReference> {
    of_kind(["pods", "core"], key, uid)
}

fn of_kind(kind: [&str; 2], key: Option<(&str, &str)>, uid: &str) -> Option<WorkloadReference> {
    let [plural, group] = kind.map(String::from);
    let object = KubernetesObjectReference {
        r#type: Some(KubernetesObjectType { plural, group }),
        key: key
            .map(|(namespace, name)| KubernetesObjectKey { namespace: namespace.into(), name: name.into() }),
        uid: uid.into(),
    };
    reference(OBJECT, object.encode_to_vec())
}

async fn rig() -> (Rig, FakeKubelet) {
    let fake = FakeKubelet::start(pod_list(&[("web-0", POD_UID, "web")])).await;
    let rig = rig_with(brokers(), Some(Kubelet::new(fake.config())));
    rig.publish(vec![entry("web", &["k8s:ns:shop", "k8s:pod-label:app:web"]), mine("other")]);
    (rig, fake)
}

#[tokio::test]
async fn bap_25_bap_27_bap_46_a_pod_is_found_by_its_key_its_uid_or_both_and_gets_what_its_selectors_earn() {
    let (rig, _fake) = rig().await;
    let client = rig.client(ANYHOW).await;
    for reference in [
        object(Some(("shop", "web-0")), ""),
        object(None, POD_UID),
        object(Some(("shop", "web-0")), &POD_UID.to_uppercase()),
    ] {
        let first = next(&mut svids(&client, reference.clone()).await.unwrap()).await.unwrap();
        assert_eq!(ids(&first), ["spiffe://prod.example/web"]);
        assert!(all_four(&client, reference).await.iter().all(Result::is_ok));
    }
    let over_tcp = ApiClient::new(rig.dialer(Some(ANYHOW)).connect().await.unwrap());
    assert!(svids(&over_tcp, object(None, POD_UID)).await.is_ok());
}

#[tokio::test]
async fn bap_24_bap_27_a_pod_that_is_not_there_or_has_another_uid_is_not_found() {
    let (rig, _fake) = rig().await;
    let client = rig.client(ANYHOW).await;
    let stale = POD_UID.replace('0', "1");
    let gone = expected(Code::NotFound, "WORKLOAD_NOT_FOUND", Reason::WorkloadNotFound);
    for reference in [
        object(Some(("shop", "web-1")), ""),
        object(Some(("other", "web-0")), ""),
        object(None, &stale),
        object(Some(("shop", "web-0")), &stale),
    ] {
        check_all_four(&client, reference, &gone).await;
    }
}

#[tokio::test]
async fn bap_11_objects_that_are_no_pods_are_invalid_references() {
    let (rig, _fake) = rig().await;
    let client = rig.client(ANYHOW).await;
    let invalid = expected(Code::InvalidArgument, "WORKLOAD_REFERENCE_INVALID", Reason::ReferenceInvalid);
    for kind in [["deployments", "apps"], ["pods", "example.com"]] {
        check_all_four(&client, of_kind(kind, Some(("shop", "web")), ""), &invalid).await;
    }
}

#[tokio::test]
async fn bap_53_a_stream_ends_when_its_pod_is_gone_or_another_has_its_name() {
    let (rig, fake) = rig().await;
    let client = rig.client(ANYHOW).await;
    let mut stream = svids(&client, object(Some(("shop", "web-0")), "")).await.unwrap();
    next(&mut stream).await.unwrap();
    fake.set(pod_list(&[("web-0", &POD_UID.replace('0', "1"), "web")]));
    assert_eq!(next(&mut stream).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_pod_that_changes_its_labels_loses_what_they_earned() {
    let (rig, fake) = rig().await;
    let client = rig.client(ANYHOW).await;
    let mut stream = svids(&client, object(None, POD_UID)).await.unwrap();
    next(&mut stream).await.unwrap();
    fake.set(pod_list(&[("web-0", POD_UID, "db")]));
    let denied = expected(Code::PermissionDenied, "WORKLOAD_NOT_ENTITLED", Reason::NoMatchingEntry);
    assert_eq!(refusal_of(&next(&mut stream).await.unwrap_err()), denied);
}

#[tokio::test]
async fn a_kubelet_that_cannot_tell_makes_the_endpoint_unavailable_for_pods_alone() {
    let (rig, fake) = rig().await;
    fake.set("no list".into());
    let client = rig.client(ANYHOW).await;
    let failed = expected(Code::Unavailable, "", Reason::AttestationFailed);
    check_all_four(&client, object(None, POD_UID), &failed).await;
    assert!(svids(&client, me()).await.is_ok());
}
