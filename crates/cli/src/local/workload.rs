//! The Workload API as an application in this process sees it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use spindle_proto::workload::X509svidResponse;
use spindle_runtime::SystemClock;
use spindle_spiffe_core::{Clock, X509Svid};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::Streaming;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::agent_cli::{Fetched, not_served, open, verify};
use crate::client::connect;
use crate::error::Failure;

/// How long a first SVID may take: signing needs milliseconds, a loaded machine more.
const FIRST_SVID: Duration = Duration::from_secs(30);

/// The pause between two attempts while the entry is on its way.
const PAUSE: Duration = Duration::from_millis(100);

/// An open stream of verified SVIDs.
pub(crate) struct Workload {
    socket: PathBuf,
    stream: Option<Streaming<X509svidResponse>>,
}

impl Workload {
    /// A workload of the agent behind `socket`; connects when the first SVID is asked for.
    pub(crate) fn of(socket: &Path) -> Self {
        Self { socket: socket.into(), stream: None }
    }

    /// The next answer; waits up to half a minute for a first one.
    ///
    /// # Errors
    /// When none came in time, the stream ended, or an answer does not verify.
    pub(crate) async fn next(&mut self) -> Result<Fetched, Failure> {
        let response = match &mut self.stream {
            Some(stream) => stream.message().await.map_err(|status| not_served(&status))?,
            None => Some(self.first().await?),
        };
        let response = response.ok_or_else(|| Failure::new("the agent ended the stream"))?;
        verify(&response, SystemClock.now())
    }

    /// The first answer, whatever it is, without waiting for a better one.
    ///
    /// # Errors
    /// When there is none, or it does not verify.
    pub(crate) async fn ask_once(&mut self) -> Result<Fetched, Failure> {
        let response = timeout(FIRST_SVID, self.attempt()).await.unwrap_or_else(|_| Err(late()))?;
        verify(&response, SystemClock.now())
    }

    async fn first(&mut self) -> Result<X509svidResponse, Failure> {
        let deadline = Instant::now() + FIRST_SVID;
        loop {
            let attempt = timeout_at(deadline, self.attempt()).await.unwrap_or_else(|_| Err(late()));
            match attempt {
                Ok(response) => return Ok(response),
                Err(failure) if Instant::now() + PAUSE >= deadline => return Err(failure),
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    async fn attempt(&mut self) -> Result<X509svidResponse, Failure> {
        let channel = connect(&self.socket, "agent").await?;
        let mut stream = open(channel).await.map_err(|status| not_served(&status))?;
        let response = stream.message().await.map_err(|status| not_served(&status))?;
        let response =
            response.ok_or_else(|| Failure::new("the agent ended the stream without an answer"))?;
        self.stream = Some(stream);
        Ok(response)
    }
}

fn late() -> Failure {
    Failure::new("no SVID came within half a minute").try_this("look at the log")
}

/// The name of the authority that signed an SVID.
pub(crate) fn issuer(svid: &X509Svid) -> String {
    match X509Certificate::from_der(svid.leaf()) {
        Ok((_, certificate)) => certificate.issuer().to_string(),
        Err(_) => String::new(),
    }
}
