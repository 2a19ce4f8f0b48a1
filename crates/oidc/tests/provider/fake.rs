//! A gRPC server on a Unix socket that gives one answer until it is told another: to each call, or as a stream of changes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use spindle_proto::spire::api::types;
use spindle_proto::workload::JwtBundlesResponse;
use spindle_transport::{UnixClients, UnixListener, UnixSocketConfig, grpc_server};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::server::{Grpc, NamedService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

/// What is said now.
#[derive(Clone)]
pub(crate) enum Say {
    Bundle(Result<types::Bundle, Status>),
    JwtBundles(Result<JwtBundlesResponse, Status>),
}

pub(crate) fn bundle_of(bundle: Result<types::Bundle, Status>) -> Say {
    Say::Bundle(bundle)
}

pub(crate) fn jwt_bundles_of(bundles: Result<&[(&str, &str)], Status>) -> Say {
    Say::JwtBundles(bundles.map(|bundles| {
        let own = |(id, text): &(&str, &str)| ((*id).to_owned(), text.as_bytes().to_vec().into());
        JwtBundlesResponse { bundles: bundles.iter().map(own).collect::<BTreeMap<_, _>>() }
    }))
}

/// The server; it goes with all its connections when this is dropped.
pub(crate) struct Fake {
    state: Arc<State>,
    /// Of its own, since a server's connections are tasks that its end leaves alone.
    runtime: Option<Runtime>,
}

struct State {
    say: watch::Sender<Say>,
    /// How often it was asked or, on a stream, has said something.
    said: watch::Sender<u64>,
    security_header: Mutex<Option<String>>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Fake {
    pub(crate) async fn serve(path: &Path, say: Say) -> Self {
        let config = UnixSocketConfig {
            path: path.into(),
            mode: 0o700,
            parent_mode: 0o700,
            clients: UnixClients::Tools,
        };
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        // The socket of a server that was just dropped may answer for a moment longer.
        let listener = loop {
            let bound = {
                let _inside = runtime.enter();
                UnixListener::bind(&config)
            };
            match bound {
                Ok(listener) => break listener,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let state = Arc::new(State {
            say: watch::Sender::new(say),
            said: watch::Sender::new(0),
            security_header: Mutex::default(),
        });
        let (bundle, workload) = (BundleService(state.clone()), WorkloadService(state.clone()));
        runtime.spawn(async move {
            let router = grpc_server().add_service(bundle).add_service(workload);
            router.serve_with_incoming(listener.incoming()).await.expect("serves");
        });
        Self { state, runtime: Some(runtime) }
    }

    /// Says this from now on; returns how often it has said something so far.
    pub(crate) fn answer(&self, say: Say) -> u64 {
        let said = *self.state.said.borrow();
        self.state.say.send_replace(say);
        said
    }

    pub(crate) async fn wait_until_asked_after(&self, said: u64) {
        // One question may have been answered with the old answer just now.
        self.state.said.subscribe().wait_for(|now| *now > said + 1).await.unwrap();
    }

    pub(crate) async fn wait_until_sent_after(&self, said: u64) {
        self.state.said.subscribe().wait_for(|now| *now > said).await.unwrap();
    }

    pub(crate) fn security_header(&self) -> Option<String> {
        self.state.security_header.lock().unwrap().clone()
    }
}

impl State {
    fn note(&self) {
        self.said.send_modify(|said| *said += 1);
    }
}

#[derive(Clone)]
struct BundleService(Arc<State>);

impl NamedService for BundleService {
    const NAME: &'static str = "spire.api.server.bundle.v1.Bundle";
}

#[derive(Clone)]
struct WorkloadService(Arc<State>);

impl NamedService for WorkloadService {
    const NAME: &'static str = "SpiffeWorkloadAPI";
}

type Answering = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl Service<http::Request<Body>> for BundleService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answering {
        assert!(request.uri().path().ends_with("/GetBundle"), "{}", request.uri());
        let state = self.0.clone();
        Box::pin(async move {
            let say = service_fn(move |request: Request<GetBundle>| {
                let mask = request.into_inner().output_mask.expect("a mask");
                assert!(mask.jwt_authorities && !mask.x509_authorities);
                state.note();
                let Say::Bundle(answer) = state.say.borrow().clone() else { panic!("another answer") };
                std::future::ready(answer.map(Response::new))
            });
            Ok(Grpc::new(ProstCodec::default()).unary(say, request).await)
        })
    }
}

type GetBundle = spindle_proto::spire::api::server::bundle::v1::GetBundleRequest;

type Changes = Pin<Box<dyn Stream<Item = Result<JwtBundlesResponse, Status>> + Send>>;

impl Service<http::Request<Body>> for WorkloadService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answering {
        assert!(request.uri().path().ends_with("/FetchJWTBundles"), "{}", request.uri());
        let state = self.0.clone();
        Box::pin(async move {
            let say = service_fn(move |request: Request<spindle_proto::workload::JwtBundlesRequest>| {
                let header =
                    request.metadata().get("workload.spiffe.io").map(|it| it.to_str().unwrap().to_owned());
                *state.security_header.lock().unwrap() = header;
                let noted = state.clone();
                let changes = WatchStream::new(state.say.subscribe()).map(move |say| {
                    noted.note();
                    match say {
                        Say::JwtBundles(answer) => answer,
                        Say::Bundle(_) => panic!("another answer"),
                    }
                });
                std::future::ready(Ok::<_, Status>(Response::new(Box::pin(changes) as Changes)))
            });
            Ok(Grpc::new(ProstCodec::default()).server_streaming(say, request).await)
        })
    }
}
