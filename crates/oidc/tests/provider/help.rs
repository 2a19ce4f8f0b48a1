//! A provider for one test, and HTTP by hand, so that nothing of ours stands between test and wire.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::PublicKeyData;
use spindle_oidc::{
    Bound, Health, Listener, PathPrefix, Provider, ProviderConfig, ProviderError, Refresh, Site, Source,
    SourceKind,
};
use spindle_runtime::{Shutdown, SystemClock};
use spindle_spiffe_core::{Bundle, JwtAuthority};
use spindle_testkit::{SeededEntropy, TestFolder};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

/// A provider that runs until the test ends.
pub(crate) struct Running {
    pub(crate) bound: Bound,
    pub(crate) health: Option<std::net::SocketAddr>,
    pub(crate) refresh: Refresh,
    pub(crate) shutdown: Shutdown,
    pub(crate) ended: JoinHandle<Result<(), ProviderError>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

/// The configuration of a provider of `oidc.test` whose keys stand in a file.
pub(crate) fn config(listener: Listener, bundle: PathBuf) -> ProviderConfig {
    ProviderConfig {
        site: Site {
            domains: vec!["oidc.test".parse().unwrap()],
            jwt_issuer: None,
            jwks_uri: None,
            path_prefix: PathPrefix::default(),
            allow_insecure_scheme: false,
        },
        source: Source { kind: SourceKind::File(bundle), poll_interval: Duration::from_secs(3600) },
        listener,
        health: Some(Health { address: local(), ready_path: "/ready".into(), live_path: "/live".into() }),
        set_key_use: false,
        log_requests: false,
    }
}

/// A free port on this machine alone.
pub(crate) fn local() -> spindle_oidc::ListenAddress {
    "127.0.0.1:0".parse().unwrap()
}

pub(crate) async fn try_start(config: ProviderConfig) -> Result<Running, ProviderError> {
    let (shutdown, refresh) = (Shutdown::new(), Refresh::default());
    let entropy = Arc::new(SeededEntropy::new(7));
    let provider =
        Provider::start(config, refresh.clone(), SystemClock::shared(), entropy, shutdown.clone()).await?;
    let (bound, health) = (provider.bound().clone(), provider.health_address());
    #[expect(clippy::disallowed_methods, reason = "a test observes the end by its handle")]
    let ended = tokio::spawn(provider.wait());
    Ok(Running { bound, health, refresh, shutdown, ended })
}

pub(crate) async fn start(config: ProviderConfig) -> Running {
    try_start(config).await.unwrap()
}

/// A provider over HTTP whose file holds a key with this ID, once it shows it.
pub(crate) async fn serving(folder: &TestFolder, kid: &str) -> Running {
    let bundle = bundle_file(folder, &[kid]);
    let running = start(config(Listener::Insecure(local()), bundle)).await;
    running.wait_for_keys(&[kid]).await;
    running
}

/// A bundle document with a new key for each ID.
pub(crate) fn bundle_file(folder: &TestFolder, kids: &[&str]) -> PathBuf {
    let mut bundle = Bundle::new("example.test".parse().unwrap());
    bundle.jwt_authorities = kids.iter().map(|kid| authority(kid)).collect();
    folder.file("bundle.json", bundle.to_json())
}

/// A new key as servers hold it.
pub(crate) fn authority(kid: &str) -> JwtAuthority {
    JwtAuthority::new(kid, &rcgen::KeyPair::generate().unwrap().subject_public_key_info(), None, false)
        .unwrap()
}

impl Running {
    pub(crate) fn tcp(&self) -> std::net::SocketAddr {
        match &self.bound {
            Bound::Tcp(address) => *address,
            Bound::Unix(path) => panic!("listens on {}", path.display()),
        }
    }

    pub(crate) async fn connect(&self) -> Box<dyn Wire> {
        match &self.bound {
            Bound::Tcp(address) => Box::new(TcpStream::connect(address).await.unwrap()),
            Bound::Unix(path) => Box::new(UnixStream::connect(path).await.unwrap()),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        ask(self.connect().await, path, "oidc.test").await.unwrap()
    }

    pub(crate) async fn health(&self, path: &str) -> u16 {
        let stream = TcpStream::connect(self.health.unwrap()).await.unwrap();
        ask(Box::new(stream), path, "localhost").await.unwrap().status
    }

    /// Waits until exactly these keys are shown, asking for a fresh look each time.
    pub(crate) async fn wait_for_keys(&self, kids: &[&str]) {
        wait(async || {
            self.refresh.now();
            self.get("/keys").await.kids() == kids
        })
        .await;
    }
}

pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// An answer of the provider.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The IDs of the keys of a JWK Set; none when it is something else.
    pub(crate) fn kids(&self) -> Vec<String> {
        let document: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        let keys = document["keys"].as_array().cloned().unwrap_or_default();
        keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }
}

/// One GET, and all that comes until the provider closes.
pub(crate) async fn ask(mut stream: Box<dyn Wire>, path: &str, host: &str) -> io::Result<Answer> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok(Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
}

/// Asks until it is so; the test's own limit ends a wait for what never comes.
pub(crate) async fn wait(is_so: impl AsyncFn() -> bool) {
    let until = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), until).await.expect("in time");
}
