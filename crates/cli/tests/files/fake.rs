//! A Workload API that does what a test wants, on a real socket.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use spindle_proto::workload::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
use spindle_proto::workload::*;
use spindle_runtime::SystemClock;
use spindle_spiffe_core::{Clock, X509Bundle};
use spindle_testkit::{TestAuthority, TestIdentity};
use tokio::sync::oneshot;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

pub(crate) type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
pub(crate) type Answer<T> = Result<Messages<T>, Status>;

type TokenAnswer = Box<dyn Fn(&JwtsvidRequest) -> Result<JwtsvidResponse, Status> + Send + Sync>;

/// What is answered; each gets the number of the call, from 0.
pub(crate) struct Script {
    pub(crate) x509: Box<dyn Fn(usize) -> Answer<X509svidResponse> + Send + Sync>,
    pub(crate) x509_bundles: Box<dyn Fn(usize) -> Answer<X509BundlesResponse> + Send + Sync>,
    pub(crate) jwt_bundles: Box<dyn Fn(usize) -> Answer<JwtBundlesResponse> + Send + Sync>,
    pub(crate) jwt: TokenAnswer,
    pub(crate) wit: Box<dyn Fn(usize) -> Answer<WitsvidResponse> + Send + Sync>,
    pub(crate) wit_bundles: Box<dyn Fn() -> Answer<WitBundlesResponse> + Send + Sync>,
}

impl Script {
    /// X509-SVIDs alone.
    pub(crate) fn x509(answer: impl Fn(usize) -> Answer<X509svidResponse> + Send + Sync + 'static) -> Self {
        Self {
            x509: Box::new(answer),
            x509_bundles: Box::new(|_| Err(Status::unimplemented("not here"))),
            jwt_bundles: Box::new(|_| Err(Status::permission_denied("none"))),
            jwt: Box::new(|_| Err(Status::permission_denied("none"))),
            wit: Box::new(|_| Err(Status::unimplemented("no WIT-SVIDs here"))),
            wit_bundles: Box::new(|| Err(Status::unimplemented("no WIT-SVIDs here"))),
        }
    }
}

/// How often each method was called.
#[derive(Default)]
pub(crate) struct Calls {
    pub(crate) x509: AtomicUsize,
    pub(crate) x509_bundles: AtomicUsize,
    pub(crate) jwt_bundles: AtomicUsize,
    pub(crate) wit: AtomicUsize,
    pub(crate) validate: AtomicUsize,
}

struct Service {
    script: Script,
    calls: Arc<Calls>,
}

