//! Both ends of a mutual TLS connection through `spiffe-rustls`: one line is sent and echoed.
//!
//! Verification and the choice of peer are left wholly to the library.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use serde_json::json;
use spiffe::X509Source;
use spiffe_rustls::{authorizer, mtls_client, mtls_server};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::args::Args;
use crate::{Failure, Outcome, emit};

/// Long enough for a first SVID while the machine is busy.
const START: Duration = Duration::from_secs(30);
/// A peer that hangs longer than this is an error.
const PEER: Duration = Duration::from_secs(10);

pub async fn source(args: &Args) -> Result<X509Source, Failure> {
    Ok(timeout(START, X509Source::builder().endpoint(&args.socket).build()).await??)
}

pub async fn serve(args: &Args) -> Result<Outcome, Failure> {
    let config =
        mtls_server(source(args).await?).authorize(authorizer::exact([args.peer.as_str()])?).build()?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", args.port)).await?;
    emit(&json!({"event": "listening", "port": listener.local_addr()?.port()}));
    loop {
        let (stream, _) = listener.accept().await?;
        match timeout(PEER, answer(&acceptor, stream)).await {
            // The library let nobody else in, so the peer is the expected one.
            Ok(Ok(())) => emit(&json!({"event": "served", "peer": args.peer})),
            Ok(Err(error)) => emit(&json!({"event": "refused", "detail": error.to_string()})),
            Err(late) => emit(&json!({"event": "refused", "detail": late.to_string()})),
        }
    }
}

async fn answer(acceptor: &TlsAcceptor, stream: TcpStream) -> io::Result<()> {
    let mut connection = BufReader::new(acceptor.accept(stream).await?);
    let line = read_line(&mut connection).await?;
    connection.write_all(line.as_bytes()).await?;
    connection.shutdown().await
}

async fn read_line(connection: &mut BufReader<impl AsyncRead + Unpin>) -> io::Result<String> {
    let mut line = String::new();
    if connection.read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line)
}

pub async fn dial(args: &Args) -> Result<Outcome, Failure> {
    let config =
        mtls_client(source(args).await?).authorize(authorizer::exact([args.peer.as_str()])?).build()?;
    let stream = timeout(PEER, TcpStream::connect(("127.0.0.1", args.port))).await??;
    match timeout(PEER, call(&TlsConnector::from(Arc::new(config)), stream)).await? {
        Ok((sent, line)) if sent == line => {
            emit(&json!({"event": "echo", "peer": args.peer}));
            Ok(Outcome::Done)
        }
        Ok((sent, line)) => Err(format!("sent {sent:?}, came back {line:?}").into()),
        Err(error) => Ok(Outcome::Refused(error.to_string())),
    }
}

async fn call(connector: &TlsConnector, stream: TcpStream) -> io::Result<(&'static str, String)> {
    // rustls wants a name; who the server is, the SPIFFE ID alone decides.
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let mut connection = BufReader::new(connector.connect(name, stream).await?);
    // In TLS 1.3 a server's refusal reaches the client only when it uses the connection.
    let sent = "hello from rust\n";
    connection.write_all(sent.as_bytes()).await?;
    connection.flush().await?;
    let line = read_line(&mut connection).await?;
    Ok((sent, line))
}
