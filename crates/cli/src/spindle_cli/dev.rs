//! `dev`: a trust domain for an application author, in memory and in a new directory unless told otherwise.

use std::future::Future;
use std::path::PathBuf;
use std::str::FromStr;

use nix::unistd::{Uid, User};
use spindle_proto::spire::api::types;
use spindle_runtime::{LogSettings, LogTarget, Shutdown, SystemClock, forbid_core_dumps, init_logs};
use spindle_server::StoreKind;
use spindle_spiffe_core::{Clock, SpiffeId, TrustDomain};

use super::scratch::Dir;
use super::show;
use crate::console::Console;
use crate::error::Failure;
use crate::local::{LocalDomain, LocalEntry, LocalSettings, Paths, Workload};
use crate::{input, service};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Directory for sockets and state; a new one below the system's temporary directory when not set.
    #[arg(long = "dir", value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Where records are kept: memory, sled or redb.
    #[arg(long = "store", value_name = "KIND", default_value = "memory")]
    store: Store,
    /// The trust domain.
    #[arg(long = "trustDomain", value_name = "NAME", default_value = "example.org")]
    trust_domain: TrustDomain,
    /// Identity of your application; one with your user ID when not set.
    #[arg(long = "spiffeID", value_name = "ID")]
    spiffe_id: Option<SpiffeId>,
    /// What your application shows, in the form type:value; your user ID when not set. Can be repeated.
    #[arg(long = "selector", value_name = "SELECTOR")]
    selectors: Vec<String>,
    /// Lifetime of SVIDs in seconds.
    #[arg(long = "ttl", value_name = "SECONDS", default_value_t = 3600)]
    ttl_secs: i32,
    #[command(flatten)]
    logs: crate::run_flags::LogFlags,
}

/// The kinds of store that can be asked for.
#[derive(Debug, Clone, Copy)]
struct Store(StoreKind);

impl FromStr for Store {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "memory" => Ok(Self(StoreKind::Memory)),
            "sled" => Ok(Self(StoreKind::Sled)),
            "redb" => Ok(Self(StoreKind::Redb)),
            _ => Err("write memory, sled or redb".into()),
        }
    }
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let dir = Dir::of(args.dir.as_deref())?;
    let paths = Paths::make(dir.path())?;
    let logs =
        init_logs(&logs(args, &paths)?).map_err(|error| Failure::because("cannot set up logs", &error))?;
    forbid_core_dumps();
    let entry = entry(args)?;
    writeln!(console.out, "Starting the trust domain {} (log: {})", args.trust_domain, paths.log.display())?;
    service::block_on(async {
        let shutdown = Shutdown::new();
        let work = tell(args, entry, &paths, console, &shutdown);
        // The terminal has gone, and with it the reader: there is nothing to reload here.
        service::until_signal(work, &shutdown, &logs, async || shutdown.begin()).await?
    })?;
    Ok(writeln!(console.out, "Stopped.")?)
}

/// Logs go to the directory; `-logFile` puts them elsewhere.
fn logs(args: &Args, paths: &Paths) -> Result<LogSettings, Failure> {
    let mut logs = args.logs.raw().ready("dev")?;
    if logs.target == LogTarget::Stdout {
        logs.target = LogTarget::File(paths.log.clone());
    }
    Ok(logs)
}

fn entry(args: &Args) -> Result<LocalEntry, Failure> {
    let mut entry = calling_user(&args.trust_domain, args.ttl_secs)?;
    if let Some(id) = &args.spiffe_id {
        entry.spiffe_id = id.clone();
    }
    if !args.selectors.is_empty() {
        entry.selectors = input::selectors(&args.selectors)?;
    }
    Ok(entry)
}

/// An entry for whoever runs this program.
pub(super) fn calling_user(trust_domain: &TrustDomain, ttl_secs: i32) -> Result<LocalEntry, Failure> {
    let uid = Uid::effective();
    let name = User::from_uid(uid).ok().flatten().map(|user| user.name);
    // A name with characters that a SPIFFE ID cannot have gives way to the number.
    let id = name
        .and_then(|name| user_id(trust_domain, &name))
        .or_else(|| user_id(trust_domain, &uid.to_string()));
    Ok(LocalEntry {
        entry_id: format!("user-{uid}"),
        spiffe_id: id
            .ok_or_else(|| Failure::new(format!("{trust_domain} is too long a name for an identity")))?,
        selectors: vec![types::Selector { r#type: "unix".into(), value: format!("uid:{uid}") }],
        ttl_secs,
    })
}

fn user_id(trust_domain: &TrustDomain, name: &str) -> Option<SpiffeId> {
    format!("spiffe://{trust_domain}/user/{name}").parse().ok()
}

async fn tell(
    args: &Args,
    entry: LocalEntry,
    paths: &Paths,
    console: &mut Console<'_>,
    shutdown: &Shutdown,
) -> Result<(), Failure> {
    let own = args.selectors.is_empty();
    let settings = LocalSettings {
        trust_domain: args.trust_domain.clone(),
        dir: paths.dir.clone(),
        store: args.store.0,
        entries: vec![entry],
    };
    let out = &mut *console.out;
    let domain = LocalDomain::start(settings, shutdown, &mut |step| {
        let _ = show::progress(out, &step);
    })
    .await?;
    let Some(domain) = domain else { return Ok(()) };
    let story = async {
        // With selectors of its own the entry is not for this process.
        if own {
            let mut workload = Workload::of(&paths.agent_socket);
            show::svids(out, &workload.next().await?, SystemClock.now())?;
        }
        show::other_terminal(out, paths, &args.trust_domain, &show::bin_dir())?;
        std::future::pending().await
    };
    until_stopped(domain, shutdown, story).await
}

/// Runs a story beside the trust domain until either ends or the shutdown begins, then stops everything in order.
pub(super) async fn until_stopped(
    domain: LocalDomain,
    shutdown: &Shutdown,
    story: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let mut running = Box::pin(domain.wait(shutdown));
    // All arms are cancel-safe: `running` is only borrowed, and the story is not needed any more when it is dropped.
    let told = tokio::select! {
        ended = &mut running => return ended,
        told = story => told,
        () = shutdown.begun() => Ok(()),
    };
    shutdown.begin();
    let ended = running.await;
    told.and(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calling_user_gets_an_identity_by_uid() {
        let entry = calling_user(&"example.org".parse().unwrap(), 60).unwrap();
        assert!(entry.spiffe_id.as_str().starts_with("spiffe://example.org/user/"));
        assert_eq!(entry.selectors[0].value, format!("uid:{}", Uid::effective()));
        assert!(user_id(&"example.org".parse().unwrap(), "odd name$").is_none());
    }
}
