//! The client: follows streams of the Workload API and fetches tokens, and comes again when something breaks.
//!
//! A stream that served and ended is opened again at once (Workload API 4.2); other faults wait longer and longer, up to half a
//! minute. InvalidArgument and Unimplemented are told and end it: asking again cannot help (Workload Endpoint 6).

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use spindle_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use spindle_proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, Jwtsvid, JwtsvidRequest, X509svidRequest, X509svidResponse,
};
use spindle_renewal::{Backoff, BackoffPolicy, Jitter};
use spindle_runtime::{SystemClock, SystemEntropy, TaskSet};
use spindle_spiffe_core::{Clock, Timestamp};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::material::Token;
use super::wanted::{Choice, Wanted};
use crate::agent_cli::with_header;
use crate::client::refused;
use crate::endpoint::Endpoint;
use crate::error::Failure;

/// How long a caller waits between tries. A first identity is often registered a moment later.
const WAITS: BackoffPolicy = BackoffPolicy {
    first: Duration::from_millis(200),
    max: Duration::from_secs(30),
    growth_percent: 200,
    jitter_percent: 10,
};

/// A stream that lasted this long was none of a row of broken ones: the next try is made at once.
const STEADY: Duration = Duration::from_secs(10);

/// A token may take the agent a call to its server.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(30);

/// What came.
pub(crate) enum Event {
    /// A message of X509-SVIDs.
    X509(Box<X509svidResponse>),
    /// A message of JWT bundles.
    JwtBundles(JwtBundlesResponse),
    /// The token of a wish, by its place.
    Token(usize, Token),
    /// The agent has nothing of this part for this caller (any more).
    Denied(Part, Failure),
    /// Asking again cannot help.
    Fatal(Failure),
}

/// What is followed by a call of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The X509-SVIDs with their bundles.
    X509,
    /// The JWT bundles.
    JwtBundles,
    /// The token of a wish, by its place.
    Token(usize),
}

/// Running calls, and what they bring. They end when this is dropped.
pub(crate) struct Source {
    _tasks: TaskSet,
    events: Receiver<Event>,
}

impl Source {
    /// Begins to ask for all that is wanted.
    pub(crate) fn start(endpoint: &Endpoint, wanted: &Wanted) -> Self {
        let mut tasks = TaskSet::new();
        // One message waits at most: a slow disk slows the stream down.
        let (events, receiver) = channel(1);
        let line = Line { endpoint: Arc::new(endpoint.clone()), events };
        tasks.spawn_infallible("X509-SVIDs", line.clone().follow::<X509>());
        if wanted.names.jwt_bundles.is_some() {
            tasks.spawn_infallible("JWT bundles", line.clone().follow::<Jwt>());
        }
        for (at, wish) in wanted.tokens.iter().enumerate() {
            let (audience, choice) = (wish.audience.clone(), wanted.choice.clone());
            tasks.spawn_infallible("JWT-SVID", line.clone().renew(at, audience, choice));
        }
        Self { _tasks: tasks, events: receiver }
    }

    /// The next event; none when no call runs any more, which follows a fatal one. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

/// A stream of the Workload API.
trait Profile: 'static {
    type Message: Send + 'static;
    const WHAT: &'static str;
    const PART: Part;
    fn open(channel: Channel) -> impl Future<Output = Result<Streaming<Self::Message>, Status>> + Send;
    fn event(message: Self::Message) -> Event;
}

struct X509;

impl Profile for X509 {
    type Message = X509svidResponse;
    const WHAT: &'static str = "X509-SVIDs";
    const PART: Part = Part::X509;

    async fn open(channel: Channel) -> Result<Streaming<X509svidResponse>, Status> {
        let request = with_header(X509svidRequest {});
        Ok(SpiffeWorkloadApiClient::new(channel).fetch_x509svid(request).await?.into_inner())
    }

    fn event(message: X509svidResponse) -> Event {
        Event::X509(Box::new(message))
    }
}

struct Jwt;

impl Profile for Jwt {
    type Message = JwtBundlesResponse;
    const WHAT: &'static str = "JWT bundles";
    const PART: Part = Part::JwtBundles;

    async fn open(channel: Channel) -> Result<Streaming<JwtBundlesResponse>, Status> {
        let request = with_header(JwtBundlesRequest {});
        Ok(SpiffeWorkloadApiClient::new(channel).fetch_jwt_bundles(request).await?.into_inner())
    }

    fn event(message: JwtBundlesResponse) -> Event {
        Event::JwtBundles(message)
    }
}

/// Why a call is over.
enum End {
    /// It was served for so long, and ended.
    Served(Duration),
    /// Nothing came, or nobody answers.
    Broken(Failure, Option<Code>),
    /// Nobody listens to events any more.
    Unheard,
}

#[derive(Clone)]
struct Line {
    endpoint: Arc<Endpoint>,
    events: Sender<Event>,
}

impl Line {
    async fn follow<P: Profile>(self) {
        let (mut pauses, mut came_again) = (Pauses::new(), false);
        loop {
            match self.follow_once::<P>().await {
                End::Unheard => return,
                End::Served(lived) => {
                    tracing::info!(what = P::WHAT, "the agent ended the stream: connecting again");
                    if lived >= STEADY || !came_again {
                        pauses.reset();
                        came_again = true;
                    } else {
                        pauses.pause().await;
                    }
                }
                End::Broken(failure, code) => {
                    if self.is_over(P::PART, &mut pauses, failure, code).await {
                        return;
                    }
                }
            }
        }
    }

