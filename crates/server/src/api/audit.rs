//! The audit log: who called what, and with what outcome, as SPIRE writes it (`audit_log_enabled`).
//!
//! It is written at the gate, which sees every message on its way in and every answer on its way out; no service knows of it,
//! and a method added later cannot forget it. When it is off a call costs nothing more. What each method's record says is in
//! `audit/records.rs`. Start at [`Audit::admitted`].

mod fields;
mod records;
#[cfg(test)]
mod tests;
mod trust;

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde_json::{Map, Value};
use spindle_attest::{Caller as Process, PidfdSource, ProcRoot, SocketPeer};
use spindle_spiffe_core::Entropy;
use spindle_transport::Peer;
use tonic::body::Body;
use tonic::{Code, Status};
use tracing::info;

use super::caller::Caller;
use crate::live::LiveSettings;

/// Fields of a record, by SPIRE's names.
pub(super) type Fields = Map<String, Value>;

/// How much of a stream is kept to tell what it was about: the first message of an attestation, and its answers.
const STREAM_BYTES_MAX: usize = 128 * 1024;

/// Items of a batch of unknown outcome that have a record of their own; the rest are counted. A caller can break off as many
/// calls as it likes.
const UNDECIDED_MAX: usize = 1000;

/// Writes the audit log.
pub(crate) struct Audit {
    pub(crate) live: LiveSettings,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) proc_root: ProcRoot,
}

/// The first bytes of a stream of messages, as they pass.
#[derive(Clone, Default)]
struct Tap(Arc<Mutex<BytesMut>>);

impl Tap {
    /// Listens to what a request brings from now on.
    fn on(request: &mut http::Request<Body>) -> Self {
        let tap = Self::default();
        let ear = tap.clone();
        let body = std::mem::replace(request.body_mut(), Body::empty());
        *request.body_mut() = Body::new(body.map_frame(move |frame| {
            frame.data_ref().into_iter().for_each(|data| ear.see(data));
            frame
        }));
        tap
    }

    fn see(&self, data: &Bytes) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = STREAM_BYTES_MAX.saturating_sub(seen.len());
        seen.extend_from_slice(&data[..data.len().min(room)]);
    }

    fn bytes(&self) -> Bytes {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone().freeze()
    }
}

/// What a caller sent: one whole message, or what a stream has brought so far if its record tells of it.
enum Sent {
    Message(Bytes),
    Stream(Option<Tap>),
}

/// A call that was let in and has not ended yet. One that is dropped was given up by its caller.
pub(crate) struct Call {
    method: &'static str,
    /// Who called, and how it was let in.
    who: Fields,
    caller_id: String,
    sent: Sent,
    /// What is kept of the answer so far.
    answer: Vec<Bytes>,
    ended: bool,
}

/// Whether a call that ends like this may have done what it was to do, or a part of it.
fn is_undecided(code: Code) -> bool {
    use Code::{Cancelled, DataLoss, DeadlineExceeded, Internal, Unavailable, Unknown};
    matches!(code, Cancelled | DataLoss | DeadlineExceeded | Internal | Unavailable | Unknown)
}

impl Audit {
    /// Takes note of a call that was let in. `message` is what was read of an ordinary one; a stream is listened to.
    pub(crate) fn admitted(
        &self,
        method: &'static str,
        peer: Option<&Peer>,
        caller: &Caller,
        message: Option<Bytes>,
        request: &mut http::Request<Body>,
    ) -> Call {
        let mut who = Fields::new();
        who.insert("request_id".into(), self.entropy.uuid().into());
        let caller_id = self.name_peer(peer, &mut who);
        let (authorized_as, via) = match caller {
            Caller::Local => ("local", "transport"),
            Caller::Admin if self.is_configured_admin(peer) => ("admin", "config"),
            Caller::Admin => ("admin", "entries"),
            Caller::Roles(_) => ("role", "grants"),
            Caller::Downstream(_) => ("downstream", "entries"),
            Caller::Agent(_) => ("agent", "datastore"),
            // SPIRE's word for a caller of whom nothing is asked.
            Caller::Stranger => ("nobody", ""),
        };
        who.insert("authorized_as".into(), authorized_as.into());
        who.insert("authorized_via".into(), via.into());
        let sent = match message {
            Some(message) => Sent::Message(message),
            None => Sent::Stream(records::reads_stream(method).then(|| Tap::on(request))),
        };
        Call { method, who, caller_id, sent, answer: Vec::new(), ended: false }
    }

