//! Keeps the files current: takes what the source brings, writes generations, and says when a program has to load them.
//!
//! What is shown stays when the agent is away or sends something that is not valid; it goes when the agent takes the identity
//! back (Workload API 5.2.1), unless told to keep it. Start at [`Keeper::start`].

use std::path::PathBuf;
use std::time::Duration;

use spindle_runtime::{SystemClock, nap_until};
use spindle_spiffe_core::{Clock, Timestamp};

use super::content::{Files, ShownSvid, State};
use super::folder::{Access, Folder, NamedFile};
use super::material::{JwtBundles, X509BundleSet, X509Material};
use super::source::{Event, Part, Source};
use super::upstream::Upstream;
use super::wanted::Wanted;
use crate::error::Failure;

/// How soon writing is tried again after the disk refused, in seconds.
const RETRY_SECS: i64 = 2;

/// What happens to the files when the agent takes the identity back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Withdrawal {
    /// They are removed, as the standard asks.
    Remove,
    /// They stay.
    Keep,
}

/// One directory to keep.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) upstream: Upstream,
    pub(crate) wanted: Wanted,
    pub(crate) dir: PathBuf,
    pub(crate) access: Access,
    /// How long a generation stays after the next one is shown, in seconds.
    pub(crate) grace_secs: i64,
    pub(crate) withdrawal: Withdrawal,
}

/// A generation that is shown now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Its number, larger than all before.
    pub(crate) number: u64,
    /// Whether certificate, key or bundles differ from those shown before; else only tokens do.
    pub(crate) is_news: bool,
}

/// What is on the disk.
#[derive(Default)]
struct OnDisk {
    files: Option<Files>,
    told: Vec<NamedFile>,
    said_expired: bool,
}

impl OnDisk {
    fn svid(&self) -> Option<&ShownSvid> {
        self.files.as_ref()?.shown.as_ref()
    }
}

/// One directory that is kept.
pub(crate) struct Keeper {
    folder: Folder,
    source: Source,
    wanted: Wanted,
    withdrawal: Withdrawal,
    state: State,
    on_disk: OnDisk,
    retry_at: Option<Timestamp>,
    said_denied: bool,
}

impl Keeper {
    /// Takes the directory and begins to ask.
    ///
    /// # Errors
    /// When a name or the directory cannot be taken.
    pub(crate) fn start(job: Job) -> Result<Self, Failure> {
        job.wanted.check()?;
        let folder = Folder::open(&job.dir, job.access, job.grace_secs, SystemClock.now())?;
        Ok(Self {
            folder,
            source: Source::start(&job.upstream, &job.wanted),
            wanted: job.wanted,
            withdrawal: job.withdrawal,
            state: State::default(),
            on_disk: OnDisk::default(),
            retry_at: None,
            said_denied: false,
        })
    }

    /// Works until a generation is shown; none when the workload has ended, and its files are gone. Cancel-safe: between two
    /// events everything is in its place.
    ///
    /// # Errors
    /// When asking again cannot help, the first generation cannot be written, or the workload has ended before there was any.
    pub(crate) async fn next(&mut self) -> Result<Option<Shown>, Failure> {
        loop {
            let deadline = self.next_deadline();
            // Both arms are cancel-safe: one only waits, the other takes from a channel.
            let event = tokio::select! {
                event = self.source.next() => Some(event),
                () = rest_until(deadline) => None,
            };
            let now = SystemClock.now();
            let shown = match event {
                Some(Some(Event::Gone(failure))) => return self.on_end(failure).map(|()| None),
                Some(Some(event)) => self.on_event(event, now)?,
                Some(None) => return Err(Failure::new("nothing is left to follow")),
                None => self.on_time(now)?,
            };
            if shown.is_some() {
                return Ok(shown);
            }
        }
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        let svid = self.on_disk.svid().filter(|_| !self.on_disk.said_expired);
        let expiry = svid.map(|svid| svid.expires_at + 1);
        [self.folder.next_due(), self.retry_at, expiry].into_iter().flatten().min()
    }

    fn on_time(&mut self, now: Timestamp) -> Result<Option<Shown>, Failure> {
        self.folder.tidy(now);
        if let Some(svid) = self.on_disk.svid().filter(|svid| svid.expires_at < now)
            && !self.on_disk.said_expired
        {
            tracing::error!(
                spiffe_id = svid.spiffe_id,
                "the SVID in the files has expired and no new one came"
            );
            self.on_disk.said_expired = true;
        }
        match self.retry_at.is_some_and(|at| at <= now) {
            true => self.show(now),
            false => Ok(None),
        }
    }

