//! What the server's health probes look at: whether the server answers, signs, rotates its authorities and can store.
//! SPIRE's server is live and ready under the same conditions.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use spindle_keys::{Key, KeyError, KeyType, certificate_request};
use spindle_proto::spire::api::server::bundle::v1::GetBundleRequest;
use spindle_proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use spindle_runtime::HealthChecks;
use spindle_runtime::health::{Finding, HealthReport, fault_in_time};
use spindle_spiffe_core::ErrorChain;
use spindle_transport::connect_unix;

use crate::context::Context;

/// Checks of a server whose admin socket is at `socket_path`.
pub(crate) fn checks(context: Arc<Context>, socket_path: PathBuf) -> Result<HealthChecks, KeyError> {
    // For SVIDs that nobody gets.
    let csr_der = certificate_request(&Key::generate(KeyType::EcP256)?, None, &[])?;
    let (socket_path, csr_der) = (Arc::new(socket_path), Arc::new(csr_der));
    Ok(HealthChecks::new(move || {
        let (context, socket_path, csr_der) = (context.clone(), socket_path.clone(), csr_der.clone());
        Box::pin(async move { round(&context, &socket_path, &csr_der).await })
    }))
}

async fn round(context: &Context, socket_path: &Path, csr_der: &[u8]) -> HealthReport {
    let rotates = context.authorities.rotate();
    let stores = context.directory.takes_changes();
    HealthReport(vec![
        Finding::new(
            "catalog.datastore",
            "list_bundle_err",
            (!stores).then(|| "the store takes no changes; see the log".to_owned()),
        ),
        Finding::new("server", "get_bundle_err", fault_of_answer(socket_path).await),
        Finding::new("server.ca", "sign_x509_svid_err", fault_of_signing(context, csr_der).await),
        Finding::new(
            "server.ca.rotator",
            "rotation_err",
            (!rotates).then(|| "rotations exceed the threshold number of failures".to_owned()),
        ),
    ])
}

/// Calls the server over its own socket, as an operator would.
async fn fault_of_answer(socket_path: &Path) -> Option<String> {
    fault_in_time(async {
        let channel = connect_unix(socket_path)
            .await
            .map_err(|error| format!("cannot reach the admin socket: {}", ErrorChain(&error)))?;
        let answer = BundleClient::new(channel).get_bundle(GetBundleRequest::default()).await;
        answer.map(drop).map_err(|status| format!("unable to fetch bundle: {}", status.message()))
    })
    .await
}

async fn fault_of_signing(context: &Context, csr_der: &[u8]) -> Option<String> {
    fault_in_time(async {
        let issued = context.issuer.probe(csr_der.to_vec()).await;
        issued.map_err(|error| error.to_string())
    })
    .await
}

#[cfg(test)]
mod tests {
    use spindle_runtime::health::Probe;
    use spindle_testkit::ManualClock;

    use super::*;

    #[tokio::test]
    async fn a_server_without_its_socket_and_its_store_is_not_well_and_says_so() {
        let context = crate::fixtures::context(&ManualClock::default()).await;
        context.directory.close();
        let dir = tempfile::tempdir().unwrap();
        let report = checks(context, dir.path().join("none.sock")).unwrap().report().await;
        let fault = |check: &str| {
            let finding = report.0.iter().find(|finding| finding.check == check).unwrap();
            finding.fault.clone().unwrap_or_default()
        };
        assert!(fault("server").contains("cannot reach the admin socket"), "{report:?}");
        assert!(fault("catalog.datastore").contains("takes no changes"), "{report:?}");
        assert_eq!((fault("server.ca"), fault("server.ca.rotator")), (String::new(), String::new()));
        assert!(!report.is_well(Probe::Live) && !report.is_well(Probe::Ready));
    }

    #[tokio::test]
    async fn a_server_that_is_busy_signing_is_not_ill() {
        let context = crate::fixtures::context(&ManualClock::default()).await;
        // More than even an agent finds room beside.
        let crowd = context.issuer.crowd(10 * crate::config::ServerConfig::SIGNING_QUEUE_MAX);
        let busy = context.issuer.keep_busy().await;
        let csr_der = certificate_request(&Key::generate(KeyType::EcP256).unwrap(), None, &[]).unwrap();
        assert_eq!(fault_of_signing(&context, &csr_der).await, None);
        drop((crowd, busy));
    }
}
