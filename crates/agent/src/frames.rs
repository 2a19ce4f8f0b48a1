//! gRPC calls read and answered by hand, for services whose finished messages are shared or hold private keys: a generated
//! service would encode each anew and leave copies of it behind.
//!
//! Start at [`read_request`], [`streamed`] and [`single`].

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::StreamBody;
use hyper::body::Frame;
use spindle_proto::refusal::refusal;
use spindle_spiffe_core::Reason;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::codec::{Codec, Streaming};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

/// A caller sends its request right after the headers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// One byte that says "not compressed" and four of length stand before each gRPC message.
const FRAME_BYTES: usize = 5;

/// Makes the framed messages of one stream, one after the other.
pub(crate) trait Messages: Send + 'static {
    /// The next one. Its error ends the stream.
    fn next(&mut self) -> impl Future<Output = Result<Bytes, Status>> + Send;
}

/// Where a stream stands.
enum Next<S> {
    Ready(Bytes, S),
    Wait(S),
    Over,
}

/// Waits for the first message, so that a refusal is the whole answer, and streams the later ones.
///
/// # Errors
/// As the first message.
pub(crate) async fn streamed<S: Messages>(mut messages: S) -> Result<Response<Body>, Status> {
    let first = messages.next().await?;
    Ok(response(stream::unfold(Next::Ready(first, messages), |next| async {
        match next {
            Next::Ready(bytes, messages) => Some((data(bytes), Next::Wait(messages))),
            Next::Wait(mut messages) => Some(match messages.next().await {
                Ok(bytes) => (data(bytes), Next::Wait(messages)),
                Err(status) => (trailers(&status), Next::Over),
            }),
            Next::Over => None,
        }
    })))
}

/// One framed message and a good end.
pub(crate) fn single(message: Bytes) -> Response<Body> {
    response(stream::iter([data(message), trailers(&Status::ok(""))]))
}

/// A message without secrets, framed.
pub(crate) fn framed(message: &impl prost::Message) -> Bytes {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len())
        .expect("an answer holds a bounded number of bounded certificates and tokens, far below 4 GiB");
    let mut frame = Vec::with_capacity(FRAME_BYTES + bytes.len());
    frame.push(0);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&bytes);
    frame.into()
}

/// An answer of finished frames.
fn response(frames: impl Stream<Item = Result<Frame<Bytes>, Status>> + Send + 'static) -> Response<Body> {
    let mut response = Response::new(Body::new(StreamBody::new(frames)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// One framed message of a stream.
pub(crate) fn data(bytes: Bytes) -> Result<Frame<Bytes>, Status> {
    Ok(Frame::data(bytes))
}

/// The end of a stream.
pub(crate) fn trailers(status: &Status) -> Result<Frame<Bytes>, Status> {
    let mut headers = HeaderMap::new();
    status.add_header(&mut headers)?;
    Ok(Frame::trailers(headers))
}

/// Reads the one message of a request, of at most `bytes_max`. An empty message is read like `()`, which passes over all
/// fields.
///
/// # Errors
/// When it is too large, malformed, late or missing; see [`reason_for_request`].
pub(crate) async fn read_request<M>(body: Body, bytes_max: usize) -> Result<M, Status>
where
    M: prost::Message + Default + 'static,
{
    let read = async {
        let decoder = ProstCodec::<M, M>::default().decoder();
        let mut messages = Streaming::new_request(decoder, body, None, Some(bytes_max));
        messages.message().await?.ok_or_else(|| Status::internal("the request has no message"))
    };
    timeout(REQUEST_TIMEOUT, read).await.unwrap_or_else(|_| Err(Status::deadline_exceeded("no request came")))
}

/// Reads a request as [`read_request`] does; one that cannot be read is refused with its reason.
pub(crate) async fn read_or_refuse<M>(body: Body, bytes_max: usize) -> Result<M, Status>
where
    M: prost::Message + Default + 'static,
{
    let read = read_request(body, bytes_max).await;
    read.map_err(|status| refusal(status.code(), reason_for_request(&status), status.message()))
}

/// What is wrong with a request that could not be read.
pub(crate) fn reason_for_request(status: &Status) -> Reason {
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => Reason::MessageTooLarge,
        Code::DeadlineExceeded => Reason::TooSlow,
        _ => Reason::BadRequest,
    }
}

/// Makes a service whose `answer` tells a refusal by its status a gRPC service of that name. Cloned for each call.
macro_rules! grpc_service {
    ($service:ty, $name:literal) => {
        impl tonic::codegen::Service<http::Request<tonic::body::Body>> for $service {
            type Response = http::Response<tonic::body::Body>;
            type Error = std::convert::Infallible;
            type Future = futures_util::future::BoxFuture<'static, Result<Self::Response, Self::Error>>;

            fn poll_ready(
                &mut self,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Result<(), Self::Error>> {
                std::task::Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
                let service = self.clone();
                Box::pin(
                    async move { Ok(service.answer(request).await.unwrap_or_else(tonic::Status::into_http)) },
                )
            }
        }

        impl tonic::server::NamedService for $service {
            const NAME: &'static str = $name;
        }
    };
}

pub(crate) use grpc_service;
