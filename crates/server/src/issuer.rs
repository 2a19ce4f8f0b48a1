//! Policy and profile in, signed SVIDs out.
//!
//! Batches are checked and signed in parallel on blocking threads, off the async runtime; how many may run at once is
//! bounded by the processors, so a burst waits in line instead of starving everything else. The line is bounded too
//! (`issuer/queue.rs`): a call that finds no room is told when to come back.

mod downstream;
mod queue;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use rustls_pki_types::CertificateDer;
use spindle_ca::{CheckedCsr, CsrError, SignError, SvidRequest, SvidSubject};
use spindle_proto::refusal::{come_back, refusal};
use spindle_spiffe_core::entry::{EntryError, check_workload_id};
use spindle_spiffe_core::{
    Clock, DnsName, Entropy, Reason, RegistrationEntry, SpiffeId, TrustDomain, Validity,
};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::authorities::Authorities;
use crate::entries::reason_of;
use crate::live::LiveSettings;
use crate::metrics::Metrics;
use queue::{Place, SigningQueue};

pub(crate) use queue::Urgency;

/// How far NotBefore lies in the past, for peers whose clocks are late. SPIRE's value.
pub(crate) const BACKDATE_SECS: i64 = 10;

/// Lifetime of an SVID that nobody gets.
const PROBE_TTL_SECS: i64 = 60;

/// CSRs that one blocking task works through: long enough to pay for the task, short enough to spread a batch.
const CSRS_PER_TASK: usize = 16;

/// A signed SVID.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    pub(crate) spiffe_id: SpiffeId,
    /// Leaf first, then what leads to the root, without the root.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// Decimal, as SPIRE prints serials.
    pub(crate) serial: String,
    pub(crate) validity: Validity,
}

/// What a workload's SVID is to contain: everything from the entry, the key from the CSR.
#[derive(Clone, Debug)]
pub(crate) struct WorkloadRequest {
    spiffe_id: SpiffeId,
    dns_names: Vec<DnsName>,
    /// Zero means the server's default.
    ttl_secs: i64,
    csr_der: Vec<u8>,
}

impl WorkloadRequest {
    pub(crate) fn of_entry(entry: &RegistrationEntry, csr_der: Vec<u8>) -> Self {
        Self {
            spiffe_id: entry.spiffe_id.clone(),
            dns_names: entry.dns_names.clone(),
            ttl_secs: i64::from(entry.x509_svid_ttl_secs),
            csr_der,
        }
    }
}

/// Why an SVID was not issued.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum IssueError {
    #[error("failed to parse CSR: {0}")]
    Csr(#[from] CsrError),
    #[error("failed to sign: {0}")]
    Sign(#[from] SignError),
    #[error("the server has no active X.509 authority yet")]
    NoAuthority,
    #[error("{0}")]
    Mint(String),
    #[error("malformed CSR: {0}")]
    Name(#[from] EntryError),
    #[error("the server is stopping")]
    Stopped,
    /// There is no room in the line.
    #[error("too many SVIDs are waiting to be signed: come back in {} ms", .0.as_millis())]
    Busy(Duration),
}

impl IssueError {
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Csr(error) => error.reason(),
            Self::Sign(error) => error.reason(),
            Self::Name(error) => reason_of(error),
            Self::NoAuthority => Reason::ServerStarting,
            Self::Stopped => Reason::ServerStopping,
            Self::Busy(_) => Reason::Overloaded,
            Self::Mint(_) => Reason::BadRequest,
        }
    }

    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Csr(_) | Self::Mint(_) | Self::Name(_) => Code::InvalidArgument,
            Self::Sign(SignError::ForeignId { .. } | SignError::Key { .. } | SignError::TooLarge { .. }) => {
                Code::InvalidArgument
            }
            Self::Sign(_) => Code::Internal,
            Self::NoAuthority | Self::Stopped => Code::Unavailable,
            Self::Busy(_) => Code::ResourceExhausted,
        }
    }

    /// The status of a call that fails for it; `message` says what was attempted.
    pub(crate) fn status(&self, message: &str) -> Status {
        match self {
            Self::Busy(after) => come_back(message, *after),
            _ => refusal(self.code(), self.reason(), message),
        }
    }
}

/// Signs with the active authority.
#[derive(Clone)]
pub(crate) struct Issuer(Arc<Inner>);

