//! One proxy's stream: requests in, answers out, woken by either. The caller is looked at again before each later answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use spindle_proto::refusal::refusal;
use spindle_spiffe_core::Reason;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::body::Body;
use tonic::codec::{Codec, Streaming};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use super::catalog::Catalog;
use super::exchange::{BadRequest, Exchange, Refused, Step};
use super::secret::encode_wiped;
use crate::config::SdsConfig;
use crate::frames::reason_for_request;
use crate::gate::{Admitted, stopping};

/// The largest request taken, in bytes. Envoy describes itself in some 60 KiB, and its operator can add to that.
const REQUEST_BYTES_MAX: usize = 1024 * 1024;

/// A proxy sends its first request as soon as the stream is open.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// One byte that says "not compressed" and four of length stand before each gRPC message.
const FRAME_BYTES: usize = 5;

/// How much of the names that are refused an error text shows.
const NAMES_SHOWN_BYTES: usize = 512;

/// How much of a text of the proxy's is logged.
const TEXT_SHOWN_CHARACTERS: usize = 256;

/// A stream of one variant.
pub(super) struct Stream<E: Exchange> {
    caller: Admitted,
    config: Arc<SdsConfig>,
    requests: Streaming<E::Request>,
    exchange: E,
    waiting_since: Instant,
}

impl<E: Exchange> Stream<E> {
    pub(super) fn new(caller: Admitted, config: Arc<SdsConfig>, requests: Body, exchange: E) -> Self {
        let decoder = ProstCodec::<E::Request, E::Request>::default().decoder();
        let requests = Streaming::new_request(decoder, requests, None, Some(REQUEST_BYTES_MAX));
        Self { caller, config, requests, exchange, waiting_since: Instant::now() }
    }

    /// The next answer as a finished gRPC message; none when the proxy has ended the stream.
    ///
    /// # Errors
    /// The status that ends the stream.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let shutdown = self.caller.shutdown();
        // Cancel-safe: an answer is noted as sent only when it is returned.
        tokio::select! {
            biased;
            () = shutdown.begun() => Err(stopping()),
            next = self.answer() => next,
        }
    }

    async fn answer(&mut self) -> Result<Option<Bytes>, Status> {
        if !self.exchange.has_request() {
            let first = timeout(REQUEST_TIMEOUT, self.requests.message()).await;
            let first = first.unwrap_or_else(|_| Err(Status::deadline_exceeded("no request came")));
            self.caller.note_wait();
            let Some(first) = self.readable(first)? else { return Ok(None) };
            self.take(first)?;
            self.waiting_since = Instant::now();
        }
        loop {
            let until = match self.step() {
                Step::Nothing => None,
                Step::WaitUpTo(limit) => Some(self.waiting_since + limit),
                Step::Refuse(refused) => return Err(self.refuse(refused)),
                Step::Send { response, sent, unknown } => {
                    if self.caller.is_still_entitled().await? {
                        self.caller.note_wait();
                        if !unknown.is_empty() {
                            self.tell_unknown(&unknown);
                        }
                        self.exchange.note(sent);
                        return Ok(Some(framed(&response)));
                    }
                    continue;
                }
            };
            match self.news(until).await? {
                News::Read(read) => match self.readable(read)? {
                    Some(request) => self.take(request)?,
                    None => return Ok(None),
                },
                News::Late => {}
                // A wait goes on when the change did not bring what is waited for.
                News::View if until.is_some() => {}
                News::View => self.waiting_since = Instant::now(),
            }
        }
    }

    fn step(&mut self) -> Step<E::Response, E::Sent> {
        let validation = self.exchange.validation();
        let view = self.caller.view();
        let catalog = Catalog::new(&view, &self.config, validation);
        self.exchange.step(&catalog, self.waiting_since.elapsed())
    }

    /// Waits for a request or another view, or until it is late.
    async fn news(&mut self, until: Option<Instant>) -> Result<News<E::Request>, Status> {
        let Self { caller, requests, .. } = self;
        let either = async {
            // Cancel-safe: a request that has not come whole stays where it is.
            tokio::select! {
                request = requests.message() => Ok(News::Read(request)),
                changed = caller.changed() => changed.map(|()| News::View),
            }
        };
        match until {
            None => either.await,
            Some(until) => timeout_at(until, either).await.unwrap_or(Ok(News::Late)),
        }
    }

    fn readable<T>(&self, read: Result<T, Status>) -> Result<T, Status> {
        read.map_err(|status| {
            self.caller.refuse_call(status.code(), reason_for_request(&status), status.message())
        })
    }

    fn take(&mut self, request: E::Request) -> Result<(), Status> {
        let refuse =
            |bad: BadRequest| self.caller.refuse_call(Code::InvalidArgument, bad.reason(), &bad.to_string());
        if let Some(detail) = self.exchange.take(request).map_err(refuse)? {
            self.caller.tell_of(Reason::SecretRejected, "a proxy refused its secrets", || shown(&detail));
        }
        Ok(())
    }

    fn refuse(&self, refused: Refused) -> Status {
        match refused {
            Refused::Starting => self.caller.refuse(Reason::AgentStarting),
            Refused::NotReady => self.caller.refuse(Reason::SvidNotReady),
            Refused::Unknown(names) => {
                let reason = self.tell_unknown(&names);
                let text =
                    format!("workload is not authorized for the requested identities {}", quoted(&names));
                refusal(Code::InvalidArgument, reason, &text)
            }
            Refused::NeedsValidator(name) => {
                let text =
                    format!("{name:?} needs Envoy's SPIFFE validator, which is switched off or missing");
                self.caller.refuse_call(Code::Internal, Reason::NotSupported, &text)
            }
        }
    }

    /// Lets the operator know what is asked for in vain, and of a caller without any entry, which ones come near.
    fn tell_unknown(&self, names: &[String]) -> Reason {
        if self.caller.has_entry() {
            let what = "secrets of no entry of the caller were asked for";
            self.caller.tell_of(Reason::SecretNotFound, what, || quoted(names));
            return Reason::SecretNotFound;
        }
        self.caller.tell(Reason::NoMatchingEntry);
        Reason::NoMatchingEntry
    }
}

/// What a stream wakes up for.
enum News<Request> {
    Read(Result<Option<Request>, Status>),
    View,
    Late,
}

/// The names as SPIRE shows them, as many as an error text should hold.
fn quoted(names: &[String]) -> String {
    let mut text = String::from("[");
    for (at, name) in names.iter().enumerate() {
        if text.len() > NAMES_SHOWN_BYTES {
            text.push_str(&format!(" and {} more", names.len() - at));
            break;
        }
        if at > 0 {
            text.push(' ');
        }
        text.push_str(&format!("{:?}", shown(name)));
    }
    text.push(']');
    text
}

/// The beginning of a text from outside.
fn shown(text: &str) -> String {
    text.chars().take(TEXT_SHOWN_CHARACTERS).collect()
}

/// A finished gRPC message in memory that is wiped.
fn framed(response: &impl Message) -> Bytes {
    let mut frame = encode_wiped(response, &[0; FRAME_BYTES]);
    let bytes = u32::try_from(frame.len() - FRAME_BYTES)
        .expect("an answer holds a bounded number of bounded certificates, far below 4 GiB");
    frame[1..FRAME_BYTES].copy_from_slice(&bytes.to_be_bytes());
    Bytes::from_owner(frame)
}
