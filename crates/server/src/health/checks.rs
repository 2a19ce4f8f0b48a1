//! The checks: whether the server answers, signs, rotates its authorities and can store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use spindle_keys::{Key, KeyError, KeyType, certificate_request};
use spindle_proto::spire::api::server::bundle::v1::GetBundleRequest;
use spindle_proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use spindle_spiffe_core::ErrorChain;
use spindle_transport::connect_unix;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::context::Context;

/// How long one round of checks answers all who ask.
pub(super) const FRESH_FOR: Duration = Duration::from_secs(1);

/// How long one check may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What one check found: SPIRE's name of it and of its one detail, and the fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) detail: &'static str,
    pub(super) fault: Option<String>,
}

/// The outcome of one round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report(pub(super) Vec<Finding>);

impl Report {
    /// Whether all is well. SPIRE's server is live and ready under the same conditions.
    pub(super) fn is_well(&self) -> bool {
        self.0.iter().all(|finding| finding.fault.is_none())
    }

    /// An object with each check, empty where all is well.
    pub(super) fn to_json(&self) -> String {
        let one = |finding: &Finding| {
            let fault = finding.fault.clone().map(|fault| (finding.detail.to_owned(), fault.into()));
            (finding.check.to_owned(), Value::Object(Map::from_iter(fault)))
        };
        Value::Object(self.0.iter().map(one).collect()).to_string()
    }
}

/// Makes the checks, and remembers the last round.
pub(crate) struct Checks {
    context: Arc<Context>,
    socket_path: PathBuf,
    /// For SVIDs that nobody gets.
    csr_der: Vec<u8>,
    last: Mutex<Option<(Instant, Arc<Report>)>>,
}

impl Checks {
    /// Checks of a server whose admin socket is at `socket_path`.
    pub(crate) fn new(context: Arc<Context>, socket_path: PathBuf) -> Result<Self, KeyError> {
        let csr_der = certificate_request(&Key::generate(KeyType::EcP256)?, None, &[])?;
        Ok(Self { context, socket_path, csr_der, last: Mutex::default() })
    }

    /// The state as it is, or was a moment ago. Who asks meanwhile waits for the same round.
    pub(super) async fn report(&self) -> Arc<Report> {
        let mut last = self.last.lock().await;
        if let Some((at, report)) = last.as_ref()
            && at.elapsed() < FRESH_FOR
        {
            return report.clone();
        }
        let report = Arc::new(self.round().await);
        log_changes(last.as_ref().map(|(_, report)| report.as_ref()), &report);
        *last = Some((Instant::now(), report.clone()));
        report
    }

    async fn round(&self) -> Report {
        let rotates = self.context.authorities.rotate();
        let stores = self.context.directory.takes_changes();
        let finding = |check, detail, fault| Finding { check, detail, fault };
        Report(vec![
            finding(
                "catalog.datastore",
                "list_bundle_err",
                (!stores).then(|| "the store takes no changes; see the log".to_owned()),
            ),
            finding("server", "get_bundle_err", self.fault_of_answer().await),
            finding("server.ca", "sign_x509_svid_err", self.fault_of_signing().await),
            finding(
                "server.ca.rotator",
                "rotation_err",
                (!rotates).then(|| "rotations exceed the threshold number of failures".to_owned()),
            ),
        ])
    }

    /// Calls the server over its own socket, as an operator would.
    async fn fault_of_answer(&self) -> Option<String> {
        let call = async {
            let channel = connect_unix(&self.socket_path)
                .await
                .map_err(|error| format!("cannot reach the admin socket: {}", ErrorChain(&error)))?;
            let answer = BundleClient::new(channel).get_bundle(GetBundleRequest::default()).await;
            answer.map(drop).map_err(|status| format!("unable to fetch bundle: {}", status.message()))
        };
        in_time(call).await.err()
    }

    async fn fault_of_signing(&self) -> Option<String> {
        let sign = async {
            let issued = self.context.issuer.probe(self.csr_der.clone()).await;
            issued.map_err(|error| error.to_string())
        };
        in_time(sign).await.err()
    }
}

async fn in_time(check: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let late = || Err(format!("no answer within {} s", PATIENCE.as_secs()));
    timeout(PATIENCE, check).await.unwrap_or_else(|_| late())
}

/// Tells once that a check begins to fail, and once that it is well again.
fn log_changes(before: Option<&Report>, now: &Report) {
    for finding in &now.0 {
        let earlier = before.and_then(|report| report.0.iter().find(|other| other.check == finding.check));
        let failed_before = earlier.is_some_and(|earlier| earlier.fault.is_some());
        match (&finding.fault, failed_before) {
            (Some(error), false) => warn!(check = finding.check, error, "Health check failed"),
            (None, true) => info!(check = finding.check, "Health check recovered"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use spindle_testkit::ManualClock;

    use super::*;

    #[test]
    fn each_check_stands_in_the_answer_and_one_fault_is_enough() {
        let finding =
            |check, fault: Option<&str>| Finding { check, detail: "some_err", fault: fault.map(Into::into) };
        let well = Report(vec![finding("a", None), finding("b", None)]);
        assert_eq!((well.is_well(), well.to_json().as_str()), (true, r#"{"a":{},"b":{}}"#));
        let ill = Report(vec![finding("a", None), finding("b", Some("no \"disk\""))]);
        assert!(!ill.is_well());
        assert_eq!(ill.to_json(), r#"{"a":{},"b":{"some_err":"no \"disk\""}}"#);
    }

    #[tokio::test]
    async fn a_server_without_its_socket_and_its_store_is_not_well_and_says_so() {
        let context = crate::fixtures::context(&ManualClock::default()).await;
        context.directory.close();
        let dir = tempfile::tempdir().unwrap();
        let checks = Checks::new(context, dir.path().join("none.sock")).unwrap();
        let report = checks.report().await;
        let fault = |check: &str| {
            let finding = report.0.iter().find(|finding| finding.check == check).unwrap();
            finding.fault.clone().unwrap_or_default()
        };
        assert!(fault("server").contains("cannot reach the admin socket"), "{report:?}");
        assert!(fault("catalog.datastore").contains("takes no changes"), "{report:?}");
        assert_eq!((fault("server.ca"), fault("server.ca.rotator")), (String::new(), String::new()));
        assert!(!report.is_well());
    }

    #[tokio::test]
    async fn a_server_that_is_busy_signing_is_not_ill() {
        let context = crate::fixtures::context(&ManualClock::default()).await;
        // More than even an agent finds room beside.
        let crowd = context.issuer.crowd(10 * crate::config::ServerConfig::SIGNING_QUEUE_MAX);
        let busy = context.issuer.keep_busy().await;
        let dir = tempfile::tempdir().unwrap();
        let checks = Checks::new(context, dir.path().join("none.sock")).unwrap();
        assert_eq!(checks.fault_of_signing().await, None);
        drop((crowd, busy));
    }

    #[tokio::test(start_paused = true)]
    async fn one_round_answers_all_who_ask_for_a_while() {
        let context = crate::fixtures::context(&ManualClock::default()).await;
        let dir = tempfile::tempdir().unwrap();
        let checks = Checks::new(context, dir.path().join("none.sock")).unwrap();
        let first = checks.report().await;
        assert!(Arc::ptr_eq(&first, &checks.report().await));
        tokio::time::advance(FRESH_FOR).await;
        assert!(!Arc::ptr_eq(&first, &checks.report().await));
    }
}