struct Inner {
    trust_domain: TrustDomain,
    authorities: Arc<Authorities>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    live: LiveSettings,
    processors: usize,
    queue: SigningQueue,
    /// One probe at a time, so that a signature that never comes costs one thread.
    probing: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Issuer {
    pub(crate) fn new(
        trust_domain: TrustDomain,
        authorities: Arc<Authorities>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        live: LiveSettings,
        queue_csrs_max: usize,
        metrics: Arc<Metrics>,
    ) -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        let queue = SigningQueue::new(queue_csrs_max, processors);
        let probing = Arc::new(Semaphore::new(1));
        Self(Arc::new(Inner {
            trust_domain,
            authorities,
            clock,
            entropy,
            live,
            processors,
            queue,
            probing,
            metrics,
        }))
    }

    /// Signs an agent's SVID.
    pub(crate) async fn issue_agent(
        &self,
        agent_id: SpiffeId,
        csr_der: Vec<u8>,
        ttl_secs: i64,
    ) -> Result<Issued, IssueError> {
        let inner = self.0.clone();
        self.one(Urgency::First, move || inner.sign_agent(agent_id, &csr_der, ttl_secs)).await?
    }

    /// Signs an SVID that nobody gets, to find out whether it can be done. Beside the line: a server with many in line is busy,
    /// not ill, and is not to be restarted for it.
    pub(crate) async fn probe(&self, csr_der: Vec<u8>) -> Result<(), IssueError> {
        let name = self.0.trust_domain.member("/for/health/check/only");
        let probe = name.map_err(|error| IssueError::Mint(error.to_string()))?;
        // Nobody closes it.
        let alone = self.0.probing.clone().acquire_owned().await.map_err(|_| IssueError::Stopped)?;
        let inner = self.0.clone();
        let signed = tokio::task::spawn_blocking(move || {
            let signed = inner.sign_agent(probe, &csr_der, PROBE_TTL_SECS);
            drop(alone);
            signed
        });
        signed.await.map_err(|_| IssueError::Stopped)?.map(drop)
    }

    /// Signs one SVID for each request, in order; a refused one does not touch the others.
    ///
    /// # Errors
    /// When there is no room in the line for all of them.
    pub(crate) async fn issue_batch(
        &self,
        requests: Vec<WorkloadRequest>,
    ) -> Result<Vec<Result<Issued, IssueError>>, IssueError> {
        let inner = self.0.clone();
        let issued = self.each(requests, move |request| inner.issue(request)).await?;
        Ok(issued.into_iter().map(|one| one?).collect())
    }

    /// Does `work` for each request of a workload, in order and in parts.
    ///
    /// # Errors
    /// When there is no room in the line for all of them. Of a request: when the server stopped before its turn.
    pub(crate) async fn each<R: Clone + Send + 'static, T: Send + 'static>(
        &self,
        requests: Vec<R>,
        work: impl Fn(&R) -> T + Send + Sync + 'static,
    ) -> Result<Vec<Result<T, IssueError>>, IssueError> {
        let place = self.enter(requests.len(), Urgency::Usual)?;
        let work = Arc::new(work);
        let parts: Vec<Vec<R>> = requests.chunks(CSRS_PER_TASK).map(<[R]>::to_vec).collect();
        let done = parts.into_iter().map(|part| {
            let (work, place, size) = (work.clone(), place.clone(), part.len());
            let part = move || part.iter().map(|request| Ok(work(request))).collect::<Vec<_>>();
            async move {
                match self.blocking(place, size, Urgency::Usual, part).await {
                    Ok(done) => done,
                    Err(error) => (0..size).map(|_| Err(error.clone())).collect(),
                }
            }
        });
        // No more of one call at a time than there are processors, so that calls take turns part by part.
        let done: Vec<Vec<_>> = futures_util::stream::iter(done).buffered(self.0.processors).collect().await;
        Ok(done.into_iter().flatten().collect())
    }

    /// Signs what an administrator asks for: identity and names come from the CSR.
    pub(crate) async fn mint(&self, csr: CheckedCsr, ttl_secs: i64) -> Result<Issued, IssueError> {
        let spiffe_id = self.minted_id(&csr)?;
        let dns_names = minted_names(&csr)?;
        let inner = self.0.clone();
        let subject = SvidSubject::from_csr(&csr)?;
        self.one(Urgency::First, move || inner.sign(spiffe_id, &csr, &dns_names, subject, ttl_secs)).await?
    }