    async fn follow_once<P: Profile>(&self) -> End {
        let channel = match self.endpoint.connect().await {
            Ok(channel) => channel,
            Err(failure) => return End::Broken(failure, None),
        };
        let broken = |status: Status| {
            End::Broken(refused(&format!("cannot fetch {}", P::WHAT), &status), Some(status.code()))
        };
        let mut stream = match P::open(channel).await {
            Ok(stream) => stream,
            Err(status) => return broken(status),
        };
        let (mut served, since) = (false, Instant::now());
        loop {
            let message = match stream.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return End::Served(since.elapsed()),
                // A lost connection after a message is an ended stream; a refusal is not.
                Err(status) if served && !is_verdict(status.code()) => return End::Served(since.elapsed()),
                Err(status) => return broken(status),
            };
            served = true;
            if self.events.send(P::event(message)).await.is_err() {
                return End::Unheard;
            }
        }
    }

    /// Tells what went wrong and waits; true when there is no use in another try.
    async fn is_over(&self, part: Part, pauses: &mut Pauses, failure: Failure, code: Option<Code>) -> bool {
        let event = match code {
            Some(Code::InvalidArgument | Code::Unimplemented) => {
                // Whoever keeps the files ends with it.
                let _ = self.events.send(Event::Fatal(failure)).await;
                return true;
            }
            Some(Code::PermissionDenied) => Event::Denied(part, failure),
            _ => {
                tracing::warn!(error = %failure, "the Workload API is not there: trying again");
                pauses.pause().await;
                return false;
            }
        };
        if self.events.send(event).await.is_err() {
            return true;
        }
        pauses.pause().await;
        false
    }

    /// Fetches a token, and another one when half its time is over.
    async fn renew(self, at: usize, audience: Vec<String>, choice: Choice) {
        let mut pauses = Pauses::new();
        loop {
            match self.token(&audience, &choice).await {
                Ok(token) => {
                    pauses.reset();
                    let until = half_of(SystemClock.now(), token.expires_at);
                    if self.events.send(Event::Token(at, token)).await.is_err() {
                        return;
                    }
                    spindle_runtime::sleep_until(&SystemClock, until).await;
                }
                Err((failure, code)) => {
                    if self.is_over(Part::Token(at), &mut pauses, failure, code).await {
                        return;
                    }
                }
            }
        }
    }

    async fn token(&self, audience: &[String], choice: &Choice) -> Result<Token, (Failure, Option<Code>)> {
        let spiffe_id = match choice {
            Choice::Id(id, _) => id.to_string(),
            _ => String::new(),
        };
        let request = JwtsvidRequest { audience: audience.to_vec(), spiffe_id };
        let call = async {
            let channel = self.endpoint.connect().await.map_err(|failure| (failure, None))?;
            let answer = SpiffeWorkloadApiClient::new(channel).fetch_jwtsvid(with_header(request)).await;
            let refused = |status: Status| (refused("cannot fetch a JWT-SVID", &status), Some(status.code()));
            Ok(answer.map_err(refused)?.into_inner().svids)
        };
        let late = || (Failure::new("the agent did not send a JWT-SVID in time"), None);
        let svids: Vec<Jwtsvid> = tokio::time::timeout(TOKEN_TIMEOUT, call).await.map_err(|_| late())??;
        let chosen = choice.of("JWT-SVID", &svids).map_err(|failure| (failure, None))?;
        Token::read(chosen).map_err(|failure| (failure, None))
    }
}

/// Whether a status says something about the caller or its call, rather than about the connection.
fn is_verdict(code: Code) -> bool {
    matches!(code, Code::PermissionDenied | Code::InvalidArgument | Code::Unimplemented)
}

/// When a token is to be replaced: in the middle of what is left of it, and not more often than every second.
fn half_of(now: Timestamp, end: Timestamp) -> Timestamp {
    now + (end.secs_since(now) / 2).max(1)
}

/// Waits that grow.
struct Pauses(Backoff);

impl Pauses {
    fn new() -> Self {
        Self(Backoff::new(WAITS))
    }

    fn reset(&mut self) {
        self.0.reset();
    }

    async fn pause(&mut self) {
        tokio::time::sleep(self.0.next_pause(Jitter::draw(&SystemEntropy))).await;
    }
}

#[cfg(test)]
mod tests {
    use spindle_testkit::NOW;

    use super::*;

    #[test]
    fn a_token_is_replaced_in_the_middle_of_its_time_and_never_in_a_hurry() {
        assert_eq!(half_of(NOW, NOW + 300), NOW + 150);
        assert_eq!(half_of(NOW, NOW), NOW + 1);
        assert_eq!(half_of(NOW, NOW - 300), NOW + 1);
    }

    #[test]
    fn wep_21_wep_23_waits_grow_up_to_half_a_minute() {
        let mut backoff = Backoff::new(WAITS);
        let waits: Vec<_> = (0..12).map(|_| backoff.next_pause(Jitter::NONE).as_millis()).collect();
        assert_eq!(waits[..4], [200, 400, 800, 1600]);
        assert!(waits.is_sorted() && waits[11] == 30_000, "{waits:?}");
    }
}