/// The running server; it ends when dropped.
pub(crate) struct Fake {
    pub(crate) socket: PathBuf,
    pub(crate) calls: Arc<Calls>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    pub(crate) fn start(socket: &Path, script: Script) -> Self {
        let calls = Arc::new(Calls::default());
        let service = SpiffeWorkloadApiServer::new(Service { script, calls: calls.clone() });
        let (stop, stopped) = oneshot::channel();
        let (path, (bound, is_bound)) = (socket.to_owned(), std::sync::mpsc::channel());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::UnixListener::bind(path).unwrap();
                bound.send(()).unwrap();
                let serve = tonic::transport::Server::builder()
                    .add_service(service)
                    .serve_with_incoming(UnixListenerStream::new(listener));
                // Connections are cut, as those of an agent that is killed.
                tokio::select! {
                    ended = serve => ended.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        is_bound.recv().unwrap();
        Self { socket: socket.into(), calls, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn x509_calls(&self) -> usize {
        self.calls.x509.load(Ordering::SeqCst)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
        let _ = std::fs::remove_file(&self.socket);
    }
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for Service {
    type FetchX509SVIDStream = Messages<X509svidResponse>;
    type FetchX509BundlesStream = Messages<X509BundlesResponse>;
    type FetchJWTBundlesStream = Messages<JwtBundlesResponse>;
    type FetchWITSVIDStream = Messages<WitsvidResponse>;
    type FetchWITBundlesStream = Messages<WitBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Messages<X509svidResponse>>, Status> {
        assert_eq!(request.metadata().get("workload.spiffe.io").unwrap(), "true");
        (self.script.x509)(self.calls.x509.fetch_add(1, Ordering::SeqCst)).map(Response::new)
    }

    async fn fetch_x509_bundles(
        &self,
        _: Request<X509BundlesRequest>,
    ) -> Result<Response<Messages<X509BundlesResponse>>, Status> {
        (self.script.x509_bundles)(self.calls.x509_bundles.fetch_add(1, Ordering::SeqCst)).map(Response::new)
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        (self.script.jwt)(request.get_ref()).map(Response::new)
    }

    async fn fetch_jwt_bundles(
        &self,
        _: Request<JwtBundlesRequest>,
    ) -> Result<Response<Messages<JwtBundlesResponse>>, Status> {
        (self.script.jwt_bundles)(self.calls.jwt_bundles.fetch_add(1, Ordering::SeqCst)).map(Response::new)
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        self.calls.validate.fetch_add(1, Ordering::SeqCst);
        let valid = request.get_ref().svid == "good" && request.get_ref().audience == "billing";
        let answer = ValidateJwtsvidResponse { spiffe_id: "spiffe://example.org/web".into(), claims: None };
        if valid { Ok(Response::new(answer)) } else { Err(Status::invalid_argument("not a good one")) }
    }

    async fn fetch_witsvid(
        &self,
        _: Request<WitsvidRequest>,
    ) -> Result<Response<Messages<WitsvidResponse>>, Status> {
        (self.script.wit)(self.calls.wit.fetch_add(1, Ordering::SeqCst)).map(Response::new)
    }

    async fn fetch_wit_bundles(
        &self,
        _: Request<WitBundlesRequest>,
    ) -> Result<Response<Messages<WitBundlesResponse>>, Status> {
        (self.script.wit_bundles)().map(Response::new)
    }
}

/// These messages, and then silence on an open stream.
pub(crate) fn held<T: Send + 'static>(messages: Vec<T>) -> Answer<T> {
    Ok(Box::pin(tokio_stream::iter(messages.into_iter().map(Ok)).chain(tokio_stream::pending())))
}

/// These messages, and then what `end` says.
pub(crate) fn ended<T: Send + 'static>(messages: Vec<T>, end: Option<Status>) -> Answer<T> {
    Ok(Box::pin(tokio_stream::iter(messages.into_iter().map(Ok).chain(end.map(Err)))))
}

/// What a test pushes, newest last; messages that nobody took in time are passed over.
pub(crate) fn pushed<T: Clone + Send + Sync + 'static>(
    newest: &tokio::sync::watch::Receiver<Result<T, tonic::Code>>,
) -> Answer<T> {
    let stream = tokio_stream::wrappers::WatchStream::new(newest.clone());
    Ok(Box::pin(stream.map(|next| next.map_err(|code| Status::new(code, "as the test wants")))))
}

/// An authority whose SVIDs are valid now.
pub(crate) fn authority() -> TestAuthority {
    TestAuthority::new("example.org", SystemClock.now())
}

pub(crate) fn svid(bundle: &X509Bundle, identity: &TestIdentity, hint: &str) -> X509svid {
    X509svid {
        spiffe_id: identity.svid.spiffe_id().to_string(),
        x509_svid: identity.svid.to_der().into(),
        x509_svid_key: identity.key.pkcs8_der().to_vec().into(),
        bundle: bundle.to_der().into(),
        hint: hint.into(),
    }
}

/// A message with one new SVID for `/web`.
pub(crate) fn message(authority: &TestAuthority) -> X509svidResponse {
    let identity = authority.issue("/web", SystemClock.now());
    X509svidResponse { svids: vec![svid(&authority.x509_bundle(), &identity, "")], ..Default::default() }
}
