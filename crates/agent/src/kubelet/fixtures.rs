//! A kubelet that says what a test tells it to. Test code only.

use std::sync::{Arc, Mutex};

use spindle_runtime::TaskSet;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::Kubelet;
use crate::config::{KubeletConfig, KubeletPort};
use crate::plugins::{LivePlugins, PluginSettings};

pub(crate) const POD_UID: &str = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";

impl Kubelet {
    /// One that stays the same.
    pub(crate) fn new(config: KubeletConfig) -> Self {
        let settings = PluginSettings { kubelet: Some(config), ..PluginSettings::default() };
        Self::following(LivePlugins::new(settings))
    }
}

/// Answers every request with the same text.
pub(crate) struct FakeKubelet {
    pub(crate) port: u16,
    answer: Arc<Mutex<String>>,
    /// The heads of requests.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    _tasks: TaskSet,
}

impl FakeKubelet {
    pub(crate) async fn start(answer: String) -> Self {
        Self::over(answer, None).await
    }

    pub(crate) async fn over(answer: String, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (answer, asked) = (Arc::new(Mutex::new(answer)), Arc::<Mutex<Vec<String>>>::default());
        let (says, notes) = (answer.clone(), asked.clone());
        let mut tasks = TaskSet::new();
        tasks.spawn_infallible("kubelet", async move {
            while let Ok((stream, _)) = listener.accept().await {
                match &tls {
                    None => serve(stream, &says, &notes).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            serve(stream, &says, &notes).await;
                        }
                    }
                }
            }
        });
        Self { port, answer, asked, _tasks: tasks }
    }

    pub(crate) fn set(&self, answer: String) {
        *self.answer.lock().unwrap() = answer;
    }

    /// Over plain HTTP.
    pub(crate) fn config(&self) -> KubeletConfig {
        KubeletConfig { node_name: None, port: KubeletPort::ReadOnly(self.port) }
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    says: &Mutex<String>,
    notes: &Mutex<Vec<String>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    notes.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
    let text = says.lock().unwrap().clone();
    let answer =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}", text.len());
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// Pods of the namespace `shop`: name, uid and the label `app`.
pub(crate) fn pod_list(pods: &[(&str, &str, &str)]) -> String {
    let items: Vec<serde_json::Value> = pods
        .iter()
        .map(|(name, uid, app)| {
            serde_json::json!({
                "metadata": {
                    "name": name, "namespace": "shop", "uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z",
                    "labels": { "app": app, "empty": "" },
                    "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "u-1", "controller": true }],
                },
                "spec": { "nodeName": "node-1", "serviceAccountName": "shopper", "containers": [{ "name": "main" }] },
                "status": {
                    "phase": "Running",
                    "containerStatuses": [
                        { "name": "main", "image": "shop/web:1", "imageID": "shop/web@sha256:aa", "containerID": "containerd://c" },
                        { "name": "side", "image": "shop/side:1", "imageID": "", "state": { "waiting": {} } },
                    ],
                    "initContainerStatuses": [{ "name": "init", "image": "shop/init:1", "imageID": "shop/init@sha256:bb" }],
                },
            })
        })
        .collect();
    serde_json::json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items }).to_string()
}
