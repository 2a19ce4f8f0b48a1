//! Attestors of nodes, by name: each leads a conversation of as many challenges as it needs, and says in the end who the node
//! is. Who may have an SVID for that is decided by [`super::attest_node`].
//!
//! Join tokens are no attestor in this sense: the server makes them itself and takes them without being configured to.
//! Start at [`NodeAttestors::begin`].

use std::net::IpAddr;
use std::sync::Arc;

use spindle_spiffe_core::{Selectors, SpiffeId};
use tokio::sync::Semaphore;

use super::AttestFault;
use super::x509pop::X509Pop;
use crate::config::NodeAttestorSettings;
use crate::context::Context;

/// Who a node has proved to be.
#[derive(Debug)]
pub(crate) struct NodeAttributes {
    pub(crate) spiffe_id: SpiffeId,
    pub(crate) selectors: Selectors,
    /// Whether it may prove itself again instead of renewing.
    pub(crate) can_reattest: bool,
}

/// What comes next.
pub(crate) enum Round {
    /// The node is asked, and `then` judges its answer.
    Challenge { bytes: Vec<u8>, then: Box<dyn Conversation> },
    /// It has proved itself.
    Attested(NodeAttributes),
}

/// An attestation under way.
pub(crate) trait Conversation: Send {
    /// Judges the answer to the last challenge. May compute for some milliseconds.
    fn answer(self: Box<Self>, response: &[u8]) -> Result<Round, AttestFault>;
}

/// A way for nodes to prove themselves.
pub(crate) trait NodeAttestor: Send + Sync {
    /// The plugin name, which nodes send, and the type of its selectors.
    fn name(&self) -> &'static str;

    /// Judges what a node shows first. May compute for some milliseconds.
    fn begin(
        &self,
        context: &Context,
        payload: &[u8],
        client_ip: Option<IpAddr>,
    ) -> Result<Round, AttestFault>;
}

/// The attestors that are configured.
pub(crate) struct NodeAttestors {
    all: Vec<Arc<dyn NodeAttestor>>,
    /// Strangers may make these compute, so they get no more than the processors that there are, off the async runtime.
    workers: Semaphore,
}

impl NodeAttestors {
    pub(crate) fn new(settings: &NodeAttestorSettings) -> Self {
        let x509pop = settings.x509pop.clone().map(|settings| Arc::new(X509Pop::new(settings)) as _);
        Self::of(x509pop.into_iter().collect())
    }

    pub(crate) fn of(all: Vec<Arc<dyn NodeAttestor>>) -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Self { all, workers: Semaphore::new(processors) }
    }

    /// Begins a conversation; none when no attestor of that name is configured.
    pub(crate) async fn begin(
        &self,
        context: &Arc<Context>,
        name: &str,
        payload: impl AsRef<[u8]> + Send + 'static,
        client_ip: Option<IpAddr>,
    ) -> Option<Result<(&'static str, Round), AttestFault>> {
        let attestor = self.all.iter().find(|attestor| attestor.name() == name)?.clone();
        let (name, context) = (attestor.name(), context.clone());
        let round = self.blocking(move || attestor.begin(&context, payload.as_ref(), client_ip)).await;
        Some(round.map(|round| (name, round)))
    }

    /// Goes on with a conversation.
    pub(crate) async fn answer(
        &self,
        conversation: Box<dyn Conversation>,
        response: impl AsRef<[u8]> + Send + 'static,
    ) -> Result<Round, AttestFault> {
        self.blocking(move || conversation.answer(response.as_ref())).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, AttestFault> + Send + 'static,
    ) -> Result<T, AttestFault> {
        let _turn = self.workers.acquire().await.map_err(|_| AttestFault::Stopping)?;
        tokio::task::spawn_blocking(work).await.map_err(|_| AttestFault::Stopping)?
    }
}
