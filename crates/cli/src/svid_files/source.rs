//! The client: follows streams of the Workload API or the Broker API and fetches tokens, and comes again when something breaks.
//!
//! A stream that served and ended is opened again at once (Workload API 4.2); other faults wait longer and longer, up to half a
//! minute. InvalidArgument and Unimplemented are told and end it: asking again cannot help (Workload Endpoint 6). The same holds
//! for a broker, beside what becomes of the workload it asks for.

use std::time::Duration;

use spindle_proto::workload::{JwtBundlesResponse, Jwtsvid, X509BundlesResponse, X509svidResponse};
use spindle_renewal::{Backoff, BackoffPolicy, Jitter};
use spindle_runtime::{SystemClock, SystemEntropy, TaskSet};
use spindle_spiffe_core::{Clock, Timestamp};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::Instant;
use tonic::Code;

use super::material::Token;
use super::upstream::{Refused, Upstream};
use super::wanted::{Choice, Wanted, What};
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
    /// A message of X.509 bundles.
    X509Bundles(X509BundlesResponse),
    /// A message of JWT bundles.
    JwtBundles(JwtBundlesResponse),
    /// The token of a wish, by its place.
    Token(usize, Token),
    /// The agent has nothing of this part for this caller (any more).
    Denied(Part, Failure),
    /// The workload that a broker asks for has ended.
    Gone(Failure),
    /// Asking again cannot help.
    Fatal(Failure),
}

/// What is followed by a call of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The X509-SVIDs with their bundles.
    X509,
    /// The X.509 bundles without any SVID.
    X509Bundles,
    /// The JWT bundles.
    JwtBundles,
    /// The token of a wish, by its place.
    Token(usize),
}

impl Part {
    fn what(self) -> &'static str {
        match self {
            Self::X509 => "X509-SVIDs",
            Self::X509Bundles => "X.509 bundles",
            Self::JwtBundles => "JWT bundles",
            Self::Token(_) => "a JWT-SVID",
        }
    }

    /// What failed, when it did.
    pub(crate) fn attempt(self) -> String {
        format!("cannot fetch {}", self.what())
    }
}

/// Running calls, and what they bring. They end when this is dropped.
pub(crate) struct Source {
    _tasks: TaskSet,
    events: Receiver<Event>,
}

impl Source {
    /// Begins to ask for all that is wanted.
    pub(crate) fn start(upstream: &Upstream, wanted: &Wanted) -> Self {
        let mut tasks = TaskSet::new();
        // One message waits at most: a slow disk slows the stream down.
        let (events, receiver) = channel(1);
        let line = Line { upstream: upstream.clone(), events };
        match wanted.what {
            What::Identity => tasks.spawn_infallible("X509-SVIDs", line.clone().follow(Part::X509)),
            What::Bundles => {
                tasks.spawn_infallible("X.509 bundles", line.clone().follow(Part::X509Bundles));
            }
        }
        if wanted.names.jwt_bundles.is_some() {
            tasks.spawn_infallible("JWT bundles", line.clone().follow(Part::JwtBundles));
        }
        for (at, wish) in wanted.tokens.iter().enumerate() {
            let (audience, choice) = (wish.audience.clone(), wanted.choice.clone());
            tasks.spawn_infallible("JWT-SVID", line.clone().renew(at, audience, choice));
        }
        if matches!(upstream, Upstream::Broker(_)) {
            tasks.spawn_infallible("the workload's end", line.tell_its_end());
        }
        Self { _tasks: tasks, events: receiver }
    }

    /// The next event; none when no call runs any more, which follows a fatal one. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

/// Why a call is over.
enum End {
    /// It was served for so long, and ended.
    Served(Duration),
    /// Nothing came, or nobody answers.
    Broken(Refused),
    /// Nobody listens to events any more.
    Unheard,
}

#[derive(Clone)]
struct Line {
    upstream: Upstream,
    events: Sender<Event>,
}

impl Line {
    async fn follow(self, part: Part) {
        let (mut pauses, mut came_again) = (Pauses::new(), false);
        loop {
            match self.follow_once(part).await {
                End::Unheard => return,
                End::Served(lived) => {
                    tracing::info!(what = part.what(), "the agent ended the stream: connecting again");
                    if lived >= STEADY || !came_again {
                        pauses.reset();
                        came_again = true;
                    } else {
                        pauses.pause().await;
                    }
                }
                End::Broken(refused) => {
                    if self.is_over(part, &mut pauses, refused).await {
                        return;
                    }
                }
            }
        }
    }

