//! "May I": the gate's own decision and the roles' own rules, asked for a call that is not made. Start at [`answer`].

use spindle_proto::admin::v1 as wire;
use spindle_proto::convert::spiffe_id_from_proto;
use spindle_proto::refusal::refusal;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::entry::{check_parent, check_workload_id};
use spindle_spiffe_core::{EntryId, Reason, SpiffeId};
use spindle_transport::Peer;
use tonic::{Code, Status};

use super::authorization::{Admitted, Denied, GRANT_ROLE, Row, Surroundings, TABLE, Who, decide, row_of};
use super::caller::who;
use super::entry_access::{is_shown, may_change};
use super::filter::bad_request;
use super::roles::identity;
use crate::context::Context;
use crate::directory::View;
use crate::entries::reason_of;
use crate::roles::{Change, EntryFacts, Grant, RoleRefusal, Verb, grant_to_wire};

/// The methods that change entries.
const CHANGES: [(&str, Verb); 3] = [
    ("/spire.api.server.entry.v1.Entry/BatchCreateEntry", Verb::Create),
    ("/spire.api.server.entry.v1.Entry/BatchUpdateEntry", Verb::Update),
    ("/spire.api.server.entry.v1.Entry/BatchDeleteEntry", Verb::Delete),
];

/// Answers for the caller, or for somebody else when the caller may do everything.
pub(super) fn answer(
    context: &Context,
    peer: Option<&Peer>,
    request: &wire::CanRequest,
) -> Result<wire::CanResponse, Status> {
    let row = row_named(&request.method)?;
    let view = context.directory.view();
    let at = Surroundings { view: &view, roles: &context.roles, now: context.clock.now() };
    let asking = who(peer);
    let other = match request.spiffe_id.as_str() {
        "" => None,
        text => Some(identity(text)?),
    };
    let is_asked_about = match &other {
        None => asking,
        Some(id) => {
            let may_ask = row_of(GRANT_ROLE).is_some_and(|row| decide(row, asking, at).is_ok());
            if !may_ask && !matches!(asking, Who::Identity(own, _) if own == id) {
                let message = "only local callers and administrators may ask about others";
                return Err(refusal(Code::PermissionDenied, Reason::MethodNotAllowed, message));
            }
            Who::Identity(id, None)
        }
    };
    match decide(row, is_asked_about, at) {
        Err(denied) => Ok(denial(row, denied)),
        Ok(admitted) => admission(context, &view, row, admitted, request.entry.as_ref()),
    }
}

/// The row of a method, by its whole path or its last part, whatever the case.
fn row_named(method: &str) -> Result<&'static Row, Status> {
    if let Some(row) = row_of(method) {
        return Ok(row);
    }
    let last =
        |row: &Row| row.method.rsplit('/').next().is_some_and(|last| last.eq_ignore_ascii_case(method));
    let mut found = TABLE.iter().filter(|row| last(row));
    match (found.next(), found.next()) {
        (Some(row), None) => Ok(row),
        (Some(one), Some(two)) => {
            Err(bad_request(&format!("method {method:?} is ambiguous: {} or {}", one.method, two.method)))
        }
        (None, _) => {
            let message = format!("there is no method {method:?}");
            Err(refusal(Code::InvalidArgument, Reason::MethodUnknown, &message))
        }
    }
}

fn denial(row: &Row, denied: Denied) -> wire::CanResponse {
    let (reason, why) = match denied {
        Denied::Class => (Reason::MethodNotAllowed, "no right and no role of the caller opens this method"),
        Denied::Agent(reason) => (reason, "only agents in good standing may call this method"),
    };
    wire::CanResponse {
        method: row.method.into(),
        reason: reason.code().into(),
        explanation: why.into(),
        ..Default::default()
    }
}

