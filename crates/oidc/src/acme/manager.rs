//! The task that keeps a certificate for each domain: when one is due, and what comes after a failure.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::NewAccount;
use spindle_renewal::{Backoff, BackoffPolicy, Jitter, Renewal, RenewalPolicy, Step};
use spindle_runtime::{Shutdown, nap_until};
use spindle_spiffe_core::{Clock, Entropy, ErrorChain, Timestamp, Validity};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::cache::{Account, Cache};
use super::http::Client;
use super::order::{OrderError, obtain};
use super::{AcmeConfig, Certificates};
use crate::site::Domain;
use crate::tls::certified_key;

/// When two thirds of a certificate's life are gone it is replaced, as ACME servers advise. They bound failures per hour,
/// so pauses are long.
const POLICY: RenewalPolicy = RenewalPolicy {
    due_percent: 66,
    jitter_percent: 3,
    availability_target: None,
    backoff: BackoffPolicy {
        first: Duration::from_secs(5 * 60),
        max: Duration::from_secs(6 * 3600),
        growth_percent: 200,
        jitter_percent: 10,
    },
};

/// One domain's certificate.
struct Held {
    domain: Domain,
    life: Life,
}

enum Life {
    /// There is none; the next try is then.
    Missing { next: Timestamp, backoff: Backoff },
    /// It is served.
    Served(Renewal),
}

/// Gets certificates and renews them.
pub(crate) struct Manager {
    config: AcmeConfig,
    cache: Cache,
    certificates: Arc<Certificates>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    held: Vec<Held>,
    account: Option<instant_acme::Account>,
}

impl Manager {
    /// Puts up what the cache holds.
    pub(super) async fn new(
        config: AcmeConfig,
        cache: Cache,
        certificates: Arc<Certificates>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let mut manager =
            Self { config, cache, certificates, clock, entropy, held: Vec::new(), account: None };
        for domain in manager.config.domains.clone() {
            let life = manager.life_of_cached(&domain).await;
            manager.held.push(Held { domain, life });
        }
        manager
    }

    async fn life_of_cached(&self, domain: &Domain) -> Life {
        let now = self.clock.now();
        let missing = Life::Missing { next: now, backoff: Backoff::new(POLICY.backoff) };
        let Some(pem) = self.cache.certificate(domain).await else { return missing };
        match self.serve(domain, &pem) {
            Ok(validity) if validity.contains(now) => {
                Life::Served(Renewal::restored(POLICY, validity, now, self.jitter()))
            }
            Ok(_) => missing,
            Err(error) => {
                warn!(%domain, error = %ErrorChain(&error), "a certificate of the ACME cache cannot be served");
                missing
            }
        }
    }

    fn serve(&self, domain: &Domain, pem: &[u8]) -> Result<Validity, OrderError> {
        let (certificate, validity) = certified_key(pem, pem)?;
        self.certificates.serve(domain, certificate);
        info!(%domain, expires_at = %validity.not_after, "serving certificate ready");
        Ok(validity)
    }

    fn jitter(&self) -> Jitter {
        Jitter::draw(&*self.entropy)
    }

    /// Keeps the certificates current until the shutdown begins. `again` asks for a try now where one is missing.
    pub(crate) async fn run(mut self, again: Arc<Notify>, shutdown: Shutdown) {
        loop {
            let now = self.clock.now();
            match self.held.iter().position(|held| held.life.next(now) <= now) {
                // An order that the shutdown cuts off is forgotten by the ACME server in time.
                Some(index) => tokio::select! {
                    () = self.replace(index) => {}
                    () = shutdown.begun() => return,
                },
                None => {
                    let next = self.held.iter().map(|held| held.life.next(now)).min().unwrap_or(now + 3600);
                    // All arms are cancel-safe: they only wait.
                    tokio::select! {
                        () = nap_until(&*self.clock, next) => {}
                        () = again.notified() => self.held.iter_mut().for_each(|held| held.life.hurry(now)),
                        () = shutdown.begun() => return,
                    }
                }
            }
        }
    }

    async fn replace(&mut self, index: usize) {
        let domain = self.held[index].domain.clone();
        info!(%domain, directory_url = self.config.directory_url, "asking for a serving certificate");
        let replaced = self.fetch(&domain).await;
        let (now, jitter) = (self.clock.now(), self.jitter());
        match replaced {
            Ok(validity) => {
                self.held[index].life = Life::Served(Renewal::issued(POLICY, validity, now, jitter));
            }
            Err(error) => {
                self.held[index].life.failed(now, jitter);
                let next = self.held[index].life.next(now);
                warn!(%domain, error = %ErrorChain(&error), next_try = %next, "no serving certificate");
                // An account that the server does not know any more must not be used for ever.
                self.account = None;
            }
        }
    }

    async fn fetch(&mut self, domain: &Domain) -> Result<Validity, OrderError> {
        let account = match &self.account {
            Some(account) => account.clone(),
            None => self.account.insert(self.open_account().await?).clone(),
        };
        let pem = obtain(&account, domain, &self.certificates).await?;
        let validity = self.serve(domain, pem.as_bytes())?;
        self.cache.keep_certificate(domain, pem.as_bytes()).await;
        Ok(validity)
    }

    /// The kept account if the server still knows it, or a new one. The operator has agreed to the terms of service.
    async fn open_account(&self) -> Result<instant_acme::Account, instant_acme::Error> {
        let url = &self.config.directory_url;
        let builder = || {
            Ok::<_, instant_acme::Error>(instant_acme::Account::builder_with_http(Box::new(Client::new()?)))
        };
        let contact = format!("mailto:{}", self.config.email);
        if let Some(kept) = self.cache.account(url).await {
            let account = builder()?.from_credentials(kept.credentials).await?;
            match account.update_contacts(&[&contact]).await {
                Ok(()) => return Ok(account),
                Err(instant_acme::Error::Api(problem)) => {
                    warn!(error = %problem, "the ACME server does not take the kept account, a new one is made");
                }
                Err(error) => return Err(error),
            }
        }
        let new =
            NewAccount { contact: &[&contact], terms_of_service_agreed: true, only_return_existing: false };
        let (account, credentials) = builder()?.create(&new, url.clone(), None).await?;
        info!(account = account.id(), "ACME account made");
        self.cache.keep_account(&Account { directory_url: url.clone(), credentials }).await;
        Ok(account)
    }
}

impl Life {
    /// When the next try is.
    fn next(&self, now: Timestamp) -> Timestamp {
        match self {
            Self::Missing { next, .. } => *next,
            Self::Served(renewal) => match renewal.step(now) {
                Step::Wait(until) => until,
                Step::Renew | Step::Expired => now,
            },
        }
    }

    fn failed(&mut self, now: Timestamp, jitter: Jitter) {
        match self {
            Self::Served(renewal) => {
                renewal.on_failure(now, jitter);
                if renewal.step(now) == Step::Expired {
                    *self = Self::missing_since_failure(Backoff::new(POLICY.backoff), now, jitter);
                }
            }
            Self::Missing { backoff, .. } => {
                *self = Self::missing_since_failure(backoff.clone(), now, jitter);
            }
        }
    }

    fn missing_since_failure(mut backoff: Backoff, now: Timestamp, jitter: Jitter) -> Self {
        let pause = i64::try_from(backoff.next_pause(jitter).as_secs()).unwrap_or(i64::MAX);
        Self::Missing { next: now + pause.max(1), backoff }
    }

    /// A missing certificate is tried for now.
    fn hurry(&mut self, now: Timestamp) {
        if let Self::Missing { next, .. } = self {
            *next = now;
        }
    }
}

#[cfg(test)]
mod tests;
