//! Who is calling: pins the process behind a connection and has it attested, on a bounded number of blocking threads.
//!
//! Before each later push the process is looked at again; when it has changed it is attested anew, and what it gets is
//! decided by what it shows then. A further call on the same connection begins with such a look, if the process is held
//! by a pidfd and was attested moments ago. Start at [`Callers::attest`]; for a process that a trusted caller names by its
//! number, at [`Callers::attest_by_number`].

mod admission;
mod by_number;
mod threads;

use std::sync::Arc;
use std::time::Duration;

use spindle_attest::{
    AttestError, AttestedCaller, Caller, CallerError, PidfdSource, ProcRoot, SocketPeer, WorkloadAttestor,
    attest_all,
};
use spindle_spiffe_core::Reason;
use spindle_transport::{LocalPeer, TooOften};
use tokio::time::{Instant, timeout};
use tonic::Code;

pub(crate) use by_number::ByNumber;

use crate::config::CallerLimits;
use crate::metrics::{Metrics, size};
use crate::plugins::{LivePlugins, PluginSettings};
use threads::Threads;

pub(crate) use admission::Admission;

/// How long an attestation may take, its turn in the queue included. A program on a dead network drive hangs for ever.
const ATTEST_TIMEOUT: Duration = Duration::from_secs(30);

/// When to try again after a look that hung or waited too long.
const BUSY_AFTER: Duration = Duration::from_secs(5);

/// For how long an attestation serves further calls on its connection. What a look cannot see may be this old: the name of
/// a user or a group, and the path of an executable that was moved.
const SERVES_FOR: Duration = Duration::from_secs(5);

/// What is noted on a connection.
struct Noted {
    caller: Arc<AttestedCaller>,
    /// By which settings it was attested: it does not serve when they are others.
    plugins: Arc<PluginSettings>,
    at: Instant,
}

/// Why a caller cannot be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallerFault {
    /// The process is gone, or no attestor could tell anything.
    #[error(transparent)]
    Attest(#[from] AttestError),
    /// The process is gone, or cannot be looked at.
    #[error(transparent)]
    Caller(#[from] CallerError),
    /// Too many callers at once, or a look at the process hangs.
    #[error("the process was not attested within {} s", ATTEST_TIMEOUT.as_secs())]
    TooSlow,
    /// The process, or its user, was attested too often of late.
    #[error("{} asks to be attested too often", .0.who.who())]
    TooOften(TooOften),
    /// A bug of ours.
    #[error("the attestation broke: {0}")]
    Broke(String),
}

impl CallerFault {
    /// The code to show.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Attest(error) => error.reason(),
            Self::Caller(error) => error.reason(),
            Self::TooSlow | Self::TooOften(_) => Reason::Overloaded,
            Self::Broke(_) => Reason::AttestationFailed,
        }
    }

    /// When the caller may try again, if it is a matter of time.
    pub(crate) fn come_back_after(&self) -> Option<Duration> {
        match self {
            Self::TooOften(refused) => Some(refused.after),
            Self::TooSlow => Some(BUSY_AFTER),
            _ => None,
        }
    }
}

/// What a fresh look at a known caller brought.
#[derive(Debug)]
pub(crate) enum Look {
    /// It is what it was.
    Same,
    /// It has changed and was attested anew.
    Changed(Arc<AttestedCaller>),
}

/// Attests callers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Callers {
    attestors: Arc<[Box<dyn WorkloadAttestor>]>,
    root: ProcRoot,
    threads: Threads,
    admission: Admission,
    metrics: Arc<Metrics>,
    plugins: LivePlugins,
}

impl Callers {
    /// Attests with the given attestors processes that are looked up in `root`, with the usual bounds on how often.
    pub(crate) fn new(attestors: Vec<Box<dyn WorkloadAttestor>>, root: ProcRoot) -> Self {
        let admission = Admission::new(&CallerLimits::default());
        let (metrics, plugins) = (Arc::default(), LivePlugins::default());
        Self { attestors: attestors.into(), root, threads: Threads::new(), admission, metrics, plugins }
    }

    /// Counts what it does, and what is done for its callers.
    pub(crate) fn metered(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }

    /// What is counted.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// For attestors that obey `plugins`.
    pub(crate) fn following(self, plugins: LivePlugins) -> Self {
        Self { plugins, ..self }
    }

    /// With other bounds.
    pub(crate) fn limited(self, limits: &CallerLimits) -> Self {
        Self { admission: Admission::new(limits), ..self }
    }

    /// How much each process and user may ask for.
    pub(crate) fn admission(&self) -> &Admission {
        &self.admission
    }

