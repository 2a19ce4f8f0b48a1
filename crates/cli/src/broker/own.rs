//! The broker's own identity: what it shows to agents, and the bundles that agents are held against (Broker Endpoint 3.1).
//!
//! It comes from the Workload API, once or for as long as this value lives. Start at [`Own::follow`].

use spindle_runtime::{SystemClock, TaskSet};
use spindle_spiffe_core::{Clock, X509Bundles, X509Svid};
use spindle_transport::{LiveBundles, LiveIdentity};
use tokio::sync::watch;

use crate::endpoint::Endpoint;
use crate::error::Failure;
use crate::svid_files::material::X509Material;
use crate::svid_files::source::{Event, Part, Source};
use crate::svid_files::upstream::Upstream;
use crate::svid_files::wanted::{Choice, Names, Wanted, What};

/// How it stands with the own identity.
#[derive(Clone, Debug)]
enum State {
    /// It is here, or will be.
    Following,
    /// The agent will not give any.
    Over(Failure),
}

/// What is shown and trusted now.
#[derive(Clone, Default)]
struct Live {
    identity: LiveIdentity,
    bundles: LiveBundles,
}

/// The own identity, kept current.
pub(crate) struct Own {
    live: Live,
    state: watch::Receiver<State>,
    /// Tells of changes, and ends with this.
    _tasks: TaskSet,
}

impl Own {
    /// Fetches it once.
    ///
    /// # Errors
    /// When the Workload API has none for this process.
    pub(crate) async fn once(endpoint: &Endpoint, choice: &Choice) -> Result<Self, Failure> {
        let live = Live::default();
        let ours = |failure: Failure| failure.within("the broker has no identity of its own");
        match Upstream::workload(endpoint.clone()).first(Part::X509).await.map_err(ours)? {
            Event::X509(message) => {
                let material = X509Material::read(&message, SystemClock.now()).map_err(ours)?;
                live.take(choice, &material).map_err(ours)?;
            }
            _ => return Err(ours(Failure::new("the agent answered something else"))),
        }
        let (_, state) = watch::channel(State::Following);
        Ok(Self { live, state, _tasks: TaskSet::new() })
    }

    /// Follows it until this value is dropped. Until the first one is there, [`Own::svid`] waits.
    pub(crate) fn follow(endpoint: Endpoint, choice: Choice) -> Self {
        let (live, mut tasks) = (Live::default(), TaskSet::new());
        let (changes, state) = watch::channel(State::Following);
        let wanted = Wanted {
            what: What::Identity,
            choice: choice.clone(),
            names: Names::of_bundles(None),
            tokens: Vec::new(),
        };
        let source = Source::start(&Upstream::workload(endpoint), &wanted);
        tasks.spawn_infallible("own identity", live.clone().keep(source, choice, changes));
        Self { live, state, _tasks: tasks }
    }

    /// What is shown now; waits for it.
    ///
    /// # Errors
    /// When there will be none.
    pub(crate) async fn svid(&self) -> Result<X509Svid, Failure> {
        let mut state = self.state.clone();
        loop {
            // Before the look, so that no change is missed.
            if let State::Over(failure) = &*state.borrow_and_update() {
                return Err(failure.clone());
            }
            if let Some(svid) = self.live.identity.svid() {
                return Ok(svid);
            }
            if state.changed().await.is_err() {
                return Err(Failure::new("nobody follows the broker's own identity any more"));
            }
        }
    }

    /// Waits until something else than `shown` is there to show; for ever when nobody follows it.
    pub(crate) async fn changed_from(&self, shown: Option<&X509Svid>) {
        let mut state = self.state.clone();
        loop {
            state.mark_unchanged();
            let now = self.live.identity.svid();
            if now.is_some() && now.as_ref().map(X509Svid::chain) != shown.map(X509Svid::chain) {
                return;
            }
            if state.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Shown to agents.
    pub(crate) fn identity(&self) -> &LiveIdentity {
        &self.live.identity
    }

    /// What agents are held against.
    pub(crate) fn bundles(&self) -> &LiveBundles {
        &self.live.bundles
    }
}

impl Live {
    async fn keep(self, mut source: Source, choice: Choice, changes: watch::Sender<State>) {
        while let Some(event) = source.next().await {
            match event {
                // A message with a fault is told and thrown away as a whole (Workload API 4.5).
                Event::X509(message) => match X509Material::read(&message, SystemClock.now()) {
                    Ok(material) => match self.take(&choice, &material) {
                        Ok(()) => tracing::debug!("the broker's own identity is there"),
                        Err(failure) => self.lose(&failure),
                    },
                    Err(failure) => {
                        tracing::error!(error = %failure, "a message of the agent is not valid: what was there before stays");
                    }
                },
                Event::Denied(_, failure) => self.lose(&failure),
                Event::Fatal(failure) | Event::Gone(failure) => {
                    self.lose(&failure);
                    changes.send_replace(State::Over(failure));
                    return;
                }
                Event::X509Bundles(_) | Event::JwtBundles(_) | Event::Token(..) => {}
            }
            changes.send_replace(State::Following);
        }
    }

    /// Bundles first: an agent that shows the newest certificate must be known by then.
    fn take(&self, choice: &Choice, material: &X509Material) -> Result<(), Failure> {
        let own = &choice.of("X509-SVID", &material.identities)?.svid;
        let mut bundles = X509Bundles::from(own.bundle.clone());
        material.federated.values().cloned().for_each(|bundle| bundles.insert(bundle));
        self.bundles.set(bundles);
        self.identity
            .set(own.svid.chain().to_vec(), &own.key)
            .map_err(|error| Failure::because("the broker's own X509-SVID cannot be shown", &error))
    }

    fn lose(&self, failure: &Failure) {
        tracing::warn!(error = %failure, "the broker has no identity of its own: waiting");
        self.identity.clear();
    }
}
