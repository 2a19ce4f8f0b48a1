//! The settings of plugins that can change while the agent runs, and their one owner.
//!
//! Whoever obeys them asks [`LivePlugins::load`] each time, so a change holds from the next attestation on. Which plugins
//! there are does not change: what a plugin has opened or issued stands on that. Start at [`PluginSettings::for_running`].

use std::sync::Arc;

use arc_swap::ArcSwap;
use spindle_attest::UnixConfig;

use crate::config::{AgentConfig, KubeletConfig, X509PopSource};
use crate::error::AgentError;
use crate::node_identity;

/// One state of them; none is a plugin that is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginSettings {
    /// `WorkloadAttestor "unix"`.
    pub unix: Option<UnixConfig>,
    /// `NodeAttestor "x509pop"`.
    pub x509pop: Option<X509PopSource>,
    /// `WorkloadAttestor "k8s"`.
    pub kubelet: Option<KubeletConfig>,
}

/// Type and name of a plugin, as the configuration has them.
pub type PluginName = (&'static str, &'static str);

impl PluginSettings {
    /// These, for an agent that runs with `others`: a plugin that only one of both has is as in `others`.
    #[must_use]
    pub fn for_running(self, others: &Self) -> Self {
        Self {
            unix: self.unix.or(others.unix).filter(|_| others.unix.is_some()),
            x509pop: self.x509pop.or_else(|| others.x509pop.clone()).filter(|_| others.x509pop.is_some()),
            kubelet: self.kubelet.or_else(|| others.kubelet.clone()).filter(|_| others.kubelet.is_some()),
        }
    }

    /// The plugins for which `self` says something else than `others`.
    pub fn differences(&self, others: &Self) -> Vec<PluginName> {
        let differs = [
            (self.unix != others.unix, ("WorkloadAttestor", "unix")),
            (self.x509pop != others.x509pop, ("NodeAttestor", "x509pop")),
            (self.kubelet != others.kubelet, ("WorkloadAttestor", "k8s")),
        ];
        differs.into_iter().filter_map(|(differs, name)| differs.then_some(name)).collect()
    }

    /// Reads the files without which an agent would not start.
    ///
    /// # Errors
    /// When the node's certificate or its key cannot be used.
    pub fn check(&self) -> Result<(), AgentError> {
        let checked = self.x509pop.as_ref().map_or(Ok(()), node_identity::check_files);
        checked.map_err(|why| AgentError::NodeProof { why })
    }
}

impl From<&AgentConfig> for PluginSettings {
    fn from(config: &AgentConfig) -> Self {
        Self { unix: config.unix_attestor, x509pop: config.x509pop.clone(), kubelet: config.kubelet.clone() }
    }
}

/// The settings as they are now. Cloned handles share them.
#[derive(Clone, Debug, Default)]
pub struct LivePlugins(Arc<ArcSwap<PluginSettings>>);

impl LivePlugins {
    /// Settings that start like this.
    pub fn new(first: PluginSettings) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(first)))
    }

    /// The settings at this moment.
    pub fn load(&self) -> Arc<PluginSettings> {
        self.0.load_full()
    }

    /// Puts others in their place; attestations at hand finish with those they have read.
    pub fn replace(&self, next: PluginSettings) {
        self.0.store(Arc::new(next));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(discover_workload_path: bool) -> Option<UnixConfig> {
        Some(UnixConfig { discover_workload_path, workload_size_limit: 0 })
    }

    fn socket(path: &str) -> Option<X509PopSource> {
        Some(X509PopSource::WorkloadApi { socket: path.into() })
    }

    #[test]
    fn settings_of_plugins_change_and_the_plugins_stay() {
        let running = PluginSettings { unix: unix(false), x509pop: socket("/a"), kubelet: None };
        let asked = PluginSettings { unix: unix(true), x509pop: socket("/b"), kubelet: None };
        let next = asked.clone().for_running(&running);
        assert_eq!(next, asked);
        assert_eq!(next.differences(&running), [("WorkloadAttestor", "unix"), ("NodeAttestor", "x509pop")]);
        let fewer = PluginSettings { unix: unix(true), ..PluginSettings::default() };
        assert_eq!(
            fewer.clone().for_running(&running),
            PluginSettings { unix: unix(true), ..running.clone() }
        );
        assert_eq!(running.for_running(&fewer), PluginSettings { unix: unix(false), ..fewer });
    }

    #[test]
    fn files_that_prove_nothing_are_refused() {
        let missing = X509PopSource::Files {
            private_key: "/nonexistent/key".into(),
            certificate: "/nonexistent/certificate".into(),
            intermediates: None,
        };
        let settings = PluginSettings { x509pop: Some(missing), ..PluginSettings::default() };
        assert!(settings.check().unwrap_err().to_string().contains("/nonexistent/certificate"));
        assert!(PluginSettings { x509pop: None, ..settings }.check().is_ok());
    }
}
