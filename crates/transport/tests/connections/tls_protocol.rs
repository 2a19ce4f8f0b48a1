//! What is negotiated, and that bad or slow peers hold nobody up. Raw rustls stands in for other people's clients.

use std::sync::{Arc, Mutex};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, ProtocolVersion, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use spindle_spiffe_core::Reason;
use spindle_transport::{DialError, HandshakeError, KeyExchange};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::{AGENT_ID, Authority, Issued, SERVER_ID, TlsServer, call, dialer};

/// Believes any server.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn raw_config(versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

async fn raw_connect(
    server: &TlsServer,
    config: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(server.addr).await?;
    TlsConnector::from(config.clone()).connect("server.example".try_into().unwrap(), stream).await
}

/// A certificate with a key that is not its own.
fn stolen(authority: &Authority, id: &str) -> CertifiedKey {
    let Issued { chain, .. } = authority.issue(id);
    let key = PrivateKeyDer::try_from(authority.issue(id).key.serialize_der()).unwrap();
    CertifiedKey::new(chain, aws_lc_rs::sign::any_supported_type(&key).unwrap())
}

#[tokio::test]
async fn tls_13_with_the_post_quantum_hybrid_and_http_2_is_negotiated() {
    let server = TlsServer::start(&Authority::new()).await;
    let stream = raw_connect(&server, &Arc::new(raw_config(rustls::ALL_VERSIONS))).await.unwrap();
    let (_, connection) = stream.get_ref();
    assert_eq!(connection.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));
    let group = connection.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), rustls::NamedGroup::X25519MLKEM768);
}

/// How a server that knows no post-quantum key exchange looks to a dialer that may do without one, or may not.
async fn classical_server(key_exchange: KeyExchange) -> Result<(), DialError> {
    let authority = Authority::new();
    let Issued { chain, key } = authority.issue(SERVER_ID);
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let certified = CertifiedKey::new(chain, aws_lc_rs::sign::any_supported_type(&key).unwrap());
    let kx_groups = vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1];
    let provider = rustls::crypto::CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() };
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        // It says nothing of HTTP/2, and waits for the client to go.
        if let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    dialer(addr, &authority).with_key_exchange(key_exchange).connect().await.map(drop)
}

#[tokio::test]
async fn a_dialer_that_needs_a_post_quantum_key_exchange_takes_no_other() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority).await;
    let required = server.dialer(&authority).with_key_exchange(KeyExchange::RequirePostQuantum);
    call(&required.connect().await.unwrap()).await.unwrap();
    classical_server(KeyExchange::PreferPostQuantum).await.expect("it may do without one");
    let error = classical_server(KeyExchange::RequirePostQuantum).await.unwrap_err();
    assert!(
        matches!(
            error,
            DialError::Handshake { source: HandshakeError::Tls(_) | HandshakeError::RefusedByPeer(_), .. }
        ),
        "{error:?}"
    );
    assert_eq!(error.reason(), Reason::Unreachable, "{error:?}");
}

#[tokio::test]
async fn a_client_that_knows_tls_12_only_is_refused() {
    let server = TlsServer::start(&Authority::new()).await;
    raw_connect(&server, &Arc::new(raw_config(&[&rustls::version::TLS12]))).await.unwrap_err();
}

#[tokio::test]
async fn no_session_is_resumed_although_the_client_would() {
    let server = TlsServer::start(&Authority::new()).await;
    let mut config = raw_config(&[&rustls::version::TLS13]);
    config.resumption = Resumption::in_memory_sessions(8);
    let config = Arc::new(config);
    for _ in 0..2 {
        let mut stream = raw_connect(&server, &config).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        // Reading the server's first frame makes sure that tickets, had there been any, have arrived.
        stream.read_u8().await.unwrap();
    }
}

#[tokio::test]
async fn a_client_with_a_stolen_certificate_is_refused() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority).await;
    let mut config = raw_config(&[&rustls::version::TLS13]);
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(stolen(&authority, AGENT_ID)));
    let mut stream = raw_connect(&server, &Arc::new(config)).await.unwrap();
    let error = stream.read_u8().await.unwrap_err();
    assert!(error.to_string().contains("DecryptError"), "{error}");
}

#[tokio::test]
async fn a_server_with_a_stolen_certificate_is_not_trusted() {
    let authority = Authority::new();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(stolen(&authority, SERVER_ID))));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap_err()
    });
    let error = dialer(addr, &authority).connect().await.unwrap_err();
    assert_eq!(error.reason(), Reason::PeerNotTrusted, "{error:?}");
}

#[tokio::test]
async fn peers_that_stall_or_talk_nonsense_hold_nobody_up() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(server.addr).await.unwrap());
    }
    // Half a client hello, and another protocol.
    silent[0].write_all(&[0x16, 0x03, 0x01, 0x02]).await.unwrap();
    silent[1].write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    drop(silent.pop());
    let channel = server.dialer(&authority).connect().await.unwrap();
    call(&channel).await.unwrap();
    let mut answer = Vec::new();
    silent[1].read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer.first(), Some(&0x15), "a TLS alert, and the end");
    call(&channel).await.unwrap();
}

#[tokio::test]
async fn nobody_listening_and_no_tls_are_unreachable() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"220 mail.example ESMTP\r\n").await.unwrap();
    });
    let error = dialer(addr, &authority).connect().await.unwrap_err();
    assert_eq!(error.reason(), Reason::Unreachable, "{error:?}");
    tasks.join_next().await.unwrap().unwrap();
    // The listener is gone now.
    let error = dialer(addr, &authority).connect().await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot connect to {addr}"));
    let mut nowhere = dialer(addr, &authority);
    nowhere.host = "no such host".into();
    assert_eq!(nowhere.connect().await.unwrap_err().reason(), Reason::BadRequest);
}

/// The clock jumps to the next timer whenever every task waits.
#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_let_go_after_five_seconds() {
    let server = TlsServer::start(&Authority::new()).await;
    let start = tokio::time::Instant::now();
    let mut silent = TcpStream::connect(server.addr).await.unwrap();
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0);
    assert!((5..7).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

/// Collects log lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn failed_handshakes_log_their_reason_and_cannot_flood_the_log() {
    let lines = Lines::default();
    let written = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || written.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let authority = Authority::new();
    let server = TlsServer::start(&authority).await;
    let foreign = server.dialer(&authority).with_identity(Authority::new().identity(AGENT_ID));
    if let Ok(channel) = foreign.connect().await {
        call(&channel).await.unwrap_err();
    }
    for _ in 0..20 {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
        // Opened and closed, as health probes do: not worth a line.
        drop(TcpStream::connect(server.addr).await.unwrap());
    }
    call(&server.dialer(&authority).connect().await.unwrap()).await.unwrap();
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let failed: Vec<&str> = text.lines().filter(|line| line.contains("TLS handshake failed")).collect();
    assert_eq!(failed.len(), 10, "{text}");
    assert!(failed[0].contains("reason=peer_not_trusted") && failed[0].contains(AGENT_ID), "{}", failed[0]);
    assert!(failed[1..].iter().all(|line| line.contains("reason=unreachable")), "{text}");
}
