//! The task that keeps the published keys current: it asks a server or a file again and again, or follows an agent's stream.
//!
//! A source that fails changes nothing: clients keep seeing its last good answer. The first failure is logged as a warning,
//! repeats of it only at debug level.

mod file;
mod poll;
mod server_api;
mod workload_api;

use std::sync::Arc;

use spindle_runtime::Shutdown;
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use crate::config::{Source, SourceKind};
use crate::published::Publisher;

/// Why a source gave no keys.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("cannot fetch the bundle: {}", status_text(.0))]
    Call(Box<tonic::Status>),
    #[error("the source did not answer within {0} s")]
    Late(u64),
    #[error("cannot read {path}")]
    File { path: String, source: std::io::Error },
    #[error("{path} has more than {max} bytes")]
    TooLarge { path: String, max: usize },
    #[error("{path} is no bundle document")]
    Document { path: String, source: spindle_spiffe_core::bundle_document::BundleDocumentError },
    #[error("the agent's answer has no bundle of trust domain {0}")]
    NoBundle(String),
    #[error("the agent's bundle is malformed")]
    Jwks(#[from] crate::keys::JwksError),
    #[error("the agent ended the stream")]
    Ended,
}

impl From<tonic::Status> for SourceError {
    fn from(status: tonic::Status) -> Self {
        Self::Call(Box::new(status))
    }
}

fn status_text(status: &tonic::Status) -> String {
    format!("{} ({:?})", status.message(), status.code())
}

/// Keeps the keys current until the shutdown begins. `again` asks for a fresh look now.
pub(crate) async fn run(source: Source, publisher: Publisher, again: Arc<Notify>, shutdown: Shutdown) {
    let pace = poll::Pace { interval: source.poll_interval, again, shutdown: shutdown.clone() };
    match source.kind {
        SourceKind::File(path) => poll::run(pace, publisher, file::BundleFile(path)).await,
        SourceKind::ServerApi(path) => poll::run(pace, publisher, server_api::Server::at(&path)).await,
        SourceKind::WorkloadApi(path, trust_domain) => {
            workload_api::follow(path, trust_domain, pace, publisher).await;
        }
    }
}

/// Remembers whether the source fails, so that each change of that is told once.
#[derive(Debug, Default)]
struct Health {
    failure: Option<String>,
    repeats: u64,
}

impl Health {
    fn failed(&mut self, error: &SourceError) {
        let text = spindle_spiffe_core::ErrorChain(error).to_string();
        if self.failure.as_deref() == Some(text.as_str()) {
            self.repeats += 1;
            debug!(error = text, repeats = self.repeats, "the source of keys still fails");
        } else {
            warn!(error = text, "the source of keys fails; clients are shown what it said last");
            (self.failure, self.repeats) = (Some(text), 0);
        }
    }

    fn good(&mut self) {
        if self.failure.take().is_some() {
            info!(repeats = self.repeats, "the source of keys answers again");
        }
    }
}

fn log_ignored(ignored: &[String]) {
    for why in ignored {
        warn!(error = why, "a key of the bundle is left out");
    }
}
