//! How the fake signs JWT-SVIDs.

use std::collections::VecDeque;
use std::sync::Mutex;

use spindle_proto::convert::spiffe_id_to_proto;
use spindle_proto::spire::api::server::svid::v1 as svid;
use spindle_proto::spire::api::types;
use spindle_runtime::SystemClock;
use spindle_spiffe_core::{Clock, JwtAuthority, Validity};
use spindle_testkit::TestJwtAuthority;
use tonic::Status;

use super::Fake;

/// The key that signs, and what the next calls fail with.
#[derive(Default)]
pub(crate) struct Tokens {
    /// The last one signs; those before it are tainted.
    pub(crate) authorities: Mutex<Vec<TestJwtAuthority>>,
    pub(crate) failures: Mutex<VecDeque<Status>>,
    /// Audiences asked for.
    pub(crate) asked: Mutex<Vec<Vec<String>>>,
}

impl Tokens {
    /// From now on a key of this id signs.
    pub(crate) fn sign_with(&self, kid: &str) {
        let authority = TestJwtAuthority::new("prod.example", kid, SystemClock.now());
        self.authorities.lock().unwrap().push(authority);
    }

    /// What belongs into the bundle.
    pub(super) fn authorities(&self) -> Vec<JwtAuthority> {
        let all = self.authorities.lock().unwrap();
        let last = all.len().saturating_sub(1);
        all.iter().enumerate().map(|(place, one)| one.authority().with_taint(place < last)).collect()
    }
}

impl Fake {
    /// Answers NewJWTSVID for any entry there is.
    pub(super) fn new_token(
        &self,
        request: &svid::NewJwtsvidRequest,
    ) -> Result<svid::NewJwtsvidResponse, Status> {
        self.jwt.asked.lock().unwrap().push(request.audience.clone());
        if let Some(failure) = self.jwt.failures.lock().unwrap().pop_front() {
            return Err(failure);
        }
        let content = self.content.borrow();
        let entry = content.entries.get(&request.entry_id).ok_or_else(|| Status::not_found("no entry"))?;
        let now = SystemClock.now();
        let validity = Validity { not_before: now, not_after: now + 300 };
        let authorities = self.jwt.authorities.lock().unwrap();
        let authority = authorities.last().ok_or_else(|| Status::unavailable("no key"))?;
        let signed = authority.sign(&entry.spiffe_id, &request.audience, validity, None);
        Ok(svid::NewJwtsvidResponse {
            svid: Some(types::Jwtsvid {
                token: signed.token,
                id: Some(spiffe_id_to_proto(&entry.spiffe_id)),
                expires_at: signed.expires_at.unix_secs(),
                issued_at: signed.issued_at.unix_secs(),
                hint: String::new(),
            }),
        })
    }
}
