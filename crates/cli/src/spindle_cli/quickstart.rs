//! `quickstart`: what `make run` starts. A second run goes on with the store, the authority and the agent of the first.

use std::path::PathBuf;

use spindle_runtime::{LogSettings, LogTarget, Shutdown, SystemClock, forbid_core_dumps, init_logs};
use spindle_server::StoreKind;
use spindle_spiffe_core::{Clock, TrustDomain};

use super::show;
use crate::console::Console;
use crate::error::Failure;
use crate::local::{LocalDomain, LocalSettings, Paths, Workload};
use crate::service;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Directory for the store, the keys and the sockets.
    #[arg(long = "dir", value_name = "DIR", default_value = ".run")]
    dir: PathBuf,
    /// The trust domain.
    #[arg(long = "trustDomain", value_name = "NAME", default_value = "example.org")]
    trust_domain: TrustDomain,
    /// Lifetime of your SVIDs in seconds; a new one comes at half of it.
    #[arg(long = "ttl", value_name = "SECONDS", default_value_t = 60)]
    ttl_secs: i32,
    /// Ends after this many rotations, for scripts; never when 0.
    #[arg(long = "rotations", value_name = "COUNT", default_value_t = 0, hide = true)]
    rotations: u32,
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let paths = Paths::make(&args.dir)?;
    // The terminal is for the story; the log is for those who want to know more.
    let logs = LogSettings { target: LogTarget::File(paths.log.clone()), ..LogSettings::default() };
    let logs = init_logs(&logs).map_err(|error| Failure::because("cannot set up logs", &error))?;
    // Not hardened as the server alone is: this process is its own workload, and must be open to its own attestor.
    forbid_core_dumps();
    writeln!(console.out, "Starting the trust domain {} (log: {})", args.trust_domain, paths.log.display())?;
    service::block_on(async {
        let shutdown = Shutdown::new();
        let work = tell(args, &paths, console, &shutdown);
        // The terminal has gone, and with it the reader: there is nothing to reload here.
        service::until_signal(work, &shutdown, &logs, async || shutdown.begin()).await?
    })?;
    Ok(writeln!(console.out, "Stopped.")?)
}

async fn tell(
    args: &Args,
    paths: &Paths,
    console: &mut Console<'_>,
    shutdown: &Shutdown,
) -> Result<(), Failure> {
    let settings = LocalSettings {
        trust_domain: args.trust_domain.clone(),
        dir: args.dir.clone(),
        store: StoreKind::Sled,
        entries: vec![super::dev::calling_user(&args.trust_domain, args.ttl_secs)?],
    };
    let out = &mut *console.out;
    let domain = LocalDomain::start(settings, shutdown, &mut |step| {
        let _ = show::progress(out, &step);
    })
    .await?;
    let Some(domain) = domain else { return Ok(()) };
    let story = async {
        let mut workload = Workload::of(&paths.agent_socket);
        show::svids(out, &workload.next().await?, SystemClock.now())?;
        show::other_terminal(out, paths, &args.trust_domain, &show::bin_dir())?;
        let mut rotations = 0;
        while args.rotations == 0 || rotations < args.rotations {
            show::rotated(out, &workload.next().await?, SystemClock.now())?;
            rotations += 1;
        }
        Ok(())
    };
    super::dev::until_stopped(domain, shutdown, story).await
}
