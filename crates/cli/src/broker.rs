//! A broker's side of the SPIFFE Broker API: asks an agent for what another workload of this node is entitled to.
//!
//! First it is a workload itself: its own X.509-SVID comes from the Workload API, and is shown to the agent over mutual TLS. One
//! value asks for one workload, so that nothing that came for one is ever at hand for another (Broker API 4.2). Start at
//! [`Broker`].

pub(crate) mod address;
pub(crate) mod messages;
pub(crate) mod own;
pub(crate) mod workload;

use spindle_proto::broker::api_client::ApiClient;
use spindle_proto::broker::{
    FetchJwtsvidRequest, SubscribeToJwtBundlesRequest, SubscribeToX509BundlesRequest,
    SubscribeToX509svidRequest,
};
use spindle_runtime::SystemClock;
use spindle_spiffe_core::{Reason, SpiffeId, X509Svid};
use spindle_transport::{DialError, ExpectedServer, TlsDialer, Trust};
use tonic::Request;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;

use crate::error::Failure;
use crate::svid_files::upstream::Refused;
use address::BrokerAddress;
use own::Own;
use workload::Workload;

/// A connection of a broker.
pub(crate) type Client = ApiClient<Channel>;

/// Which agent is asked, and for whom.
pub(crate) struct Target {
    address: BrokerAddress,
    agent: Option<SpiffeId>,
    workload: Workload,
}

/// A broker that asks for one workload.
pub(crate) struct Broker {
    own: Own,
    target: Target,
}

impl Target {
    /// The agent at `address`, asked for `workload`. `agent` is who has to answer; without it any agent of the broker's own
    /// trust domain may, which is enough only where the owner of a socket decides who listens.
    ///
    /// # Errors
    /// When the workload is named by what means something else where the agent is (Broker API 3.1.2), or it is not said who
    /// has to answer over TCP (Broker Endpoint 5).
    pub(crate) fn new(
        address: BrokerAddress,
        agent: Option<SpiffeId>,
        workload: Workload,
    ) -> Result<Self, Failure> {
        let address = if workload.is_of_this_host() { address.on_this_host()? } else { address };
        if agent.is_none() && matches!(address, BrokerAddress::Tcp { .. }) {
            return Err(Failure::new(format!("it is not said which agent has to answer at {address}"))
                .try_this("set -agentID to the agent's SPIFFE ID, which the agent's log shows"));
        }
        Ok(Self { address, agent, workload })
    }
}

impl Broker {
    /// A broker that shows `own` to the agent of `target`.
    pub(crate) fn new(own: Own, target: Target) -> Self {
        Self { own, target }
    }

    /// A new connection to the agent, with the certificate that it was shown.
    ///
    /// # Errors
    /// When there is no own identity, nobody answers, or somebody else than the agent does.
    pub(crate) async fn connect(&self) -> Result<(Client, X509Svid), Refused> {
        let svid = self.own.svid().await.map_err(Refused::for_good)?;
        let expected = match &self.target.agent {
            Some(id) => ExpectedServer::Id(id.clone()),
            None => ExpectedServer::AgentOf(svid.spiffe_id().trust_domain()),
        };
        let (host, port) = match &self.target.address {
            BrokerAddress::Tcp { host, port } => (host.as_str(), *port),
            BrokerAddress::Unix(_) => ("localhost", 0),
        };
        let trust = Trust::Bundles(self.own.bundles().clone());
        let dialer = TlsDialer::new(host, port, trust, expected, SystemClock::shared())
            .with_identity(self.own.identity().clone());
        let channel = match &self.target.address {
            BrokerAddress::Unix(path) => dialer.connect_unix(path).await,
            BrokerAddress::Tcp { .. } => dialer.connect().await,
        };
        let unreached = |error| Refused::unreached(self.unreached(&error));
        Ok((ApiClient::new(channel.map_err(unreached)?), svid))
    }

    fn unreached(&self, error: &DialError) -> Failure {
        let failure =
            Failure::because(format!("cannot reach the broker endpoint at {}", self.target.address), error);
        match error.reason() {
            Reason::PeerWrongId => failure.try_this("correct -agentID, or the endpoint's address"),
            Reason::Unreachable => failure.try_this(format!(
                "start the agent with a broker endpoint, or correct -brokerSocket or {}",
                address::BROKER_VAR
            )),
            reason => failure.try_this(reason.remedy()),
        }
    }

    /// Waits until the own certificate is another one than `shown`: an agent that did not know us by that one will not
    /// know us by it a moment later (Broker Endpoint 6).
    pub(crate) async fn wait_for_another(&self, shown: Option<&X509Svid>) {
        self.own.changed_from(shown).await;
    }

    /// Whether the workload may still be there.
    pub(crate) fn is_there(&self) -> bool {
        self.target.workload.is_there()
    }

    /// Whether the workload is seen to run, without the agent.
    pub(crate) fn is_known_to_run(&self) -> bool {
        self.target.workload.is_held() && self.target.workload.is_there()
    }

    /// Returns when the workload is seen to have ended, without the agent.
    pub(crate) async fn ended(&self) {
        self.target.workload.ended().await;
    }

    /// That it has ended.
    pub(crate) fn ended_failure(&self) -> Failure {
        Failure::new(format!("{} has ended", self.target.workload))
    }

    /// Asks for its X509-SVIDs.
    pub(crate) fn x509_request(&self) -> Request<SubscribeToX509svidRequest> {
        with_header(SubscribeToX509svidRequest { reference: Some(self.target.workload.reference()) })
    }

    /// Asks for its X.509 bundles.
    pub(crate) fn x509_bundles_request(&self) -> Request<SubscribeToX509BundlesRequest> {
        with_header(SubscribeToX509BundlesRequest { reference: Some(self.target.workload.reference()) })
    }

    /// Asks for its JWT bundles.
    pub(crate) fn jwt_bundles_request(&self) -> Request<SubscribeToJwtBundlesRequest> {
        with_header(SubscribeToJwtBundlesRequest { reference: Some(self.target.workload.reference()) })
    }

    /// Asks for its tokens for `audience`; with a SPIFFE ID for that identity's alone.
    pub(crate) fn token_request(
        &self,
        audience: Vec<String>,
        spiffe_id: String,
    ) -> Request<FetchJwtsvidRequest> {
        let reference = Some(self.target.workload.reference());
        with_header(FetchJwtsvidRequest { reference, audience, spiffe_id })
    }
}

/// A request with the header that proves a caller who means it (Broker Endpoint 3).
fn with_header<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("broker.spiffe.io", MetadataValue::from_static("true"));
    request
}