    /// SPIRE's fields of the far end; returns its SPIFFE ID, empty when it has none.
    fn name_peer(&self, peer: Option<&Peer>, who: &mut Fields) -> String {
        match peer {
            Some(Peer::Local(local)) => {
                who.insert("caller_uid".into(), local.uid.into());
                who.insert("caller_gid".into(), local.gid.into());
                let pidfd = local.pidfd.clone().map(|pidfd| PidfdSource::new(move || pidfd.open()));
                let peer = SocketPeer { pid: local.pid, uid: local.uid, gid: local.gid, pidfd };
                // A path is said only of the very process that called; it may run where we cannot see it.
                if let Some(path) =
                    Process::open(&self.proc_root, &peer).ok().and_then(|process| process.path_for_log())
                {
                    who.insert("caller_path".into(), path.into());
                }
                String::new()
            }
            Some(Peer::Tls { addr, identity }) => {
                who.insert("caller_addr".into(), addr.to_string().into());
                let id = identity.as_ref().map(|peer| peer.spiffe_id().to_string()).unwrap_or_default();
                if !id.is_empty() {
                    who.insert("caller_id".into(), id.clone().into());
                }
                id
            }
            // The server speaks no TLS on Unix sockets.
            Some(Peer::LocalTls { .. }) | None => String::new(),
        }
    }

    fn is_configured_admin(&self, peer: Option<&Peer>) -> bool {
        let Some(Peer::Tls { identity: Some(identity), .. }) = peer else { return false };
        self.live.load().admin_ids.contains(identity.spiffe_id())
    }
}

impl Call {
    /// Listens to the answer, and writes the record when it has ended.
    pub(crate) fn watch(mut self, answer: http::Response<Body>) -> http::Response<Body> {
        // A refusal stands in the headers, and nothing follows.
        if let Some(status) =
            Status::from_header_map(answer.headers()).filter(|status| status.code() != Code::Ok)
        {
            self.end(&status);
            return answer;
        }
        let keep = records::reads_answer(self.method);
        let mut bytes = 0;
        let bound = match self.sent {
            // It is in memory as it is, and bounded there; only handles on it are kept.
            Sent::Message(_) => usize::MAX,
            Sent::Stream(_) => STREAM_BYTES_MAX,
        };
        answer.map(|body| {
            Body::new(body.map_frame(move |frame| {
                if let Some(data) = frame.data_ref()
                    && keep
                    && bytes + data.len() <= bound
                {
                    bytes += data.len();
                    self.answer.push(data.clone());
                }
                if let Some(trailers) = frame.trailers_ref() {
                    let status = Status::from_header_map(trailers).unwrap_or_else(|| Status::ok(""));
                    self.end(&status);
                }
                frame
            }))
        })
    }

    /// Writes what there is to say, once.
    fn end(&mut self, status: &Status) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let sent = match &self.sent {
            Sent::Message(message) => message.clone(),
            Sent::Stream(tap) => tap.as_ref().map(Tap::bytes).unwrap_or_default(),
        };
        let answer: Bytes = match self.answer.as_slice() {
            [] => Bytes::new(),
            [one] => one.clone(),
            many => many.concat().into(),
        };
        // What became of the items stands in the answer, also when the caller went as it was on its way.
        if let Some(items) = records::of_items(self.method, &sent, &answer) {
            for item in items {
                self.write(Code::from_i32(item.status.code), &item.status.message, item.fields);
            }
            return;
        }
        if is_undecided(status.code()) && self.end_undecided(status, &sent) {
            return;
        }
        if status.code() == Code::Ok && records::is_quiet(self.method) {
            return;
        }
        let answer = if status.code() == Code::Ok { &answer[..] } else { &[] };
        let fields = records::of_call(self.method, &sent, answer, &self.caller_id);
        self.write(status.code(), status.message(), fields);
    }

    /// Writes a record for each item of a batch of which nobody was told what became of it; false when there is none.
    fn end_undecided(&self, status: &Status, sent: &[u8]) -> bool {
        let mut items = records::of_items_sent(self.method, sent).into_iter();
        let some = items.len() > 0;
        let message = format!("{}; whether it was carried out is unknown", status.message());
        for fields in items.by_ref().take(UNDECIDED_MAX) {
            self.write(status.code(), &message, fields);
        }
        if items.len() > 0 {
            self.write(status.code(), &message, Fields::from_iter([("items".into(), items.len().into())]));
        }
        some
    }

    fn write(&self, code: Code, message: &str, fields: Fields) {
        let mut record = self.who.clone();
        record.extend(fields);
        record.insert("type".into(), "audit".into());
        record.insert("status".into(), if code == Code::Ok { "success" } else { "error" }.into());
        if code != Code::Ok {
            record.insert("status_code".into(), (code as i32).into());
            record.insert("status_message".into(), message.into());
        }
        // The name is the constant of the log's format for fields that are known only now.
        let more_fields = Value::Object(record).to_string();
        info!(more_fields, "API accessed");
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(&Status::cancelled("the caller did not wait for the end of the answer"));
    }
}