    fn on_event(&mut self, event: Event, now: Timestamp) -> Result<Option<Shown>, Failure> {
        match event {
            Event::Fatal(failure) | Event::Gone(failure) => return Err(failure),
            Event::Denied(part, failure) => {
                self.forget(part);
                self.withdraw(&failure, now)?;
                return Ok(None);
            }
            // A message with a fault is told and thrown away as a whole (Workload API 4.5).
            Event::X509(message) => match X509Material::read(&message, now) {
                Ok(material) => self.state.x509 = Some(material),
                Err(failure) => return Ok(discard(&failure)),
            },
            Event::X509Bundles(message) => match X509BundleSet::read(&message) {
                Ok(bundles) => self.state.x509_bundles = Some(bundles),
                Err(failure) => return Ok(discard(&failure)),
            },
            Event::JwtBundles(message) => match JwtBundles::read(&message) {
                Ok(bundles) => self.state.jwt_bundles = Some(bundles),
                Err(failure) => return Ok(discard(&failure)),
            },
            Event::Token(at, token) => drop(self.state.tokens.insert(at, token)),
        }
        self.show(now)
    }

    fn forget(&mut self, part: Part) {
        match part {
            Part::X509 => self.state.x509 = None,
            Part::X509Bundles => self.state.x509_bundles = None,
            Part::JwtBundles => self.state.jwt_bundles = None,
            Part::Token(at) => drop(self.state.tokens.remove(&at)),
        }
    }

    /// Writes a generation when all has come and something differs from the disk.
    fn show(&mut self, now: Timestamp) -> Result<Option<Shown>, Failure> {
        self.retry_at = None;
        let files = match self.state.files(&self.wanted) {
            Ok(Some(files)) => files,
            Ok(None) => return Ok(None),
            Err(failure) => {
                self.withdraw(&failure, now)?;
                return Ok(None);
            }
        };
        self.said_denied = false;
        if self.on_disk.files.as_ref().is_some_and(|shown| shown.all == files.all) {
            return Ok(None);
        }
        let number = match self.folder.publish(&files.all, now) {
            Ok(number) => number,
            // Nothing was ever shown: whoever started this has named a place that does not serve.
            Err(failure) if self.on_disk.files.is_none() => return Err(failure),
            Err(failure) => {
                tracing::error!(error = %failure, "trying again");
                self.retry_at = Some(now + RETRY_SECS);
                return Ok(None);
            }
        };
        tracing::info!(
            spiffe_id = files.shown.as_ref().map(|svid| svid.spiffe_id.as_str()),
            serial_num = files.shown.as_ref().map(|svid| svid.serial.as_str()),
            expires_at = files.shown.as_ref().map(|svid| tracing::field::display(svid.expires_at)),
            generation = number,
            "files written"
        );
        let news = &files.all[..files.told];
        let is_news = self.on_disk.told != news;
        self.on_disk = OnDisk { told: news.to_vec(), files: Some(files), said_expired: false };
        Ok(Some(Shown { number, is_news }))
    }

    /// The workload has ended: nothing of it stays (Broker API 4.9).
    fn on_end(&mut self, failure: Failure) -> Result<(), Failure> {
        let shown = self.on_disk.files.is_some();
        self.clear(SystemClock.now())?;
        if !shown {
            return Err(failure);
        }
        tracing::info!(error = %failure, "the workload has ended: its files are removed");
        Ok(())
    }

    /// Removes all files, whatever the agent says, past generations too.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn clear(&mut self, now: Timestamp) -> Result<(), Failure> {
        (self.state, self.on_disk, self.retry_at) = (State::default(), OnDisk::default(), None);
        self.folder.withdraw(now)
    }

    /// The identity was taken back, or has not come yet.
    fn withdraw(&mut self, why: &Failure, now: Timestamp) -> Result<(), Failure> {
        let shown = self.on_disk.files.is_some();
        if !self.said_denied {
            match (shown, self.withdrawal) {
                (false, _) => {
                    tracing::info!(error = %why, "no identity has been issued yet: waiting");
                }
                (true, Withdrawal::Remove) => {
                    tracing::warn!(error = %why, "the identity is withdrawn: removing the files");
                }
                (true, Withdrawal::Keep) => {
                    tracing::warn!(error = %why, "the identity is withdrawn: the files stay");
                }
            }
            self.said_denied = true;
        }
        if shown && self.withdrawal == Withdrawal::Remove {
            self.on_disk = OnDisk::default();
            self.folder.withdraw(now)?;
        }
        Ok(())
    }
}

fn discard(failure: &Failure) -> Option<Shown> {
    tracing::error!(error = %failure, "a message of the agent is not valid: what was there before stays");
    None
}

/// Waits for a time of the wall clock, which may be set meanwhile; for ever without one.
async fn rest_until(deadline: Option<Timestamp>) {
    match deadline {
        Some(deadline) if deadline <= SystemClock.now() => tokio::time::sleep(Duration::from_millis(1)).await,
        Some(deadline) => nap_until(&SystemClock, deadline).await,
        None => std::future::pending().await,
    }
}