    async fn follow_once(&self, part: Part) -> End {
        let mut stream = match self.upstream.open(part).await {
            Ok(stream) => stream,
            Err(refused) => return End::Broken(refused),
        };
        let (mut served, since) = (false, Instant::now());
        loop {
            let event = match stream.next().await {
                Ok(Some(event)) => event,
                Ok(None) => return End::Served(since.elapsed()),
                // A lost connection after a message is an ended stream; a refusal is not.
                Err(refused) if served && !is_verdict(refused.code) => return End::Served(since.elapsed()),
                Err(refused) => return End::Broken(refused),
            };
            served = true;
            if !self.deliver(event).await {
                return End::Unheard;
            }
        }
    }

    /// Passes on what came for the workload, unless it came for another one: a process that has ended may have left its
    /// number to the next. False when nobody listens any more.
    async fn deliver(&self, event: Event) -> bool {
        match &self.upstream {
            Upstream::Broker(broker) if !broker.is_there() => {
                // Whoever keeps the files ends with it.
                let _ = self.events.send(Event::Gone(broker.ended_failure())).await;
                false
            }
            _ => self.events.send(event).await.is_ok(),
        }
    }

    /// Tells what went wrong and waits; true when there is no use in another try.
    async fn is_over(&self, part: Part, pauses: &mut Pauses, refused: Refused) -> bool {
        let Refused { failure, code, certificate } = refused;
        let event = match (code, &self.upstream) {
            (Some(Code::InvalidArgument | Code::Unimplemented), _) => {
                // Whoever keeps the files ends with it.
                let _ = self.events.send(Event::Fatal(failure)).await;
                return true;
            }
            // A process that runs is there, whatever the agent sees: it may come to see it (Broker Endpoint 6).
            (Some(Code::NotFound), Upstream::Broker(broker)) if !broker.is_known_to_run() => {
                let _ = self.events.send(Event::Gone(failure)).await;
                return true;
            }
            (Some(Code::NotFound), Upstream::Broker(_)) | (Some(Code::PermissionDenied), _) => {
                Event::Denied(part, failure)
            }
            (Some(Code::Unauthenticated), Upstream::Broker(broker)) => {
                tracing::warn!(error = %failure, "the agent does not know this broker: waiting for a new X509-SVID");
                broker.wait_for_another(certificate.as_ref()).await;
                pauses.pause().await;
                return false;
            }
            (_, Upstream::Workload(_)) => {
                tracing::warn!(error = %failure, "the Workload API is not there: trying again");
                pauses.pause().await;
                return false;
            }
            (_, Upstream::Broker(_)) => {
                tracing::warn!(error = %failure, "the Broker API is not there: trying again");
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
                    if !self.deliver(Event::Token(at, token)).await {
                        return;
                    }
                    spindle_runtime::sleep_until(&SystemClock, until).await;
                }
                Err(refused) => {
                    if self.is_over(Part::Token(at), &mut pauses, refused).await {
                        return;
                    }
                }
            }
        }
    }

    async fn token(&self, audience: &[String], choice: &Choice) -> Result<Token, Refused> {
        let spiffe_id = match choice {
            Choice::Id(id, _) => id.to_string(),
            _ => String::new(),
        };
        let call = self.upstream.tokens(audience.to_vec(), spiffe_id);
        let late = || Refused::unreached(Failure::new("the agent did not send a JWT-SVID in time"));
        let svids: Vec<Jwtsvid> = tokio::time::timeout(TOKEN_TIMEOUT, call).await.map_err(|_| late())??;
        let chosen = choice.of("JWT-SVID", &svids).map_err(Refused::unreached)?;
        Token::read(chosen).map_err(Refused::unreached)
    }

    /// Waits for the end of a process, which needs no agent to be seen.
    async fn tell_its_end(self) {
        let Upstream::Broker(broker) = &self.upstream else { return };
        broker.ended().await;
        let _ = self.events.send(Event::Gone(broker.ended_failure())).await;
    }
}

/// Whether a status says something about the caller or its call, rather than about the connection.
fn is_verdict(code: Option<Code>) -> bool {
    matches!(
        code,
        Some(
            Code::PermissionDenied
                | Code::InvalidArgument
                | Code::Unimplemented
                | Code::NotFound
                | Code::Unauthenticated
        )
    )
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
