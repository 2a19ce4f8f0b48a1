//! SIGHUP and SIGUSR1: the configuration is read again, files of plugins included, and what can change while the server runs
//! changes, all of it or nothing.
//!
//! What cannot change is named in a warning, each time, until a restart takes it over. Start at [`Reload::run`].

use std::cell::OnceCell;
use std::fmt::Display;

use spindle_runtime::{LogLevel, Logs, SystemClock};
use spindle_server::{LiveSettings, Reloadable};
use spindle_spiffe_core::{Clock, TrustDomain};
use tracing::warn;

use super::flags::{self, Args};
use super::settings;
use crate::config::changes::{is_data_of, is_of};
use crate::console::Vars;
use crate::duration::print_secs;
use crate::error::Failure;
use crate::hcl::Item;
use crate::reload::{log_changes, log_reconfigured, log_refused, warn_of_others};

/// Keys of the file that can change while the server runs.
const LIVE: &[&str] = &[
    "server.log_level",
    "server.default_x509_svid_ttl",
    "server.default_jwt_svid_ttl",
    "server.agent_ttl",
    "server.admin_ids",
    "server.ratelimit",
    "server.ratelimit.attestation",
    "server.ratelimit.signing",
];

/// Type and name of a plugin whose settings can change.
type PluginName = (&'static str, &'static str);

const X509POP: PluginName = ("NodeAttestor", "x509pop");
const UPSTREAM: PluginName = ("UpstreamAuthority", "disk");

/// What a running server reads again.
pub(super) struct Reload<'a> {
    args: &'a Args,
    vars: Vars<'a>,
    logs: &'a Logs,
    /// The file as the server started with it.
    started_with: Vec<Item>,
    /// Stays as long as the server runs, whatever the file says by now.
    trust_domain: TrustDomain,
    /// Set once the server runs.
    pub(super) live: OnceCell<LiveSettings>,
}

/// One change of a setting, for the log.
fn change(changes: &mut Vec<String>, key: &str, old: impl Display, new: impl Display) {
    let (old, new) = (old.to_string(), new.to_string());
    if old != new {
        changes.push(format!("{key}: {old} -> {new}"));
    }
}

impl<'a> Reload<'a> {
    pub(super) fn new(
        args: &'a Args,
        vars: Vars<'a>,
        logs: &'a Logs,
        started_with: Vec<Item>,
        trust_domain: TrustDomain,
    ) -> Self {
        Self { args, vars, logs, started_with, trust_domain, live: OnceCell::new() }
    }

    /// Reads the file and takes over what can change. One line in the log says what came of it.
    pub(super) fn run(&self) {
        let Some(live) = self.live.get() else {
            return warn!("configuration not reloaded: the server is still starting");
        };
        let before = live.load();
        let Read { file, next, level, refused } = match self.read(&before) {
            Ok(read) => read,
            Err(failure) => return log_refused(&failure),
        };
        // Nothing is refused from here on.
        let mut changes = changes(&before, &next);
        let plugins = plugin_changes(&before, &next);
        changes.extend(plugins.iter().map(|(kind, name)| format!("plugins.{kind}.{name}")));
        change(&mut changes, "server.log_level", self.logs.levels().launch, level);
        live.replace(next);
        log_reconfigured(&plugins);
        self.logs.change_launch_level(level, || log_changes(&changes));
        let is_taken = |name: PluginName, key: &str| !refused.contains(&name) && is_data_of(name, key);
        warn_of_others("server", &self.started_with, &file, |key| {
            LIVE.contains(&key) || is_of(X509POP, key) || is_taken(UPSTREAM, key)
        });
    }

    fn read(&self, running: &Reloadable) -> Result<Read, Failure> {
        let file = flags::items(self.args, self.vars)?;
        let ready = flags::ready(self.args, &file)?;
        let level = ready.logs.level;
        let config = settings::config(ready)?;
        let (mut next, mut refused) = (Reloadable::from(&config), Vec::new());
        if next.upstream.is_some() != running.upstream.is_some() {
            next.upstream = running.upstream.clone();
            refused.push(UPSTREAM);
        } else if next.upstream != running.upstream
            && let Some(upstream) = &next.upstream
        {
            let checked = upstream.check(&self.trust_domain, SystemClock.now());
            checked.map_err(|error| Failure::because("cannot use the upstream authority", &error))?;
        }
        Ok(Read { file, next, level, refused })
    }
}

/// What a file says that can be taken over.
struct Read {
    file: Vec<Item>,
    next: Reloadable,
    level: LogLevel,
    /// Plugins that are there or not there, other than the file says by now.
    refused: Vec<PluginName>,
}

/// The plugins whose settings, or whose files of certificates, are others.
fn plugin_changes(old: &Reloadable, new: &Reloadable) -> Vec<PluginName> {
    let differs =
        [(old.node_attestors != new.node_attestors, X509POP), (old.upstream != new.upstream, UPSTREAM)];
    differs.into_iter().filter_map(|(differs, name)| differs.then_some(name)).collect()
}

fn changes(old: &Reloadable, new: &Reloadable) -> Vec<String> {
    let mut changes = Vec::new();
    let ttl = |secs: i64| print_secs(secs);
    let ids = |settings: &Reloadable| {
        format!("[{}]", settings.admin_ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
    };
    change(
        &mut changes,
        "server.default_x509_svid_ttl",
        ttl(old.default_x509_svid_ttl_secs),
        ttl(new.default_x509_svid_ttl_secs),
    );
    change(
        &mut changes,
        "server.default_jwt_svid_ttl",
        ttl(old.default_jwt_svid_ttl_secs),
        ttl(new.default_jwt_svid_ttl_secs),
    );
    change(&mut changes, "server.agent_ttl", ttl(old.agent_ttl_secs), ttl(new.agent_ttl_secs));
    change(&mut changes, "server.admin_ids", ids(old), ids(new));
    let (old, new) = (old.rate_limits, new.rate_limits);
    change(&mut changes, "server.ratelimit.attestation", old.attestation, new.attestation);
    change(&mut changes, "server.ratelimit.signing", old.signing, new.signing);
    changes
}

#[cfg(test)]
mod tests {
    use spindle_server::RateLimitSettings;

    use super::*;

    #[test]
    fn each_changed_setting_is_listed_with_its_old_and_its_new_value() {
        let old = Reloadable::default();
        assert!(changes(&old, &old).is_empty());
        let new = Reloadable {
            default_x509_svid_ttl_secs: 60,
            default_jwt_svid_ttl_secs: 30,
            agent_ttl_secs: 7200,
            admin_ids: vec!["spiffe://a/b".parse().unwrap(), "spiffe://a/c".parse().unwrap()],
            rate_limits: RateLimitSettings { attestation: true, signing: false },
            ..Reloadable::default()
        };
        assert_eq!(
            changes(&old, &new),
            [
                "server.default_x509_svid_ttl: 1h0m0s -> 1m0s",
                "server.default_jwt_svid_ttl: 5m0s -> 30s",
                "server.agent_ttl: 1h0m0s -> 2h0m0s",
                "server.admin_ids: [] -> [spiffe://a/b, spiffe://a/c]",
                "server.ratelimit.signing: true -> false",
            ]
        );
    }
}
