//! A test authority, a clock that is set by hand, and a health service that notes who calls it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use spindle_spiffe_core::{Clock, Timestamp, X509Authority, X509Bundle, X509Bundles};
use spindle_transport::{
    ExpectedServer, Io, LiveBundles, LiveIdentity, Peer, ServerTls, TlsDialer, TlsListener, Trust,
    grpc_server,
};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_stream::Stream;
use tonic::Status;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::HealthService;

pub(crate) const SERVER_ID: &str = "spiffe://one.example/spire/server";
pub(crate) const AGENT_ID: &str = "spiffe://one.example/spire/agent/a";

/// 2026-01-10T00:00:00Z, in the middle of the leaves' ten days on both sides.
const NOW: Timestamp = Timestamp::from_unix_secs(1_768_003_200);

/// A moment at which every leaf has run out and the authorities have not.
pub(crate) const LATER: Timestamp = Timestamp::from_unix_secs(1_768_003_200 + 30 * 86_400);

pub(crate) struct ManualClock(AtomicI64);

impl ManualClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(NOW.unix_secs())))
    }

    pub(crate) fn set(&self, now: Timestamp) {
        self.0.store(now.unix_secs(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_secs(self.0.load(Ordering::SeqCst))
    }
}

/// A root of one trust domain.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A chain and its key.
pub(crate) struct Issued {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: KeyPair,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2040, 1, 1));
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn issue(&self, spiffe_id: &str) -> Issued {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(spiffe_id.try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 5), date_time_ymd(2026, 1, 15));
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.0).unwrap();
        Issued { chain: vec![leaf.der().clone()], key }
    }

    pub(crate) fn identity(&self, spiffe_id: &str) -> LiveIdentity {
        let identity = LiveIdentity::new();
        self.rotate(&identity, spiffe_id);
        identity
    }

    /// Puts a new key and certificate in.
    pub(crate) fn rotate(&self, identity: &LiveIdentity, spiffe_id: &str) {
        let issued = self.issue(spiffe_id);
        identity.set(issued.chain, &issued.key.serialize_der()).unwrap();
    }

    /// Trusts this root alone, for `trust_domain`.
    pub(crate) fn bundles(&self, trust_domain: &str) -> X509Bundles {
        let authority = X509Authority::parse(self.0.der().clone()).unwrap();
        X509Bundle::new(trust_domain.parse().unwrap(), [authority]).unwrap().into()
    }
}

/// A server that runs until it is stopped; its connections end with it.
pub(crate) struct Served {
    tasks: JoinSet<()>,
    stop: oneshot::Sender<()>,
    calls: Arc<Mutex<Vec<Peer>>>,
}

impl Served {
    pub(crate) fn start(
        incoming: impl Stream<Item = Result<Io, std::convert::Infallible>> + Send + 'static,
    ) -> Self {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let noted = calls.clone();
        let (reporter, _) = tonic_health::server::health_reporter();
        let service = HealthServer::new(HealthService::from_health_reporter(reporter));
        let service = tonic::service::interceptor::InterceptedService::new(
            service,
            move |request: tonic::Request<()>| {
                let peer = spindle_transport::peer_of(&request).cloned();
                noted.lock().unwrap().push(peer.expect("every request has its peer"));
                Ok::<_, Status>(request)
            },
        );
        let mut tasks = JoinSet::new();
        let (stop, stopped) = oneshot::channel();
        tasks.spawn(async move {
            grpc_server()
                .add_service(service)
                .serve_with_incoming_shutdown(incoming, async { drop(stopped.await) })
                .await
                .unwrap();
        });
        Self { tasks, stop, calls }
    }

    /// Stops listening and closes all connections.
    pub(crate) async fn stop(mut self) {
        self.stop.send(()).unwrap();
        self.tasks.join_next().await.unwrap().unwrap();
    }

    /// Who made the latest call.
    pub(crate) fn last_peer(&self) -> Peer {
        self.calls.lock().unwrap().last().cloned().expect("a call was made")
    }

    /// The SPIFFE ID of the latest caller over TLS, if it had any.
    pub(crate) fn last_id(&self) -> Option<String> {
        match self.last_peer() {
            Peer::Tls { identity, .. } | Peer::LocalTls { identity, .. } => {
                identity.map(|peer| peer.spiffe_id().to_string())
            }
            Peer::Local(local) => panic!("{local:?}"),
        }
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.lock().unwrap().len()
    }
}

/// A TLS server of trust domain one.example with everything that can change about it.
pub(crate) struct TlsServer {
    pub(crate) served: Served,
    pub(crate) addr: SocketAddr,
    pub(crate) identity: LiveIdentity,
    pub(crate) bundles: LiveBundles,
    pub(crate) clock: Arc<ManualClock>,
}

impl TlsServer {
    /// Presents an identity of `authority` and trusts it for one.example.
    pub(crate) async fn start(authority: &Authority) -> Self {
        Self::presenting(authority.identity(SERVER_ID), authority).await
    }

    pub(crate) async fn presenting(identity: LiveIdentity, trusted: &Authority) -> Self {
        let bundles = LiveBundles::new(trusted.bundles("one.example"));
        let clock = ManualClock::new();
        let tls = ServerTls { identity: identity.clone(), bundles: bundles.clone(), clock: clock.clone() };
        let listener = TlsListener::bind(([127, 0, 0, 1], 0).into(), tls).await.unwrap();
        let addr = listener.local_addr();
        Self { served: Served::start(listener.incoming()), addr, identity, bundles, clock }
    }

    /// A dialer that trusts `authority`, expects the server's ID and presents nothing.
    pub(crate) fn dialer(&self, authority: &Authority) -> TlsDialer {
        dialer(self.addr, authority)
    }
}

pub(crate) fn dialer(addr: SocketAddr, trusted: &Authority) -> TlsDialer {
    let trust = Trust::Bundles(LiveBundles::new(trusted.bundles("one.example")));
    let expected = ExpectedServer::Id(SERVER_ID.parse().unwrap());
    TlsDialer::new(addr.ip().to_string(), addr.port(), trust, expected, ManualClock::new())
}

/// One call of the health service.
pub(crate) async fn call(channel: &Channel) -> Result<(), Status> {
    let mut client = HealthClient::new(channel.clone());
    let answer = client.check(HealthCheckRequest { service: String::new() }).await?;
    assert_eq!(answer.into_inner().status, ServingStatus::Serving as i32);
    Ok(())
}
