//! The Broker API through `spiffe`: some workloads are followed over one connection, each into a store of its own.
//!
//! Mutual TLS is by `spiffe-rustls`, also on the Unix socket. Start at [`broker`].

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::io;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, SelectAll};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use spiffe::broker_api::SecurityHeader;
use spiffe::broker_api::pb::spiffe::broker::api_client::ApiClient;
use spiffe::broker_api::pb::spiffe::broker::{
    FetchJwtsvidRequest, Jwtsvid, SubscribeToJwtBundlesRequest, SubscribeToX509BundlesRequest,
    SubscribeToX509svidRequest, WorkloadPidReference, WorkloadReference, X509svid,
};
use spiffe::transport::Endpoint as Address;
use spiffe_rustls::{authorizer, mtls_client};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status, Streaming};
use tower::service_fn;

use crate::args::Args;
use crate::store::Store;
use crate::{Failure, Outcome, emit, tls};

type Client = ApiClient<InterceptedService<Channel, SecurityHeader>>;
type Bundles = HashMap<String, Vec<u8>>;

/// What comes on a stream.
enum Update {
    Identities(Vec<X509svid>),
    X509Bundles(Bundles),
    JwtBundles(Bundles),
    Ended(Status),
}

/// Where it comes from: the process, and which of its streams.
type Source = (u32, &'static str);

trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Subscribes to everything of each process, and prints all stores after each message until it is killed.
pub async fn broker(args: &Args) -> Result<Outcome, Failure> {
    let channel = match channel(args).await? {
        Ok(channel) => channel,
        Err(refused) => return Ok(Outcome::Refused(whole(&refused))),
    };
    let mut client = ApiClient::with_interceptor(channel, SecurityHeader::new());
    let mut updates = SelectAll::new();
    let (mut stores, mut ended) = (BTreeMap::new(), BTreeMap::<u32, BTreeMap<&str, String>>::new());
    for pid in &args.pids {
        match subscribe(&mut client, *pid).await {
            Err(status) if status.code() == Code::PermissionDenied => {
                return Ok(Outcome::Refused(whole(&status)));
            }
            streams => updates.extend(streams?),
        }
        stores.insert(*pid, Store::default());
    }
    let foreign = std::fs::read(&args.foreign)?;
    while let Some(((pid, stream), update)) = updates.next().await {
        if let Update::Ended(status) = update {
            // What was held for the workload goes with it.
            stores.remove(&pid);
            ended.entry(pid).or_default().insert(stream, format!("{:?}", status.code()));
        } else if let Some(store) = stores.get_mut(&pid) {
            apply(store, update)?;
            if store.can_validate() {
                // A workload that has just ended has no tokens; its streams will tell.
                let tokens = tokens(&mut client, pid, &args.audience).await.unwrap_or_default();
                store.set_tokens(tokens, &args.audience)?;
            }
        }
        emit(&json!({"event": "stores", "stores": show(&stores, &foreign)?, "ended": ended}));
    }
    Ok(Outcome::Done)
}

/// All stores, and for each those that its own bundles verify.
fn show(stores: &BTreeMap<u32, Store>, foreign: &[u8]) -> Result<BTreeMap<u32, Value>, Failure> {
    let one = |(pid, store): (&u32, &Store)| {
        let mut shown = store.show(foreign)?;
        let known: Vec<u32> =
            stores.iter().filter(|(_, other)| store.knows(other)).map(|(pid, _)| *pid).collect();
        shown["knows"] = known.into();
        Ok((*pid, shown))
    };
    stores.iter().map(one).collect()
}

fn apply(store: &mut Store, update: Update) -> Result<(), Failure> {
    match update {
        Update::Identities(svids) => store.set_identities(svids),
        Update::X509Bundles(bundles) => store.set_x509_bundles(bundles),
        Update::JwtBundles(bundles) => store.set_jwt_bundles(bundles),
        Update::Ended(_) => Ok(()),
    }
}

/// The process is always one of this node: PIDs mean nothing elsewhere.
fn reference(pid: u32) -> Result<Option<WorkloadReference>, Status> {
    let pid = i32::try_from(pid).map_err(|error| Status::invalid_argument(error.to_string()))?;
    Ok(Some(WorkloadPidReference { pid }.into()))
}

async fn subscribe(
    client: &mut Client,
    pid: u32,
) -> Result<Vec<BoxStream<'static, (Source, Update)>>, Status> {
    let reference = reference(pid)?;
    let svids =
        client.subscribe_to_x509svid(SubscribeToX509svidRequest { reference: reference.clone() }).await?;
    let x509_bundles = client
        .subscribe_to_x509_bundles(SubscribeToX509BundlesRequest { reference: reference.clone() })
        .await?;
    let jwt_bundles = client.subscribe_to_jwt_bundles(SubscribeToJwtBundlesRequest { reference }).await?;
    Ok(vec![
        tagged((pid, "svids"), svids, |message| Update::Identities(message.svids)),
        tagged((pid, "x509_bundles"), x509_bundles, |message| Update::X509Bundles(plain(message.bundles))),
        tagged((pid, "jwt_bundles"), jwt_bundles, |message| Update::JwtBundles(plain(message.bundles))),
    ])
}

fn plain<B: Into<Vec<u8>>>(bundles: HashMap<String, B>) -> Bundles {
    bundles.into_iter().map(|(name, bundle)| (name, bundle.into())).collect()
}

fn tagged<M: Send + 'static>(
    source: Source,
    stream: Response<Streaming<M>>,
    update: fn(M) -> Update,
) -> BoxStream<'static, (Source, Update)> {
    stream.into_inner().map(move |message| (source, message.map_or_else(Update::Ended, update))).boxed()
}

async fn tokens(client: &mut Client, pid: u32, audience: &str) -> Result<Vec<Jwtsvid>, Status> {
    let audience = vec![audience.to_owned()];
    let request = FetchJwtsvidRequest { reference: reference(pid)?, audience, spiffe_id: String::new() };
    Ok(client.fetch_jwtsvid(request).await?.into_inner().svids)
}

/// A channel to the agent that `--peer` names; the inner error is that it cannot be had.
async fn channel(args: &Args) -> Result<Result<Channel, tonic::transport::Error>, Failure> {
    let config = mtls_client(tls::source(args).await?)
        .authorize(authorizer::exact([args.peer.as_str()])?)
        .with_alpn_protocols([b"h2"])
        .build()?;
    let connector = TlsConnector::from(Arc::new(config));
    let address = Address::parse(&args.broker)?;
    let connect = service_fn(move |_| {
        let (connector, address) = (connector.clone(), address.clone());
        async move { secured(&connector, &address).await.map(TokioIo::new) }
    });
    Ok(Endpoint::from_static("http://localhost").connect_with_connector(connect).await)
}

async fn secured(connector: &TlsConnector, address: &Address) -> io::Result<TlsStream<Box<dyn Transport>>> {
    let stream: Box<dyn Transport> = match address {
        Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        Address::Tcp { host, port } => Box::new(TcpStream::connect((*host, *port)).await?),
        other => return Err(io::Error::other(format!("{other:?} is no address for a broker"))),
    };
    // rustls wants a name; who the server is, the SPIFFE ID alone decides.
    connector.connect(ServerName::try_from("localhost").map_err(io::Error::other)?, stream).await
}

/// An error with all its causes.
fn whole(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(one) = cause {
        text = format!("{text}: {one}");
        cause = one.source();
    }
    text
}
