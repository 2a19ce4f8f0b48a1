//! gRPC messages read and written by hand, for services whose answers hold private keys: a generated service would leave
//! copies of them behind.
//!
//! Start at [`read_message`] and [`streamed`].

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{Codec, Streaming};
use tonic_prost::ProstCodec;

/// A caller sends its request right after the headers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// One byte that says "not compressed" and four of length stand before each gRPC message.
const FRAME_BYTES: usize = 5;

/// The one message of a request, of at most `bytes_max`.
///
/// # Errors
/// When it is too large, malformed, late or missing.
pub(crate) async fn read_message<M>(body: Body, bytes_max: usize) -> Result<M, Status>
where
    M: prost::Message + Default + 'static,
{
    let decoder = ProstCodec::<M, M>::default().decoder();
    let mut messages = Streaming::new_request(decoder, body, None, Some(bytes_max));
    let message = timeout(REQUEST_TIMEOUT, messages.message())
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("no request came")));
    message?.ok_or_else(|| Status::internal("the request has no message"))
}

/// A message without secrets, framed.
pub(crate) fn framed(message: &impl prost::Message) -> Bytes {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(FRAME_BYTES + bytes.len());
    frame.push(0);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&bytes);
    frame.into()
}

/// Makes the framed messages of one stream, one after the other.
pub(crate) trait Messages: Send + 'static {
    /// The next one. Its error ends the stream.
    fn next(&mut self) -> BoxFuture<'_, Result<Bytes, Status>>;
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
    let first_then_rest = stream::unfold(Next::Ready(first, messages), |next| async {
        match next {
            Next::Ready(bytes, messages) => Some((Ok(Frame::data(bytes)), Next::Wait(messages))),
            Next::Wait(mut messages) => Some(match messages.next().await {
                Ok(bytes) => (Ok(Frame::data(bytes)), Next::Wait(messages)),
                Err(status) => (trailers(&status), Next::Over),
            }),
            Next::Over => None,
        }
    });
    Ok(response(Body::new(StreamBody::new(first_then_rest))))
}

/// The answer to a call that has one message.
pub(crate) fn single(message: Bytes) -> Response<Body> {
    let frames = stream::iter([Ok(Frame::data(message)), trailers(&Status::ok(""))]);
    response(Body::new(StreamBody::new(frames)))
}

fn response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn trailers(status: &Status) -> Result<Frame<Bytes>, Status> {
    let mut headers = HeaderMap::new();
    status.add_header(&mut headers)?;
    Ok(Frame::trailers(headers))
}
