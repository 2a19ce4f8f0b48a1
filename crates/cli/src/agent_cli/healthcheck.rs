//! `healthcheck`: asks the standard health service on the public socket.

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::args::Socket;
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::endpoint::Endpoint;
use crate::error::Failure;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// No effect; kept because scripts have it.
    #[arg(long = "shallow")]
    shallow: bool,
    /// Says what is asked.
    #[arg(long = "verbose")]
    verbose: bool,
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    if args.verbose {
        writeln!(console.out, "Checking agent health...")?;
    }
    let endpoint = Endpoint::of(&args.socket, console.vars)?;
    check(&endpoint).map_err(|failure| failure.within("Agent is unhealthy"))?;
    Ok(writeln!(console.out, "Agent is healthy.")?)
}

fn check(endpoint: &Endpoint) -> Result<(), Failure> {
    let status = block_on(async {
        let mut client = HealthClient::new(endpoint.connect().await?);
        let answer = client.check(HealthCheckRequest::default()).await;
        Ok(answer.map_err(|status| refused("unable to determine health", &status))?.into_inner().status())
    })?;
    match status {
        ServingStatus::Serving => Ok(()),
        status => Err(Failure::new(format!("agent returned status {:?}", status.as_str_name()))
            .try_this("look at the agent's log")),
    }
}
