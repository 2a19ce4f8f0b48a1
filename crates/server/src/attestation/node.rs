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
use crate::context::Context;
use crate::live::LiveSettings;

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
    /// Which there are, and their settings, may change while the server runs.
    live: LiveSettings,
    /// Those that have no settings.
    others: Vec<Arc<dyn NodeAttestor>>,
    /// Strangers may make these compute, so they get no more than the processors that there are, off the async runtime.
    workers: Arc<Semaphore>,
}

impl NodeAttestors {
    pub(crate) fn new(live: LiveSettings) -> Self {
        Self::with(live, Vec::new())
    }

    fn with(live: LiveSettings, others: Vec<Arc<dyn NodeAttestor>>) -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Self { live, others, workers: Arc::new(Semaphore::new(processors)) }
    }

    /// The attestor of that name, with the settings of this moment.
    fn find(&self, name: &str) -> Option<Arc<dyn NodeAttestor>> {
        if let Some(found) = self.others.iter().find(|attestor| attestor.name() == name) {
            return Some(found.clone());
        }
        let x509pop = self.live.load().node_attestors.x509pop.clone().map(X509Pop::new);
        x509pop.filter(|attestor| attestor.name() == name).map(|attestor| Arc::new(attestor) as _)
    }

    /// Begins a conversation; none when no attestor of that name is configured.
    pub(crate) async fn begin(
        &self,
        context: &Arc<Context>,
        name: &str,
        payload: impl AsRef<[u8]> + Send + 'static,
        client_ip: Option<IpAddr>,
    ) -> Option<Result<(&'static str, Round), AttestFault>> {
        let attestor = self.find(name)?;
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
        let turn = self.workers.clone().acquire_owned().await.map_err(|_| AttestFault::Stopping)?;
        // The work goes on when its caller has gone, and its turn lasts as long.
        let work = move || {
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| AttestFault::Stopping)?
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc;

    use spindle_testkit::ManualClock;

    use super::*;
    use crate::fixtures::context;
    use crate::live::Reloadable;

    impl NodeAttestors {
        pub(crate) fn of(others: Vec<Arc<dyn NodeAttestor>>) -> Self {
            Self::with(LiveSettings::new(Reloadable::default()), others)
        }
    }

    /// Tells that it began, and goes on when it is told to.
    struct Slow {
        began: tokio::sync::mpsc::UnboundedSender<()>,
        goes_on: Mutex<mpsc::Receiver<()>>,
    }

    impl NodeAttestor for Slow {
        fn name(&self) -> &'static str {
            "slow"
        }

        fn begin(&self, _: &Context, _: &[u8], _: Option<IpAddr>) -> Result<Round, AttestFault> {
            self.began.send(()).unwrap();
            self.goes_on.lock().unwrap().recv().unwrap();
            Err(AttestFault::NotFound)
        }
    }

    #[tokio::test]
    async fn work_whose_caller_has_gone_keeps_its_turn_until_it_ends() {
        let context = context(&ManualClock::default()).await;
        let (began, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
        let (go_on, goes_on) = mpsc::channel();
        let attestors = NodeAttestors::of(vec![Arc::new(Slow { began, goes_on: Mutex::new(goes_on) })]);
        let all = attestors.workers.available_permits();
        tokio::select! {
            _ = attestors.begin(&context, "slow", b"x", None) => panic!("it waits to be told"),
            begun = has_begun.recv() => begun.expect("it began"),
        }
        assert_eq!(attestors.workers.available_permits(), all - 1, "the caller is gone, the work is not");
        go_on.send(()).unwrap();
        let turns = u32::try_from(all).unwrap();
        let _every_turn = attestors.workers.acquire_many(turns).await.expect("the turn is given back");
    }
}
