//! The workloads of the demo, each a process of its own. They know the agent's socket and the ID of their peer, and hold
//! no secret but what the Workload API gives them.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use spindle_runtime::{Shutdown, SystemClock, TaskSet};
use spindle_spiffe_core::{ErrorChain, SpiffeId, X509Bundles};
use spindle_transport::{
    ExpectedServer, LiveBundles, LiveIdentity, Peer, ServerTls, TlsDialer, TlsListener, Trust, grpc_server,
    peer_of,
};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::event::Event;
use crate::client;
use crate::console::Console;
use crate::error::Failure;
use crate::local::Workload;

/// The pause between two calls.
const PAUSE: Duration = Duration::from_millis(100);

/// How long one call may take.
const CALL: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Subcommand)]
pub(in crate::spindle_cli) enum Command {
    /// Answers the calls of one peer.
    Serve(Flags),
    /// Calls a peer again and again.
    Call {
        #[command(flatten)]
        flags: Flags,
        /// Where the peer listens.
        #[arg(long = "server")]
        server: SocketAddr,
    },
    /// Asks for an identity once.
    Ask {
        /// The agent's socket.
        #[arg(long = "agent")]
        agent: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
pub(in crate::spindle_cli) struct Flags {
    /// The agent's socket.
    #[arg(long = "agent")]
    agent: PathBuf,
    /// Identity of the peer.
    #[arg(long = "peer")]
    peer: SpiffeId,
}

pub(in crate::spindle_cli) fn run(command: &Command, console: &mut Console<'_>) -> Result<(), Failure> {
    let out = RefCell::new(&mut *console.out);
    let tell = |event: Event| -> Result<(), Failure> {
        let mut out = out.borrow_mut();
        writeln!(out, "{event}")?;
        Ok(out.flush()?)
    };
    client::block_on(async {
        match command {
            Command::Serve(flags) => serve(flags, &tell).await,
            Command::Call { flags, server } => call(flags, *server, &tell).await,
            Command::Ask { agent } => ask(agent, &tell).await,
        }
    })
}

type Tell<'a> = &'a dyn Fn(Event) -> Result<(), Failure>;

async fn ask(agent: &Path, tell: Tell<'_>) -> Result<(), Failure> {
    match Workload::of(agent).ask_once().await {
        Ok(fetched) => fetched.svids.iter().try_for_each(|one| tell(Event::Svid(one.svid.serial_decimal()))),
        Err(failure) => tell(Event::Ended(failure.what().into())),
    }
}

/// What is presented and trusted at the moment, kept fresh by [`Live::step`].
struct Live {
    workload: Workload,
    identity: LiveIdentity,
    bundles: LiveBundles,
}

impl Live {
    /// Waits for the first SVID.
    async fn start(agent: &Path, tell: Tell<'_>) -> Result<Self, Failure> {
        let (identity, bundles) = (LiveIdentity::new(), LiveBundles::new(X509Bundles::new()));
        let mut live = Self { workload: Workload::of(agent), identity, bundles };
        live.step(tell).await?;
        Ok(live)
    }

    /// Takes over the next SVID.
    async fn step(&mut self, tell: Tell<'_>) -> Result<(), Failure> {
        let fetched = self.workload.next().await?;
        let one = fetched.svids.first().ok_or_else(|| Failure::new("no SVID"))?;
        let mut bundles = X509Bundles::new();
        bundles.insert(one.bundle.clone());
        self.bundles.set(bundles);
        self.identity
            .set(one.svid.chain().to_vec(), &one.key)
            .map_err(|error| Failure::because("cannot use the SVID", &error))?;
        tell(Event::Svid(one.svid.serial_decimal()))
    }
}

async fn serve(flags: &Flags, tell: Tell<'_>) -> Result<(), Failure> {
    let mut live = Live::start(&flags.agent, tell).await?;
    let tls = ServerTls {
        identity: live.identity.clone(),
        bundles: live.bundles.clone(),
        clock: SystemClock::shared(),
    };
    let listener = TlsListener::bind((Ipv4Addr::LOCALHOST, 0).into(), tls).await?;
    tell(Event::Listening(listener.local_addr()))?;
    let (_reporter, service) = tonic_health::server::health_reporter();
    let peer = flags.peer.clone();
    let service = InterceptedService::new(service, move |request| only(&peer, request));
    let (mut tasks, shutdown) = (TaskSet::new(), Shutdown::new());
    let stop = shutdown.clone();
    tasks.spawn("TLS listener", async move {
        let server = grpc_server().add_service(service);
        server.serve_with_incoming_shutdown(listener.incoming(), async move { stop.begun().await }).await
    });
    let failure = loop {
        if let Err(failure) = live.step(tell).await {
            break failure;
        }
    };
    // An identity that is taken back must not be presented any longer, though its certificate is still valid.
    live.identity.clear();
    shutdown.begin();
    tell(Event::Ended(failure.what().into()))
}

/// Lets one identity in. A valid certificate says who calls, not that the caller may.
fn only(peer: &SpiffeId, request: Request<()>) -> Result<Request<()>, Status> {
    match peer_of(&request) {
        Some(Peer::Tls { identity: Some(identity), .. }) if identity.spiffe_id() == peer => Ok(request),
        Some(Peer::Tls { identity: Some(identity), .. }) => {
            Err(Status::permission_denied(format!("{} may not call", identity.spiffe_id())))
        }
        _ => Err(Status::unauthenticated("the caller presents no SVID")),
    }
}

async fn call(flags: &Flags, server: SocketAddr, tell: Tell<'_>) -> Result<(), Failure> {
    let live = Live::start(&flags.agent, tell).await?;
    let caller = Caller {
        identity: live.identity.clone(),
        bundles: live.bundles.clone(),
        peer: flags.peer.clone(),
        server,
    };
    // Both arms end only with an error, and then nothing of the other is needed.
    let ended = tokio::select! {
        ended = follow(live, tell) => ended,
        ended = caller.call_again_and_again(tell) => ended,
    };
    caller.identity.clear();
    tell(Event::Ended(ended.what().into()))?;
    match caller.call_once().await {
        Ok(()) => tell(Event::Fault("a call without an identity was let in".into())),
        Err(why) => tell(Event::Refused(why)),
    }
}

async fn follow(mut live: Live, tell: Tell<'_>) -> Failure {
    loop {
        if let Err(failure) = live.step(tell).await {
            return failure;
        }
    }
}

struct Caller {
    identity: LiveIdentity,
    bundles: LiveBundles,
    peer: SpiffeId,
    server: SocketAddr,
}

impl Caller {
    async fn call_again_and_again(&self, tell: Tell<'_>) -> Failure {
        let mut pause = interval(PAUSE);
        pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut good, mut failed) = (0, 0);
        loop {
            pause.tick().await;
            let told = match self.call_once().await {
                Ok(()) => {
                    good += 1;
                    Ok(())
                }
                Err(why) => {
                    failed += 1;
                    tell(Event::Fault(why))
                }
            };
            if let Err(failure) = told.and_then(|()| tell(Event::Handshakes(good, failed))) {
                return failure;
            }
        }
    }

    /// One connection with a handshake of its own, and one call on it.
    async fn call_once(&self) -> Result<(), String> {
        let dialer = TlsDialer::new(
            self.server.ip().to_string(),
            self.server.port(),
            Trust::Bundles(self.bundles.clone()),
            ExpectedServer::Id(self.peer.clone()),
            Arc::new(SystemClock),
        )
        .with_identity(self.identity.clone());
        let work = async {
            let channel = dialer.connect().await.map_err(|error| ErrorChain(&error).to_string())?;
            let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
            answer
                .map(drop)
                .map_err(|status| format!("{}: {}", client::code_name(status.code()), status.message()))
        };
        timeout(CALL, work).await.unwrap_or_else(|_| Err("no answer in time".into()))
    }
}
