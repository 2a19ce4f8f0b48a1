//! Who is asked: the Workload API for this process, or the Broker API for another workload. Their answers are of one form.

use std::sync::Arc;

use spindle_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use spindle_proto::workload::{
    JwtBundlesRequest, Jwtsvid, JwtsvidRequest, X509BundlesRequest, X509svidRequest,
};
use spindle_spiffe_core::X509Svid;
use tonic::{Code, Status, Streaming};

use super::source::{Event, Part};
use crate::agent_cli::with_header;
use crate::broker::Broker;
use crate::broker::messages;
use crate::client::refused;
use crate::endpoint::Endpoint;
use crate::error::Failure;

/// An API to ask. Cheap to clone.
#[derive(Clone)]
pub(crate) enum Upstream {
    /// The Workload API, about this process.
    Workload(Arc<Endpoint>),
    /// The Broker API, about the workload that the broker names.
    Broker(Arc<Broker>),
}

/// Why nothing came.
pub(crate) struct Refused {
    pub(crate) failure: Failure,
    /// What the agent said; none when it was not reached.
    pub(crate) code: Option<Code>,
    /// What we have shown it of ourselves.
    pub(crate) certificate: Option<X509Svid>,
}

/// A stream that is open.
pub(crate) struct Opened {
    updates: Box<dyn Updates>,
    part: Part,
    certificate: Option<X509Svid>,
}

/// Messages as events.
#[tonic::async_trait]
trait Updates: Send {
    async fn next(&mut self) -> Result<Option<Event>, Status>;
}

struct Mapped<M> {
    stream: Streaming<M>,
    event: fn(M) -> Event,
}

#[tonic::async_trait]
impl<M: Send> Updates for Mapped<M> {
    async fn next(&mut self) -> Result<Option<Event>, Status> {
        Ok(self.stream.message().await?.map(self.event))
    }
}

impl Upstream {
    /// The Workload API at `endpoint`.
    pub(crate) fn workload(endpoint: Endpoint) -> Self {
        Self::Workload(Arc::new(endpoint))
    }

    /// Opens the stream of a part. Tokens have none: see [`Upstream::tokens`].
    ///
    /// # Errors
    /// When nobody answers, or the agent refuses.
    pub(crate) async fn open(&self, part: Part) -> Result<Opened, Refused> {
        match self {
            Self::Workload(endpoint) => {
                let channel = endpoint.connect().await.map_err(Refused::unreached)?;
                let updates = open_workload(SpiffeWorkloadApiClient::new(channel), part).await;
                updates.map(|updates| Opened { updates, part, certificate: None }).map_err(|status| Refused {
                    certificate: None,
                    ..Refused::by_agent(&part.attempt(), &status)
                })
            }
            Self::Broker(broker) => {
                let (client, svid) = broker.connect().await?;
                let certificate = Some(svid);
                match open_broker(broker, client, part).await {
                    Ok(updates) => Ok(Opened { updates, part, certificate }),
                    Err(status) => {
                        Err(Refused { certificate, ..Refused::by_agent(&part.attempt(), &status) })
                    }
                }
            }
        }
    }

    /// The tokens for these services: one for each identity, or for the one that is asked for.
    ///
    /// # Errors
    /// When nobody answers, or the agent refuses.
    pub(crate) async fn tokens(
        &self,
        audience: Vec<String>,
        spiffe_id: String,
    ) -> Result<Vec<Jwtsvid>, Refused> {
        let attempt = Part::Token(0).attempt();
        match self {
            Self::Workload(endpoint) => {
                let channel = endpoint.connect().await.map_err(Refused::unreached)?;
                let request = with_header(JwtsvidRequest { audience, spiffe_id });
                let answer = SpiffeWorkloadApiClient::new(channel).fetch_jwtsvid(request).await;
                answer
                    .map(|answer| answer.into_inner().svids)
                    .map_err(|status| Refused::by_agent(&attempt, &status))
            }
            Self::Broker(broker) => {
                let (mut client, svid) = broker.connect().await?;
                match client.fetch_jwtsvid(broker.token_request(audience, spiffe_id)).await {
                    Ok(answer) => Ok(messages::tokens(answer.into_inner())),
                    Err(status) => {
                        Err(Refused { certificate: Some(svid), ..Refused::by_agent(&attempt, &status) })
                    }
                }
            }
        }
    }

