//! Calls of another agent's Workload API, which gives this one the bundle of its server or proves its node.
//!
//! Nothing is cached; a caller sets the time it waits.

use std::path::Path;

use spindle_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use spindle_proto::workload::{X509BundlesRequest, X509BundlesResponse, X509svidRequest, X509svidResponse};
use spindle_spiffe_core::ErrorChain;
use spindle_transport::connect_unix;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};

type Client = SpiffeWorkloadApiClient<Channel>;

/// The first answer of FetchX509SVID; an error is for people.
pub(crate) async fn x509_svids(socket: &Path) -> Result<X509svidResponse, String> {
    let answers = client(socket)
        .await?
        .fetch_x509svid(marked(X509svidRequest {}))
        .await
        .map_err(|status| told(&status))?;
    first(answers.into_inner().message().await)
}

/// The first answer of FetchX509Bundles; an error is for people.
pub(crate) async fn x509_bundles(socket: &Path) -> Result<X509BundlesResponse, String> {
    let answers = client(socket)
        .await?
        .fetch_x509_bundles(marked(X509BundlesRequest {}))
        .await
        .map_err(|status| told(&status))?;
    first(answers.into_inner().message().await)
}

async fn client(socket: &Path) -> Result<Client, String> {
    let channel = connect_unix(socket).await.map_err(|error| ErrorChain(&error).to_string())?;
    Ok(Client::new(channel))
}

/// With the header that each call must have (Workload Endpoint 3).
fn marked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    request
}

fn first<T>(answer: Result<Option<T>, Status>) -> Result<T, String> {
    answer.map_err(|status| told(&status))?.ok_or_else(|| "it ended the stream without an answer".to_owned())
}

fn told(status: &Status) -> String {
    status.message().to_owned()
}