    /// What the process behind `peer` shows.
    pub(crate) async fn attest(&self, peer: &LocalPeer) -> Result<Arc<AttestedCaller>, CallerFault> {
        let plugins = self.plugins.load();
        let serves =
            |noted: &Arc<Noted>| noted.at.elapsed() < SERVES_FOR && Arc::ptr_eq(&noted.plugins, &plugins);
        if let Some(noted) = peer.notes.get::<Noted>().filter(serves) {
            return match self.look_again(peer, &noted.caller).await? {
                Look::Same => Ok(noted.caller.clone()),
                Look::Changed(caller) => Ok(caller),
            };
        }
        self.admission.attestation(peer).map_err(CallerFault::TooOften)?;
        let (callers, socket_peer) = (self.clone(), socket_peer(peer));
        // Apart, so that a stream does not carry the room for it as long as it is open; below too.
        let caller =
            Box::pin(self.on_thread(peer.uid, peer.pid, move || callers.attest_now(&socket_peer))).await?;
        note(peer, &caller, plugins);
        Ok(caller)
    }

    /// Looks again at a caller that was attested before.
    pub(crate) async fn look_again(
        &self,
        peer: &LocalPeer,
        known: &Arc<AttestedCaller>,
    ) -> Result<Look, CallerFault> {
        // The usual case needs no other thread, which would cost more than the look.
        if known.is_plainly_same() {
            return Ok(Look::Same);
        }
        let plugins = self.plugins.load();
        let (callers, socket_peer, known) = (self.clone(), socket_peer(peer), known.clone());
        let look = self.on_thread(peer.uid, peer.pid, move || match known.recheck() {
            Ok(()) => Ok(Look::Same),
            Err(CallerError::Changed { .. }) => Ok(Look::Changed(callers.attest_now(&socket_peer)?)),
            Err(error) => Err(error.into()),
        });
        let look = Box::pin(look).await?;
        if let Look::Changed(caller) = &look {
            note(peer, caller, plugins);
        }
        Ok(look)
    }

    async fn on_thread<T: Send + 'static>(
        &self,
        uid: u32,
        pid: i32,
        work: impl FnOnce() -> Result<T, CallerFault> + Send + 'static,
    ) -> Result<T, CallerFault> {
        match timeout(ATTEST_TIMEOUT, self.threads.run(uid, pid, work)).await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => Err(CallerFault::Broke(error.to_string())),
            Err(_) => Err(CallerFault::TooSlow),
        }
    }

    fn attest_now(&self, peer: &SocketPeer) -> Result<Arc<AttestedCaller>, CallerFault> {
        self.ask_attestors(Caller::open(&self.root, peer)?)
    }

    /// What all attestors tell about a process that is held.
    fn ask_attestors(&self, caller: Caller) -> Result<Arc<AttestedCaller>, CallerFault> {
        let timer = self.metrics.attestation.start();
        let attested = attest_all(&self.attestors, Arc::new(caller));
        timer.done(if attested.is_ok() { Code::Ok } else { Code::Internal });
        let attested = attested?;
        self.metrics.discovered_selectors.record(size(attested.selectors().iter().count()));
        for failure in attested.failures() {
            tracing::warn!(pid = attested.caller().pid(), attestor = failure.attestor, error = %failure.error,
                "a workload attestor failed; its selectors are missing");
        }
        Ok(Arc::new(attested))
    }
}

/// Only what is whole, about a process that cannot be another's by now.
fn note(peer: &LocalPeer, caller: &Arc<AttestedCaller>, plugins: Arc<PluginSettings>) {
    if caller.caller().is_pinned() && caller.failures().is_empty() {
        peer.notes.set(Noted { caller: caller.clone(), plugins, at: Instant::now() });
    }
}

