//! A broker endpoint that does what a test wants, over mutual TLS on a real socket.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use spindle_proto::broker::api_server::{Api, ApiServer};
use spindle_proto::broker::*;
use spindle_runtime::SystemClock;
use spindle_spiffe_core::Clock;
use spindle_testkit::TestAuthority;
use spindle_transport::{
    LiveBundles, LiveIdentity, Peer, ServerTls, TlsIncoming, UnixClients, UnixListener, UnixSocketConfig,
    peer_of,
};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use crate::fake::{Answer, Messages};

type TokenAnswer = Box<dyn Fn(&FetchJwtsvidRequest) -> Result<FetchJwtsvidResponse, Status> + Send + Sync>;

/// What is answered; each gets the number of the call, from 0.
pub(crate) struct BrokerScript {
    pub(crate) x509: Box<dyn Fn(usize) -> Answer<SubscribeToX509svidResponse> + Send + Sync>,
    pub(crate) x509_bundles: Box<dyn Fn(usize) -> Answer<SubscribeToX509BundlesResponse> + Send + Sync>,
    pub(crate) jwt_bundles: Box<dyn Fn(usize) -> Answer<SubscribeToJwtBundlesResponse> + Send + Sync>,
    pub(crate) jwt: TokenAnswer,
}

impl BrokerScript {
    /// X509-SVIDs alone.
    pub(crate) fn x509(
        answer: impl Fn(usize) -> Answer<SubscribeToX509svidResponse> + Send + Sync + 'static,
    ) -> Self {
        Self {
            x509: Box::new(answer),
            x509_bundles: Box::new(|_| Err(Status::permission_denied("none"))),
            jwt_bundles: Box::new(|_| Err(Status::permission_denied("none"))),
            jwt: Box::new(|_| Err(Status::permission_denied("none"))),
        }
    }
}

/// One call: its method, the serial number of the caller's certificate, and the reference.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: &'static str,
    pub(crate) serial: String,
    pub(crate) reference: WorkloadReference,
}

struct Service {
    script: BrokerScript,
    calls: Arc<Mutex<Vec<Call>>>,
}

/// The running server; it ends when dropped.
pub(crate) struct FakeBroker {
    pub(crate) socket: PathBuf,
    calls: Arc<Mutex<Vec<Call>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeBroker {
    /// An endpoint that shows an SVID of `authority` with this path.
    pub(crate) fn start(socket: &Path, authority: &TestAuthority, path: &str, script: BrokerScript) -> Self {
        let shown = authority.issue(path, SystemClock.now());
        let identity = LiveIdentity::new();
        identity.set(shown.svid.chain().to_vec(), &shown.key.pkcs8_der()).unwrap();
        let bundles = LiveBundles::new(authority.x509_bundle().into());
        let tls = ServerTls { identity, bundles, clock: SystemClock::shared() };
        let calls = Arc::new(Mutex::new(Vec::new()));
        let service = ApiServer::new(Service { script, calls: calls.clone() });
        let config = UnixSocketConfig {
            path: socket.into(),
            mode: 0o700,
            parent_mode: 0o700,
            clients: UnixClients::Tools,
        };
        let (stop, stopped) = oneshot::channel();
        let (bound, is_bound) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = UnixListener::bind(&config).unwrap();
                bound.send(()).unwrap();
                let incoming = TlsIncoming::over_unix(listener, tls).of_identified_clients();
                let serve =
                    tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming);
                tokio::select! {
                    ended = serve => ended.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        is_bound.recv().unwrap();
        Self { socket: socket.into(), calls, stop: Some(stop), thread: Some(thread) }
    }

    /// The calls of a method so far.
    pub(crate) fn calls(&self, method: &str) -> Vec<Call> {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|call| call.method == method).cloned().collect()
    }
}

impl Drop for FakeBroker {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Service {
    /// Notes a call, which has to be a broker's; returns its number.
    fn note<T>(
        &self,
        method: &'static str,
        request: &Request<T>,
        reference: Option<&WorkloadReference>,
    ) -> usize {
        assert_eq!(request.metadata().get("broker.spiffe.io").unwrap(), "true");
        let Some(Peer::LocalTls { identity: Some(peer), .. }) = peer_of(request) else {
            panic!("no identity")
        };
        let serial = peer.svid().serial_decimal();
        let mut calls = self.calls.lock().unwrap();
        let number = calls.iter().filter(|call| call.method == method).count();
        calls.push(Call { method, serial, reference: reference.expect("a reference").clone() });
        number
    }
}

#[tonic::async_trait]
impl Api for Service {
    type SubscribeToX509SVIDStream = Messages<SubscribeToX509svidResponse>;
    type SubscribeToX509BundlesStream = Messages<SubscribeToX509BundlesResponse>;
    type SubscribeToJWTBundlesStream = Messages<SubscribeToJwtBundlesResponse>;

    async fn subscribe_to_x509svid(
        &self,
        request: Request<SubscribeToX509svidRequest>,
    ) -> Result<Response<Messages<SubscribeToX509svidResponse>>, Status> {
        let number = self.note("x509", &request, request.get_ref().reference.as_ref());
        (self.script.x509)(number).map(Response::new)
    }

    async fn subscribe_to_x509_bundles(
        &self,
        request: Request<SubscribeToX509BundlesRequest>,
    ) -> Result<Response<Messages<SubscribeToX509BundlesResponse>>, Status> {
        let number = self.note("x509_bundles", &request, request.get_ref().reference.as_ref());
        (self.script.x509_bundles)(number).map(Response::new)
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<FetchJwtsvidRequest>,
    ) -> Result<Response<FetchJwtsvidResponse>, Status> {
        self.note("jwt", &request, request.get_ref().reference.as_ref());
        (self.script.jwt)(request.get_ref()).map(Response::new)
    }

    async fn subscribe_to_jwt_bundles(
        &self,
        request: Request<SubscribeToJwtBundlesRequest>,
    ) -> Result<Response<Messages<SubscribeToJwtBundlesResponse>>, Status> {
        let number = self.note("jwt_bundles", &request, request.get_ref().reference.as_ref());
        (self.script.jwt_bundles)(number).map(Response::new)
    }
}