    /// The first message of a stream, as an event.
    ///
    /// # Errors
    /// When there is none; the workload may have ended meanwhile, too.
    pub(crate) async fn first(&self, part: Part) -> Result<Event, Failure> {
        let mut opened = self.open(part).await.map_err(|refused| refused.failure)?;
        let event = opened.next().await.map_err(|refused| refused.failure)?;
        match self {
            Self::Broker(broker) if !broker.is_there() => Err(broker.ended_failure()),
            _ => event.ok_or_else(|| {
                Failure::new("the agent ended the stream without an answer")
                    .try_this("look at the agent's log")
            }),
        }
    }
}

impl Opened {
    /// The next message; none when the stream has ended in order.
    ///
    /// # Errors
    /// What ended it.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, Refused> {
        self.updates.next().await.map_err(|status| {
            let certificate = self.certificate.clone();
            Refused { certificate, ..Refused::by_agent(&self.part.attempt(), &status) }
        })
    }
}

impl Refused {
    /// Nobody was reached.
    pub(crate) fn unreached(failure: Failure) -> Self {
        Self { failure, code: None, certificate: None }
    }

    /// Another try cannot help.
    pub(crate) fn for_good(failure: Failure) -> Self {
        Self { failure, code: Some(Code::Unimplemented), certificate: None }
    }

    fn by_agent(attempt: &str, status: &Status) -> Self {
        Self { failure: refused(attempt, status), code: Some(status.code()), certificate: None }
    }
}

async fn open_workload(
    mut client: SpiffeWorkloadApiClient<tonic::transport::Channel>,
    part: Part,
) -> Result<Box<dyn Updates>, Status> {
    Ok(match part {
        Part::X509 => {
            let stream = client.fetch_x509svid(with_header(X509svidRequest {})).await?.into_inner();
            Box::new(Mapped { stream, event: |message| Event::X509(Box::new(message)) })
        }
        Part::X509Bundles => {
            let stream = client.fetch_x509_bundles(with_header(X509BundlesRequest {})).await?.into_inner();
            Box::new(Mapped { stream, event: Event::X509Bundles })
        }
        Part::JwtBundles => {
            let stream = client.fetch_jwt_bundles(with_header(JwtBundlesRequest {})).await?.into_inner();
            Box::new(Mapped { stream, event: Event::JwtBundles })
        }
        Part::Token(_) => return Err(no_stream()),
    })
}

async fn open_broker(
    broker: &Broker,
    mut client: crate::broker::Client,
    part: Part,
) -> Result<Box<dyn Updates>, Status> {
    Ok(match part {
        Part::X509 => {
            let stream = client.subscribe_to_x509svid(broker.x509_request()).await?.into_inner();
            Box::new(Mapped { stream, event: |message| Event::X509(Box::new(messages::x509(message))) })
        }
        Part::X509Bundles => {
            let stream = client.subscribe_to_x509_bundles(broker.x509_bundles_request()).await?.into_inner();
            Box::new(Mapped { stream, event: |message| Event::X509Bundles(messages::x509_bundles(message)) })
        }
        Part::JwtBundles => {
            let stream = client.subscribe_to_jwt_bundles(broker.jwt_bundles_request()).await?.into_inner();
            Box::new(Mapped { stream, event: |message| Event::JwtBundles(messages::jwt_bundles(message)) })
        }
        Part::Token(_) => return Err(no_stream()),
    })
}

fn no_stream() -> Status {
    Status::internal("tokens are fetched, and have no stream")
}