fn socket_peer(peer: &LocalPeer) -> SocketPeer {
    let pidfd = peer.pidfd.clone().map(|pidfd| PidfdSource::new(move || pidfd.open()));
    SocketPeer { pid: peer.pid, uid: peer.uid, gid: peer.gid, pidfd }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use spindle_attest::{AttestorError, UnixAttestor, UnixConfig};
    use spindle_spiffe_core::Selector;
    use spindle_transport::{Notes, UnixClients, UnixListener, UnixSocketConfig};
    use tokio_stream::StreamExt;

    use super::*;

    struct Silent;

    impl WorkloadAttestor for Silent {
        fn name(&self) -> &'static str {
            "silent"
        }

        fn attest(&self, caller: &Caller) -> Result<Vec<Selector>, AttestorError> {
            Err(AttestorError::Unsteady { pid: caller.pid() })
        }
    }

    fn ourselves() -> LocalPeer {
        let facts = std::fs::metadata("/proc/self").unwrap();
        let pid = i32::try_from(std::process::id()).unwrap();
        LocalPeer { pid, uid: facts.uid(), gid: facts.gid(), pidfd: None, notes: Notes::default() }
    }

    fn unix() -> Box<dyn WorkloadAttestor> {
        Box::new(UnixAttestor::new(UnixConfig::default()))
    }

    fn callers(attestors: Vec<Box<dyn WorkloadAttestor>>) -> Callers {
        Callers::new(attestors, ProcRoot::default())
    }

    #[tokio::test]
    async fn processes_are_looked_up_in_the_configured_proc_file_system() {
        let elsewhere = tempfile::tempdir().unwrap();
        let fault = Callers::new(vec![unix()], ProcRoot::new(elsewhere.path())).attest(&ourselves()).await;
        assert_eq!(fault.unwrap_err().reason(), Reason::CallerGone);
        std::os::unix::fs::symlink("/proc/self", elsewhere.path().join(std::process::id().to_string()))
            .unwrap();
        assert!(
            Callers::new(vec![unix()], ProcRoot::new(elsewhere.path())).attest(&ourselves()).await.is_ok()
        );
    }

    #[tokio::test]
    async fn a_process_shows_its_user_and_stays_what_it_is() {
        let callers = callers(vec![unix()]);
        let attested = callers.attest(&ourselves()).await.unwrap();
        let uid: Selector = format!("unix:uid:{}", ourselves().uid).parse().unwrap();
        assert!(attested.selectors().contains(&uid));
        assert!(matches!(callers.look_again(&ourselves(), &attested).await, Ok(Look::Same)));
    }

    /// Counts how often it is asked.
    #[derive(Clone, Default)]
    struct Counting(Arc<std::sync::atomic::AtomicUsize>);

    impl WorkloadAttestor for Counting {
        fn name(&self) -> &'static str {
            "counting"
        }

        fn attest(&self, _: &Caller) -> Result<Vec<Selector>, AttestorError> {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Ok(Vec::new())
        }
    }

    /// A peer as a socket tells it, and the two ends of its connection.
    async fn connected() -> (LocalPeer, impl Sized) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let clients = UnixClients::Tools;
        let config = UnixSocketConfig { path: path.clone(), mode: 0o700, parent_mode: 0o700, clients };
        let mut incoming = UnixListener::bind(&config).unwrap().incoming();
        let client = tokio::net::UnixStream::connect(&path).await.unwrap();
        let Ok(io) = incoming.next().await.unwrap();
        let spindle_transport::Peer::Local(peer) = io.peer().clone() else { panic!("a local peer") };
        (peer, (io, client))
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_process_is_attested_once_for_the_calls_of_a_few_seconds_on_one_connection() {
        let (counting, (peer, _ends)) = (Counting::default(), connected().await);
        let callers = callers(vec![Box::new(counting.clone())]);
        let asked = || counting.0.load(std::sync::atomic::Ordering::SeqCst);
        let first = callers.attest(&peer).await.unwrap();
        let second = callers.attest(&peer).await.unwrap();
        if peer.pidfd.is_none() {
            assert_eq!(asked(), 2, "below Linux 6.5 nothing holds the process");
            return;
        }
        assert!(Arc::ptr_eq(&first, &second) && asked() == 1);
        callers.attest(&LocalPeer { notes: Notes::default(), ..peer.clone() }).await.unwrap();
        assert_eq!(asked(), 2, "another connection");
        tokio::time::advance(SERVES_FOR).await;
        callers.attest(&peer).await.unwrap();
        assert_eq!(asked(), 3, "too long ago");
        callers.plugins.replace(PluginSettings::default());
        callers.attest(&peer).await.unwrap();
        callers.attest(&peer).await.unwrap();
        assert_eq!(asked(), 4, "by other settings");
    }

    #[tokio::test]
    async fn an_attestation_of_a_process_that_nothing_holds_or_with_a_failure_is_not_used_again() {
        let (counting, peer) = (Counting::default(), ourselves());
        let unheld = callers(vec![Box::new(counting.clone())]);
        let failing = callers(vec![Box::new(Silent), Box::new(counting.clone())]);
        let (connected, _ends) = connected().await;
        for _ in 0..2 {
            unheld.attest(&peer).await.unwrap();
            failing.attest(&connected).await.unwrap();
        }
        assert_eq!(counting.0.load(std::sync::atomic::Ordering::SeqCst), 4);
    }

    #[tokio::test]
    async fn one_failing_attestor_does_not_matter_but_all_do() {
        assert!(callers(vec![Box::new(Silent), unix()]).attest(&ourselves()).await.is_ok());
        let fault = callers(vec![Box::new(Silent)]).attest(&ourselves()).await.unwrap_err();
        assert_eq!(fault.reason(), Reason::AttestationFailed);
        let fault = callers(vec![]).attest(&ourselves()).await.unwrap_err();
        assert_eq!(fault.reason(), Reason::AttestationFailed);
    }

    #[tokio::test]
    async fn a_process_that_is_not_there_is_told_as_gone() {
        let nobody = LocalPeer { pid: i32::MAX, ..ourselves() };
        let fault = callers(vec![unix()]).attest(&nobody).await.unwrap_err();
        assert_eq!(fault.reason(), Reason::CallerGone);
    }

    #[tokio::test]
    async fn a_thousand_callers_at_once_are_all_attested() {
        let callers = callers(vec![unix()]);
        let (all, peer) = (0..1000, ourselves());
        let attested = futures_util::future::join_all(all.map(|_| callers.attest(&peer))).await;
        assert!(attested.iter().all(Result::is_ok));
    }
}
