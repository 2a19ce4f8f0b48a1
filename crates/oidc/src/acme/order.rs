//! One order: the checks of a domain, a new key, and the certificate for it.

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Identifier, NewOrder, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::sign::CertifiedKey;

use super::Certificates;
use crate::site::Domain;
use crate::tls::{CertificateError, certified_key};

/// How long the ACME server may take for its checks, and again for the certificate.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(200))
    .backoff(1.5)
    .timeout(Duration::from_secs(120));

/// Why an order brought no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    #[error("the ACME server refused, or could not be reached")]
    Acme(#[from] instant_acme::Error),
    #[error("the ACME server does not check by {0}")]
    NoChallenge(&'static str),
    #[error("the checks of the ACME server failed: {0}")]
    Checks(String),
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    #[error("what the ACME server sent cannot be served")]
    Certificate(#[from] CertificateError),
}

/// Gets a certificate for `domain`: its key and chain in PEM.
pub(super) async fn obtain(
    account: &Account,
    domain: &Domain,
    certificates: &Certificates,
) -> Result<String, OrderError> {
    let certificate = order(account, domain, certificates).await;
    certificates.end_check(domain);
    certificate
}

async fn order(
    account: &Account,
    domain: &Domain,
    certificates: &Certificates,
) -> Result<String, OrderError> {
    let names = [Identifier::Dns(domain.as_str().to_owned())];
    let mut order = account.new_order(&NewOrder::new(&names)).await?;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let mut challenge = authorization
            .challenge(ChallengeType::TlsAlpn01)
            .ok_or(OrderError::NoChallenge("tls-alpn-01"))?;
        let proof = proof(domain, challenge.key_authorization().digest().as_ref())?;
        certificates.begin_check(domain, proof);
        challenge.set_ready().await?;
    }
    let status = order.poll_ready(&PATIENCE).await?;
    if status != OrderStatus::Ready && status != OrderStatus::Valid {
        return Err(OrderError::Checks(failure(&mut order).await));
    }
    let key = KeyPair::generate()?;
    let request = CertificateParams::new([domain.as_str().to_owned()])?.serialize_request(&key)?;
    order.finalize_csr(request.der()).await?;
    let chain = order.poll_certificate(&PATIENCE).await?;
    Ok(key.serialize_pem() + &chain)
}

/// The certificate that answers a check (RFC 8737 3).
fn proof(domain: &Domain, digest: &[u8]) -> Result<CertifiedKey, OrderError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([domain.as_str().to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key)?;
    Ok(certified_key(certificate.pem().as_bytes(), key.serialize_pem().as_bytes())?.0)
}

/// What the ACME server says of the checks that failed.
async fn failure(order: &mut instant_acme::Order) -> String {
    let mut authorizations = order.authorizations();
    while let Some(Ok(authorization)) = authorizations.next().await {
        let mut problems = authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        if let Some(problem) = problems.next_back() {
            return problem.to_string();
        }
    }
    "it does not say why".into()
}
