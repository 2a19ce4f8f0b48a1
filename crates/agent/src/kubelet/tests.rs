//! The call over HTTPS, and what a pod shows.

use std::path::PathBuf;

use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use spindle_keys::{Key, KeyType};
use spindle_runtime::SystemClock;
use spindle_spiffe_core::{Clock, Validity};
use spindle_testkit::{TestAuthority, TestFolder};
use tokio_rustls::TlsAcceptor;

use super::fixtures::{FakeKubelet, POD_UID, pod_list};
use super::*;
use crate::config::{KubeletConfig, KubeletCredentials, KubeletPort, KubeletTrust};

fn by_uid(uid: &str) -> PodName {
    PodName { key: None, uid: Some(uid.into()) }
}

fn list() -> String {
    pod_list(&[("web-0", POD_UID, "web")])
}

#[tokio::test]
async fn a_pod_shows_what_spires_attestor_tells_of_pods() {
    let fake = FakeKubelet::start(list()).await;
    let pods = Kubelet::new(fake.config()).pods().await.unwrap();
    let selectors = pods.find(&by_uid(POD_UID)).unwrap().selectors().unwrap();
    let shown: Vec<String> = selectors.iter().map(ToString::to_string).collect();
    let uid = format!("k8s:pod-uid:{POD_UID}");
    let mut expected = vec![
        "k8s:sa:shopper",
        "k8s:ns:shop",
        "k8s:node-name:node-1",
        &uid,
        "k8s:pod-name:web-0",
        "k8s:pod-image-count:2",
        "k8s:pod-init-image-count:1",
        "k8s:pod-image:shop/web:1",
        "k8s:pod-image:shop/web@sha256:aa",
        "k8s:pod-image:shop/side:1",
        "k8s:pod-init-image:shop/init:1",
        "k8s:pod-init-image:shop/init@sha256:bb",
        "k8s:pod-label:app:web",
        "k8s:pod-label:empty:",
        "k8s:pod-owner:StatefulSet:web",
        "k8s:pod-owner-uid:StatefulSet:u-1",
    ];
    expected.sort_unstable();
    // An image without a digest yet is shown by its name alone.
    assert_eq!(shown, expected);
    let head = fake.asked.lock().unwrap().concat();
    assert!(head.starts_with("GET /pods HTTP/1.1\r\n") && !head.contains("authorization"), "{head}");
}

#[tokio::test]
async fn those_who_ask_within_a_second_share_one_list() {
    let fake = FakeKubelet::start(list()).await;
    let kubelet = Kubelet::new(fake.config());
    let all = futures_util::future::join_all((0..50).map(|_| kubelet.pods())).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(fake.asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_no_list_of_pods_is_an_error_and_an_empty_list_is_not() {
    for text in ["", "no list", "[1]", r#"{"items":[{"metadata":{}}]}"#, r#"{"items":7}"#] {
        let fake = FakeKubelet::start(text.into()).await;
        let failed = Kubelet::new(fake.config()).pods().await;
        assert!(matches!(failed, Err(KubeletError::Answer(_))), "{text}: {failed:?}");
    }
    for text in ["{}", r#"{"kind":"PodList","items":[]}"#] {
        let fake = FakeKubelet::start(text.into()).await;
        assert!(Kubelet::new(fake.config()).pods().await.unwrap().find(&by_uid(POD_UID)).is_none());
    }
}

/// A kubelet with a certificate for `localhost`, and the files of those who call it.
struct Secure {
    fake: FakeKubelet,
    folder: TestFolder,
    ca: PathBuf,
}

impl Secure {
    async fn start() -> Self {
        let now = SystemClock.now();
        let (authority, key) =
            (TestAuthority::new("kubelet.example", now), Key::generate(KeyType::EcP256).unwrap());
        let validity = Validity { not_before: now - 10, not_after: now + 3600 };
        let names = ["localhost".parse().unwrap()];
        let svid = authority.sign(&authority.id("/kubelet"), key.spki_der(), &names, validity);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec()));
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(svid.chain().to_vec(), key)
            .unwrap();
        let folder = TestFolder::new();
        let ca = folder.file("ca.pem", authority.x509_bundle().to_pem());
        let fake = FakeKubelet::over(list(), Some(TlsAcceptor::from(Arc::new(tls)))).await;
        Self { fake, folder, ca }
    }

    async fn pods(
        &self,
        node_name: Option<&str>,
        trust: KubeletTrust,
        credentials: KubeletCredentials,
    ) -> Result<Arc<Pods>, KubeletError> {
        let port = KubeletPort::Secure { port: self.fake.port, trust, credentials };
        Kubelet::new(KubeletConfig { node_name: node_name.map(String::from), port }).pods().await
    }
}

#[tokio::test]
async fn over_https_the_kubelet_is_recognised_by_its_authority_and_by_name_where_there_is_one() {
    let secure = Secure::start().await;
    let ours = || KubeletTrust::Authorities(secure.ca.clone());
    let nothing = KubeletCredentials::Anonymous;
    for (name, trust) in [(Some("localhost"), ours()), (None, ours()), (None, KubeletTrust::Anyone)] {
        let pods = secure.pods(name, trust, nothing.clone()).await.unwrap();
        assert!(pods.find(&by_uid(POD_UID)).is_some(), "{name:?}");
    }
    let other = TestAuthority::new("kubelet.example", SystemClock.now()).x509_bundle().to_pem();
    let other = KubeletTrust::Authorities(secure.folder.file("other.pem", other));
    let none = KubeletTrust::Authorities(secure.folder.file("none.pem", ""));
    for (name, trust) in
        [(Some("127.0.0.1"), ours()), (Some("localhost"), other.clone()), (None, other), (None, none)]
    {
        assert!(secure.pods(name, trust, nothing.clone()).await.is_err(), "{name:?}");
    }
}

#[tokio::test]
async fn a_token_is_read_anew_for_each_call_and_never_told() {
    let secure = Secure::start().await;
    let token = secure.folder.file("token", "secret-1\n");
    let shown = KubeletCredentials::Token(token.clone());
    secure.pods(None, KubeletTrust::Anyone, shown.clone()).await.unwrap();
    std::fs::write(&token, "secret-2").unwrap();
    secure.pods(None, KubeletTrust::Anyone, shown.clone()).await.unwrap();
    let asked = secure.fake.asked.lock().unwrap().join("");
    assert!(asked.contains("authorization: Bearer secret-1\r\n"), "{asked}");
    assert!(asked.contains("authorization: Bearer secret-2\r\n"), "{asked}");
    std::fs::write(&token, "secret\u{7}3").unwrap();
    let error = secure.pods(None, KubeletTrust::Anyone, shown).await.unwrap_err();
    assert!(error.to_string().contains("holds no token") && !error.to_string().contains("secret"), "{error}");
}
