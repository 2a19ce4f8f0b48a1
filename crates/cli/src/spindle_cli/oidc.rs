//! `oidc-discovery-provider`: the keys of JWT-SVIDs for OpenID Connect clients, until a signal or a fault ends it.

use std::path::PathBuf;
use std::sync::Arc;

use spindle_oidc::{Provider, ProviderConfig, Refresh};
use spindle_runtime::{Logs, Shutdown, SystemClock, SystemEntropy, harden, init_logs};

use crate::config::oidc::{CONFIG_PATH, OidcSettings, print_defaults};
use crate::config::read_file;
use crate::console::Console;
use crate::error::Failure;
use crate::reload::Reload;
use crate::service;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file in HCL or JSON.
    #[arg(long = "config", value_name = "FILE", default_value = CONFIG_PATH)]
    config: PathBuf,
    /// Puts environment variables ($VAR and ${VAR}) into the file before it is read.
    #[arg(long = "expandEnv")]
    expand_env: bool,
    /// Checks the file, and ends.
    #[arg(long = "check-config", alias = "checkConfig")]
    check_config: bool,
    /// Prints a file with all defaults, and ends.
    #[arg(long = "print-defaults", alias = "printDefaults")]
    print_defaults: bool,
    /// Prints the version, and ends.
    #[arg(long = "version")]
    version: bool,
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    if args.version {
        return Ok(writeln!(console.out, "{}", env!("CARGO_PKG_VERSION"))?);
    }
    if args.print_defaults {
        return Ok(write!(console.out, "{}", print_defaults())?);
    }
    let file = read_file(&args.config, args.expand_env, console.vars)?;
    let settings = OidcSettings::read(&file)?;
    if args.check_config {
        return service::print_checked(console, "OIDC discovery provider", &settings.notes);
    }
    let logs = init_logs(&settings.logs).map_err(|error| Failure::because("cannot set up logs", &error))?;
    harden();
    service::log_notes(&settings.notes);
    let reload = Reload { who: "provider", level_key: "log_level", logs: &logs, started_with: file };
    let read = || {
        let file = read_file(&args.config, args.expand_env, console.vars)?;
        let level = OidcSettings::read(&file)?.logs.level;
        Ok((file, level))
    };
    service::block_on(serve(settings.provider, &logs, || reload.run(read)))
}

/// `reload` takes over what can change; the source and the certificate are looked at by the same signal.
async fn serve(config: ProviderConfig, logs: &Logs, reload: impl Fn()) -> Result<(), Failure> {
    let (shutdown, refresh) = (Shutdown::new(), Refresh::default());
    let work = async {
        let (clock, entropy) = (SystemClock::shared(), Arc::new(SystemEntropy));
        let provider = Provider::start(config, refresh.clone(), clock, entropy, shutdown.clone()).await?;
        provider.wait().await
    };
    let reload = async || {
        reload();
        refresh.now();
    };
    let ended = service::until_signal(work, &shutdown, logs, reload).await?;
    ended.map_err(|error| failed(&error))
}

fn failed(error: &spindle_oidc::ProviderError) -> Failure {
    let failure = Failure::because("the provider cannot run", error);
    failure.try_this("look at the address or file that is named, and check the file with --check-config")
}
