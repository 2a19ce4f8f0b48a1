//! Calls over a local socket, and refusals in words: what failed, why, what to try.

use std::future::Future;
use std::io::ErrorKind;
use std::path::Path;

use spindle_proto::refusal::Refusal;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::{ErrorChain, Reason};
use spindle_transport::{UnixDialError, connect_unix};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::error::Failure;

/// Runs one command's calls to their end.
///
/// # Errors
/// What the command returns, or that no runtime can be made.
pub fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::because("cannot start", &error))?.block_on(work)
}

/// Connects to the server or agent (`who`) on a socket.
///
/// # Errors
/// That the socket is missing, that nobody answers, that it may not be used, or that it is no gRPC socket.
pub async fn connect(path: &Path, who: &'static str) -> Result<Channel, Failure> {
    connect_by("-socketPath", path, who).await
}

/// The same with a socket that another flag names.
///
/// # Errors
/// As [`connect`].
pub async fn connect_by(flag: &str, path: &Path, who: &'static str) -> Result<Channel, Failure> {
    connect_unix(path).await.map_err(|error| dial_failure(flag, path, who, &error))
}

fn dial_failure(flag: &str, path: &Path, who: &str, error: &UnixDialError) -> Failure {
    let socket = path.display();
    let UnixDialError::Connect { source, .. } = error else {
        return Failure::because(format!("what answers on {socket} is no {who}"), error)
            .try_this(format!("name the right socket with {flag}"));
    };
    match source.kind() {
        ErrorKind::NotFound => Failure::new(format!("there is no socket at {socket}"))
            .try_this(format!("start the {who}, or name its socket with {flag}")),
        ErrorKind::ConnectionRefused => Failure::new(format!("nobody answers on the socket {socket}"))
            .try_this(format!("start the {who}; the socket is left from one that has ended")),
        ErrorKind::PermissionDenied => Failure::new(format!("this user may not use the socket {socket}"))
            .try_this(format!("run as the {who}'s user or a member of its group, or let it give you access")),
        _ => Failure::because(format!("cannot reach the {who} on {socket}"), source)
            .try_this(format!("look at the {who}'s log")),
    }
}

/// A refused call in words. `what` says what was attempted.
pub fn refused(what: &str, status: &Status) -> Failure {
    let (code, message) = (code_name(status.code()), status.message());
    let Some(refusal) = Refusal::of(status) else {
        let cause = std::error::Error::source(status).map(|cause| format!(" ({})", ErrorChain(cause)));
        let failure = Failure::new(format!("{what}: {code}: {message}{}", cause.unwrap_or_default()));
        return match remedy_of_code(status.code()) {
            Some(remedy) => failure.try_this(remedy),
            None => failure,
        };
    };
    let failure = Failure::new(format!("{what}: {code}: {message} (reason: {})", refusal.code));
    match refusal.reason() {
        Some(reason) => failure.try_this(reason.remedy()),
        None => failure,
    }
}

/// What to try about a refused item of a batch, by its reason, or by its code when the server sends no reason.
pub fn item_remedy(status: &types::Status) -> Option<&'static str> {
    match Refusal::of_item(status) {
        Some(refusal) => refusal.reason().map(Reason::remedy),
        None => remedy_of_code(Code::from_i32(status.code)),
    }
}

/// A refused item of a batch in words. `what` says what was attempted.
pub fn item_refused(what: &str, status: &types::Status) -> Failure {
    let (code, message) = (code_name(Code::from_i32(status.code)), &status.message);
    let reason = Refusal::of_item(status).map(|refusal| format!(" (reason: {})", refusal.code));
    let failure = Failure::new(format!("{what}: {code}: {message}{}", reason.unwrap_or_default()));
    match item_remedy(status) {
        Some(remedy) => failure.try_this(remedy),
        None => failure,
    }
}

fn remedy_of_code(code: Code) -> Option<&'static str> {
    match code {
        Code::Unavailable => Some("look whether it still runs, and at its log"),
        Code::DeadlineExceeded => Some("give it more time with -timeout, or look at its log"),
        Code::InvalidArgument => Some(Reason::BadRequest.remedy()),
        Code::Unimplemented => Some("name the right socket with -socketPath, or use a newer server"),
        Code::Internal | Code::Unknown | Code::DataLoss => Some("look at the server's log"),
        _ => None,
    }
}

/// The name of a code as SPIRE's tools print it.
pub fn code_name(code: Code) -> String {
    match code {
        Code::Ok => "OK".into(),
        Code::Cancelled => "Canceled".into(),
        code => format!("{code:?}"),
    }
}

#[cfg(test)]
mod tests {
    use spindle_proto::refusal::refusal;

    use super::*;

    #[test]
    fn a_refusal_shows_message_reason_and_remedy() {
        let status = refusal(Code::NotFound, Reason::EntryNotFound, "no entry x");
        let failure = refused("cannot show entry x", &status);
        assert_eq!(failure.what(), "cannot show entry x: NotFound: no entry x (reason: entry_not_found)");
        assert_eq!(failure.remedies(), [Reason::EntryNotFound.remedy()]);
    }

    #[test]
    fn a_status_without_our_detail_still_says_what_to_try() {
        let failure = refused("cannot list", &Status::unavailable("gone"));
        assert_eq!((failure.what(), failure.remedies().len()), ("cannot list: Unavailable: gone", 1));
    }

    fn dial(path: &Path) -> Failure {
        block_on(async { connect(path, "server").await.map(drop) }).expect_err("nothing listens")
    }

    #[test]
    fn a_dial_error_tells_a_missing_socket_from_a_dead_and_a_forbidden_one() {
        let dir = tempfile::tempdir().unwrap();
        assert!(dial(&dir.path().join("none")).what().contains("there is no socket at"));
        let dead = dir.path().join("dead");
        drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
        assert!(dial(&dead).what().contains("nobody answers"));
        let error = UnixDialError::Connect { path: dead.clone(), source: ErrorKind::PermissionDenied.into() };
        assert!(dial_failure("-socketPath", &dead, "server", &error).what().contains("may not use"));
    }
}
