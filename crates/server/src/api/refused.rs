//! Every refusal says why: a reason in its status, and one line in the log.

use std::sync::{Mutex, PoisonError};

use spindle_proto::refusal::{Refusal, reason_of, refusal};
use spindle_spiffe_core::Reason;
use spindle_transport::{LogGate, Peer};
use tonic::{Code, Status};
use tracing::warn;

/// The status with a reason. One that has none comes from the gRPC library, which refuses messages it cannot take.
pub(crate) fn reasoned(status: Status) -> Status {
    if Refusal::of(&status).is_some() {
        return status;
    }
    let (code, reason) = match status.code() {
        // The library's code for a message over its bound; SPIRE's servers answer RESOURCE_EXHAUSTED.
        Code::OutOfRange | Code::ResourceExhausted => (Code::ResourceExhausted, Reason::MessageTooLarge),
        Code::Unimplemented => (Code::Unimplemented, Reason::MethodUnknown),
        code => (code, Reason::BadRequest),
    };
    refusal(code, reason, status.message())
}

/// Writes refusals to the log, a bounded number of lines in a stretch of time. Each kind of caller has lines of its own, so
/// that strangers who knock in a loop hide nothing of what happens to the others.
#[derive(Debug)]
pub(crate) struct RefusalLog {
    local: Mutex<LogGate>,
    identified: Mutex<LogGate>,
    strangers: Mutex<LogGate>,
}

impl RefusalLog {
    pub(crate) fn new() -> Self {
        let lines = || Mutex::new(LogGate::new());
        Self { local: lines(), identified: lines(), strangers: lines() }
    }

    /// Writes one refusal, unless there were too many of its kind a moment ago; those are counted.
    pub(crate) fn write(&self, method: &str, peer: Option<&Peer>, status: &Status) {
        // The caller has gone; nobody was refused anything.
        if status.code() == Code::Cancelled {
            return;
        }
        let lines = match peer {
            Some(Peer::Local(_)) => &self.local,
            Some(Peer::Tls { identity: Some(_), .. } | Peer::LocalTls { identity: Some(_), .. }) => {
                &self.identified
            }
            Some(Peer::Tls { identity: None, .. } | Peer::LocalTls { identity: None, .. }) | None => {
                &self.strangers
            }
        };
        let Some(not_shown) = lines.lock().unwrap_or_else(PoisonError::into_inner).pass() else { return };
        let (reason, status_code) = (reason_of(status).unwrap_or_default(), status.code() as i32);
        let error = status.message();
        match peer {
            Some(Peer::Local(local)) => {
                let (caller_uid, pid) = (local.uid, local.pid);
                warn!(method, caller_uid, pid, reason, status_code, error, not_shown, "call refused");
            }
            Some(Peer::Tls { addr, identity }) => {
                let caller_id =
                    identity.as_ref().map(|peer| peer.spiffe_id().to_string()).unwrap_or_default();
                warn!(method, caller_addr = %addr, caller_id, reason, status_code, error, not_shown, "call refused");
            }
            // The server speaks no TLS on Unix sockets.
            Some(Peer::LocalTls { .. }) | None => {
                warn!(method, reason, status_code, error, not_shown, "call refused: the peer is unknown");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(from: Status, code: Code, reason: &str) {
        let message = from.message().to_owned();
        let status = reasoned(from);
        assert_eq!((status.code(), reason_of(&status).as_deref()), (code, Some(reason)), "{status:?}");
        assert_eq!(status.message(), message);
    }

    #[test]
    fn a_refusal_of_the_library_is_given_a_reason() {
        check(Status::out_of_range("too large"), Code::ResourceExhausted, "message_too_large");
        check(Status::internal("failed to decode"), Code::Internal, "bad_request");
        check(Status::unimplemented("no such method"), Code::Unimplemented, "method_unknown");
    }

    #[test]
    fn a_refusal_of_ours_stays_as_it_is() {
        let ours = || refusal(Code::ResourceExhausted, Reason::Overloaded, "come back later");
        check(ours(), Code::ResourceExhausted, "overloaded");
        assert_eq!(reasoned(ours()).details(), ours().details());
    }
}