fn admission(
    context: &Context,
    view: &View,
    row: &Row,
    admitted: Admitted,
    question: Option<&wire::EntryQuestion>,
) -> Result<wire::CanResponse, Status> {
    let allowed = |r#as: &str, why: &str| wire::CanResponse {
        allowed: true,
        method: row.method.into(),
        r#as: r#as.into(),
        explanation: why.into(),
        ..Default::default()
    };
    let grants = match admitted {
        Admitted::Local => return Ok(allowed("local", "callers over the local socket may do this")),
        Admitted::Admin => return Ok(allowed("admin", "administrators may do this")),
        Admitted::Downstream => return Ok(allowed("downstream", "servers below this one may do this")),
        Admitted::Agent { .. } => return Ok(allowed("agent", "agents in good standing may do this")),
        Admitted::Anyone => return Ok(allowed("anyone", "everybody may do this")),
        Admitted::Roles(grants) => grants,
    };
    let names: Vec<&str> = grants.iter().map(|grant| grant.role().as_str()).collect();
    let base = wire::CanResponse {
        grants: grants.iter().map(grant_to_wire).collect(),
        ..allowed(&format!("role {}", names.join(", ")), "the role opens this method")
    };
    let Some((_, verb)) = CHANGES.iter().find(|(method, _)| *method == row.method) else { return Ok(base) };
    match question {
        Some(question) => {
            let change = change(context, view, &grants, *verb, question)?;
            Ok(with_outcome(base, may_change(&grants, &context.roles, view, &change)))
        }
        // Without an entry the verb is all there is to ask.
        None => Ok(match grants.iter().any(|grant| has_verb(grant, *verb)) {
            true => wire::CanResponse {
                explanation: "the role opens this method within its limits".into(),
                ..base
            },
            false => with_outcome(base, Err(RoleRefusal::Verb(*verb))),
        }),
    }
}

fn has_verb(grant: &Grant, verb: Verb) -> bool {
    match grant {
        Grant::Reader => false,
        Grant::Registrar(rules) => rules.verbs.contains(&verb),
        Grant::Operator => true,
    }
}

fn with_outcome(base: wire::CanResponse, outcome: Result<(), RoleRefusal>) -> wire::CanResponse {
    match outcome {
        Ok(()) => wire::CanResponse { explanation: "the role covers this entry".into(), ..base },
        Err(refusal) => wire::CanResponse {
            allowed: false,
            reason: refusal.reason().code().into(),
            explanation: refusal.to_string(),
            ..base
        },
    }
}

/// The change that is asked about.
fn change(
    context: &Context,
    view: &View,
    grants: &[Grant],
    verb: Verb,
    question: &wire::EntryQuestion,
) -> Result<Change, Status> {
    let old = || -> Result<EntryFacts, Status> {
        let row = question.entry_id.parse().ok().and_then(|id: EntryId| view.entry(&id));
        let row = row.filter(|row| is_shown(grants, view, &row.entry)).ok_or_else(|| {
            let message = format!("there is no entry {:?} to {verb}", question.entry_id);
            refusal(Code::NotFound, Reason::EntryNotFound, &message)
        })?;
        Ok(EntryFacts::from(&row.entry))
    };
    match verb {
        Verb::Create => Ok(Change::Create(facts(context, question, None)?)),
        Verb::Delete => Ok(Change::Delete(old()?)),
        Verb::Update => {
            let old = old()?;
            let new = facts(context, question, Some(&old))?;
            Ok(Change::Update(old, new))
        }
    }
}

/// The entry as it is to be; IDs that are not given stay as they are.
fn facts(
    context: &Context,
    question: &wire::EntryQuestion,
    old: Option<&EntryFacts>,
) -> Result<EntryFacts, Status> {
    let id = |wire: &Option<types::Spiffeid>, was: Option<&SpiffeId>, name: &str| match (wire, was) {
        (Some(wire), _) => {
            spiffe_id_from_proto(wire).map_err(|error| bad_request(&format!("bad {name}: {error}")))
        }
        (None, Some(was)) => Ok(was.clone()),
        (None, None) => Err(bad_request(&format!("the entry needs a {name}"))),
    };
    let ttl = |secs: i32| u32::try_from(secs).map_err(|_| bad_request("a TTL is not negative"));
    let spiffe_id = id(&question.spiffe_id, old.map(|old| &old.spiffe_id), "SPIFFE ID")?;
    let parent_id = id(&question.parent_id, old.map(|old| &old.parent_id), "parent ID")?;
    let checked = check_parent(&parent_id, &context.trust_domain)
        .and_then(|()| check_workload_id(&spiffe_id, &context.trust_domain));
    checked.map_err(|error| refusal(Code::InvalidArgument, reason_of(&error), &error.to_string()))?;
    Ok(EntryFacts {
        spiffe_id,
        parent_id,
        x509_svid_ttl_secs: ttl(question.x509_svid_ttl)?,
        jwt_svid_ttl_secs: ttl(question.jwt_svid_ttl)?,
        admin: question.admin,
        downstream: question.downstream,
    })
}
