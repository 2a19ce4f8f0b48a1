//! Serves gRPC to the workloads of a node: one task for each connection, with as little memory as the HTTP/2 library allows.
//!
//! What tonic's own server adds for each connection (layers, HTTP/1, a second copy of the settings) is not needed on this
//! socket. A connection that is one too many is served all the same, for a moment: each of its calls is told why it is
//! refused, which a closed socket cannot. Start at [`serve`].

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt;
use tonic::Status;
use tonic::body::Body;
use tower::Service;
use tracing::{debug, warn};

use crate::grpc::{FRAME_BYTES_MAX, HEADER_LIST_BYTES_MAX, PING_EVERY, PING_TIMEOUT, STREAMS_MAX};
use crate::io::Io;
use crate::peer::Peer;
use crate::unix::{Crowded, UnixIncoming};

/// Bytes a client may send for a call before it is asked to wait: the protocol's default. Requests of workloads are far
/// smaller.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024 - 1;

/// The same for a connection. The HTTP/2 library gives connections up on which more small frames than this allows wait to be
/// read: with [`STREAMS_MAX`] calls at once that are a quarter of a megabyte.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// How long a connection that is one too many may take to make its call.
const TELL_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves `service` on all connections of `incoming` until `stop` ends, then closes the listener, lets calls under way end
/// and returns. Each request carries its [`Peer`]. `refuse` says what calls are told on a connection that is one too many.
pub async fn serve<S>(
    mut incoming: UnixIncoming,
    service: S,
    refuse: fn(Crowded) -> Status,
    stop: impl Future<Output = ()>,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let (stopping, _) = watch::channel(());
    let builder = builder();
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        // Cancel-safe: a connection is taken from the listener only when it is returned, and so is a task's end.
        tokio::select! {
            () = &mut stop => break,
            accepted = incoming.next() => {
                let Some(Ok(io)) = accepted else { break };
                let stopping = stopping.subscribe();
                let peer = io.peer().clone();
                let turn = io.turn();
                match io.crowded() {
                    Some(crowded) => {
                        let refusing = Refusing(refuse(crowded));
                        connections.spawn(turned_away(io, refusing, builder.clone(), stopping))
                    }
                    None if turn.is_zero() => {
                        let service = Named { service: service.clone(), peer };
                        connections.spawn(connection(io, service, &builder, stopping))
                    }
                    None => {
                        let service = Named { service: service.clone(), peer };
                        connections.spawn(in_turn(io, service, builder.clone(), stopping))
                    }
                };
            }
            Some(ended) = connections.join_next() => log_end(ended),
        }
    }
    drop(incoming);
    stopping.send_replace(());
    while let Some(ended) = connections.join_next().await {
        log_end(ended);
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .auto_date_header(false);
    builder
}

fn log_end(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        warn!(%error, "The task of a connection ended badly");
    }
}

/// One connection, until the client goes or, after `stopping`, its last call has ended.
///
/// The future holds the library's connection where it stands and only borrows it: as a parameter of an `async fn` it would
/// lie in there twice, half a kibibyte for each workload.
fn connection<S>(
    io: Io,
    service: S,
    builder: &Builder<TokioExecutor>,
    mut stopping: watch::Receiver<()>,
) -> impl Future<Output = ()> + Send + use<S>
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    let mut connection = builder.serve_connection(TokioIo::new(io), service);
    async move {
        // Cancel-safe: the connection is only borrowed, and the other arm only waits.
        let ended = tokio::select! {
            ended = &mut connection => Some(ended),
            _ = stopping.changed() => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                Pin::new(&mut connection).graceful_shutdown();
                (&mut connection).await
            }
        };
        if let Err(error) = ended {
            debug!(%error, "A connection of a workload broke");
        }
    }
}

/// A connection whose turn has not come: nothing is read from it until then.
async fn in_turn<S>(io: Io, service: S, builder: Builder<TokioExecutor>, mut stopping: watch::Receiver<()>)
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    // Cancel-safe: both only wait.
    tokio::select! {
        () = sleep(io.turn()) => {}
        _ = stopping.changed() => return,
    }
    Box::pin(connection(io, service, &builder, stopping)).await;
}

async fn turned_away(
    io: Io,
    service: Refusing,
    builder: Builder<TokioExecutor>,
    stopping: watch::Receiver<()>,
) {
    let told = Box::pin(connection(io, service, &builder, stopping));
    if timeout(TELL_TIMEOUT, told).await.is_err() {
        debug!("A connection too many made no call, or stayed after its refusal");
    }
}

/// The service, with the peer put into each request.
struct Named<S> {
    service: S,
    peer: Peer,
}

impl<S> hyper::service::Service<Request<Incoming>> for Named<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = S::Future;

    fn call(&self, request: Request<Incoming>) -> S::Future {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.peer.clone());
        self.service.clone().call(request)
    }
}

/// Gives every call the same answer.
struct Refusing(Status);

impl hyper::service::Service<Request<Incoming>> for Refusing {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn call(&self, _request: Request<Incoming>) -> Self::Future {
        ready(Ok(self.0.clone().into_http()))
    }
}
