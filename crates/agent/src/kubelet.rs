//! The pods of this node, as its kubelet tells them.
//!
//! One list serves all who ask within a second, and one call at a time is under way. Bounded in size and time. Start at
//! [`Kubelet::pods`]; the call is in `call.rs`, what a pod shows in `pods.rs` (pure).

mod call;
mod pods;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::plugins::LivePlugins;
use call::CallFault;

pub(crate) use pods::{PodName, Pods};

/// For how long a list serves: what a kubelet tells is some seconds old anyhow.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// For one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no list of pods.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KubeletError {
    /// The kubelet did not answer, or not with a list.
    #[error("cannot ask the kubelet: {0}")]
    Call(#[from] CallFault),
    /// Nobody said where it is.
    #[error("no kubelet is configured")]
    NotConfigured,
    /// It took too long.
    #[error("the kubelet gave no whole answer within {} s", CALL_TIMEOUT.as_secs())]
    Timeout,
    /// What it answered is no list of pods.
    #[error("the kubelet's answer is no list of pods: {0}")]
    Answer(String),
}

/// Asks one kubelet. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Kubelet(Arc<Shared>);

struct Shared {
    plugins: LivePlugins,
    held: Mutex<Option<(Instant, Arc<Pods>)>>,
}

impl Kubelet {
    /// The one that `plugins` say, when it is asked.
    pub(crate) fn following(plugins: LivePlugins) -> Self {
        Self(Arc::new(Shared { plugins, held: Mutex::default() }))
    }

    /// The pods, as they were a second ago at most. Cancel-safe.
    ///
    /// # Errors
    /// When the kubelet cannot be asked.
    pub(crate) async fn pods(&self) -> Result<Arc<Pods>, KubeletError> {
        let mut held = self.0.held.lock().await;
        if let Some((_, pods)) = held.as_ref().filter(|(at, _)| at.elapsed() < FRESH_FOR) {
            return Ok(pods.clone());
        }
        let plugins = self.0.plugins.load();
        let config = plugins.kubelet.as_ref().ok_or(KubeletError::NotConfigured)?;
        let answer = timeout(CALL_TIMEOUT, call::get(config)).await;
        let text = answer.map_err(|_| KubeletError::Timeout)??;
        let pods = Pods::parse(&text).map_err(|error| KubeletError::Answer(error.to_string()))?;
        let pods = Arc::new(pods);
        *held = Some((Instant::now(), pods.clone()));
        Ok(pods)
    }
}

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;