    fn minted_id(&self, csr: &CheckedCsr) -> Result<SpiffeId, IssueError> {
        let [uri] = csr.uri_sans() else {
            let count = csr.uri_sans().len();
            return Err(IssueError::Mint(format!(
                "malformed CSR: exactly one URI SAN is required, found {count}"
            )));
        };
        let id: SpiffeId = uri
            .parse()
            .map_err(|error| IssueError::Mint(format!("CSR URI SAN is not a SPIFFE ID: {error}")))?;
        check_workload_id(&id, &self.0.trust_domain)?;
        Ok(id)
    }

    fn enter(&self, csrs: usize, urgency: Urgency) -> Result<Arc<Mutex<Place>>, IssueError> {
        let place = self.0.queue.enter(csrs, urgency).map_err(IssueError::Busy)?;
        Ok(Arc::new(Mutex::new(place)))
    }

    /// Signs one thing that somebody waits for, on a place of its own.
    pub(crate) async fn one<T: Send + 'static>(
        &self,
        urgency: Urgency,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, IssueError> {
        let place = self.enter(1, urgency)?;
        self.blocking(place, 1, urgency, work).await
    }

    /// Takes the room of `csrs` requests of workloads until it is dropped.
    #[cfg(test)]
    pub(crate) fn crowd(&self, csrs: usize) -> impl Sized + use<> {
        self.enter(csrs, Urgency::Usual).expect("room")
    }

    /// Keeps every processor busy until it is dropped.
    #[cfg(test)]
    pub(crate) async fn keep_busy(&self) -> impl Sized + use<> {
        let turns = (0..self.0.processors).map(|_| self.0.queue.turn(Urgency::Usual));
        futures_util::future::join_all(turns).await
    }

    /// Works through `csrs` requests when it is their turn. Place and turn are held until the work is done, also when the
    /// caller has gone by then.
    async fn blocking<T: Send + 'static>(
        &self,
        place: Arc<Mutex<Place>>,
        csrs: usize,
        urgency: Urgency,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, IssueError> {
        let turn = self.0.queue.turn(urgency).await;
        let worked = tokio::task::spawn_blocking(move || {
            let started = Instant::now();
            let result = work();
            place.lock().unwrap_or_else(PoisonError::into_inner).done(csrs, started.elapsed());
            drop(turn);
            result
        });
        worked.await.map_err(|_| IssueError::Stopped)
    }
}

fn minted_names(csr: &CheckedCsr) -> Result<Vec<DnsName>, IssueError> {
    let names = csr.dns_sans().iter().map(|name| name.parse()).collect::<Result<Vec<DnsName>, _>>()?;
    for name in &names {
        if let Some(wildcard) = names.iter().find(|other| other.covers(name)) {
            return Err(IssueError::Mint(format!("name overlap: {wildcard} covers {name}")));
        }
    }
    Ok(names)
}

impl Inner {
    fn sign_agent(&self, agent_id: SpiffeId, csr_der: &[u8], ttl_secs: i64) -> Result<Issued, IssueError> {
        let csr = CheckedCsr::parse(csr_der)?;
        self.sign(agent_id, &csr, &[], SvidSubject::default(), ttl_secs)
    }

    fn issue(&self, request: &WorkloadRequest) -> Result<Issued, IssueError> {
        let csr = CheckedCsr::parse(&request.csr_der)?;
        self.sign(
            request.spiffe_id.clone(),
            &csr,
            &request.dns_names,
            SvidSubject::default(),
            request.ttl_secs,
        )
    }

    fn sign(
        &self,
        spiffe_id: SpiffeId,
        csr: &CheckedCsr,
        dns_names: &[DnsName],
        subject: SvidSubject,
        ttl_secs: i64,
    ) -> Result<Issued, IssueError> {
        let authority = self.authorities.active().ok_or(IssueError::NoAuthority)?;
        let now = self.clock.now();
        let ttl_secs = if ttl_secs > 0 { ttl_secs } else { self.live.load().default_x509_svid_ttl_secs };
        let signed = authority.sign_x509_svid(&SvidRequest {
            spiffe_id,
            spki_der: csr.spki_der(),
            subject,
            dns_names,
            validity: Validity { not_before: now - BACKDATE_SECS, not_after: now + ttl_secs },
            serial: self.entropy.serial(),
        })?;
        self.metrics.signed_x509_svids.increment(1);
        Ok(Issued {
            spiffe_id: signed.spiffe_id,
            chain: signed.chain,
            serial: signed.serial.to_string(),
            validity: signed.validity,
        })
    }
}
