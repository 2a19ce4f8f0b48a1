//! ValidateJWTSVID: checks a token on behalf of the caller (Workload API 6.2.3).
//!
//! The keys are those of the own trust domain and of the foreign ones that the caller's entries federate with; the caller
//! needs no identity. What a foreign token says beyond `sub`, `exp` and `aud` is told only as far as the operator allows.
//! With the metadata `spindle-replay: refuse` a token is accepted once for its audience, whoever shows it to this agent.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value as ProtoValue};
use serde_json::{Map, Value};
use spindle_proto::refusal::refusal;
use spindle_proto::workload::{ValidateJwtsvidRequest, ValidateJwtsvidResponse};
use spindle_spiffe_core::jwt_svid::{JwtValidation, ValidatedJwtSvid, validate_jwt_svid};
use spindle_spiffe_core::replay::ReplayError;
use spindle_spiffe_core::{Bundle, Reason, TrustDomain};
use spindle_transport::LocalPeer;
use tonic::{Code, Status};
use tracing::debug;

use super::Shared;
use crate::gate::Admitted;

/// How deep claims may be nested: three messages a level are 90, and common decoders stop at 100.
const DEPTH_MAX: usize = 30;

/// The metadata by which a caller asks that a token is accepted once; its one value is `refuse`. Without it a token may be
/// shown as often as one likes (JWT-SVID 7.1).
const REPLAY_HEADER: &str = "spindle-replay";

/// Tokens remembered as shown, about 150 bytes each.
pub(super) const REPLAYS_MAX: usize = 65_536;

/// Whether a token may be shown again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replay {
    Allow,
    Refuse,
}

impl Replay {
    /// What the caller asks for.
    ///
    /// # Errors
    /// In words, when it asks for something else: it must not believe to be protected.
    pub(super) fn asked(headers: &HeaderMap) -> Result<Self, &'static str> {
        let mut values = headers.get_all(REPLAY_HEADER).iter().map(HeaderValue::as_bytes);
        match (values.next(), values.next()) {
            (None, _) => Ok(Self::Allow),
            (Some(b"refuse"), None) => Ok(Self::Refuse),
            _ => Err("the metadata spindle-replay has the one value refuse"),
        }
    }
}

/// The claims of a foreign token that everybody is told.
const ALWAYS_TOLD: [&str; 3] = ["sub", "exp", "aud"];

/// Answers ValidateJWTSVID.
pub(super) async fn validate(
    api: &Shared,
    peer: LocalPeer,
    replay: Result<Replay, &'static str>,
    request: ValidateJwtsvidRequest,
) -> Result<ValidateJwtsvidResponse, Status> {
    let fit = match (request.audience.as_str(), request.svid.as_str()) {
        ("", _) => Err("audience must be specified"),
        (_, "") => Err("svid must be specified"),
        _ => replay,
    };
    let replay =
        fit.map_err(|text| api.gate.refuse(&peer, Code::InvalidArgument, Reason::BadRequest, text))?;
    let mut caller = api.gate.clone().admit(peer).await?;
    let bundles = bundles(&mut caller);
    let validated = JwtValidation::new([request.audience.as_str()], api.clock.now())
        .and_then(|how| validate_jwt_svid(&request.svid, &bundles, &how));
    // The caller is told why its token is not valid, and the operator that somebody shows such tokens.
    let refuse = |reason: Reason, why: &str| {
        caller.tell_of(reason, "Failed to validate JWT", || why.to_owned());
        refusal(Code::InvalidArgument, reason, why)
    };
    let validated = validated.map_err(|error| refuse(error.reason(), &error.to_string()))?;
    if replay == Replay::Refuse {
        let sighting = validated.sighting(&request.audience);
        api.replays().admit(sighting, api.clock.now()).map_err(|error| match error {
            ReplayError::Full(_) => refusal(Code::Unavailable, error.reason(), &error.to_string()),
            ReplayError::Seen | ReplayError::Forgotten => refuse(error.reason(), &error.to_string()),
        })?;
    }
    debug!(spiffe_id = %validated.spiffe_id(), audience = request.audience, "JWT-SVID is valid");
    let spiffe_id = validated.spiffe_id().to_string();
    let claims = told(validated, &api.trust_domain, &api.allowed_foreign_jwt_claims)
        .ok_or_else(|| refuse(Reason::TokenMalformed, "the token's claims are nested too deeply"))?;
    Ok(ValidateJwtsvidResponse { spiffe_id, claims: Some(claims) })
}

fn bundles(caller: &mut Admitted) -> Vec<Arc<Bundle>> {
    let view = caller.view();
    let content = &view.content;
    std::iter::once(&content.own).chain(&content.federated).map(|one| one.whole.clone()).collect()
}

/// The claims as a message; none when they are nested too deeply. `aud` is a list also for one value, as with SPIRE.
fn told(validated: ValidatedJwtSvid, own: &TrustDomain, allowed: &[String]) -> Option<Struct> {
    let is_own = validated.spiffe_id().is_member_of(own);
    let mut claims: Map<String, Value> = validated.into_claims();
    if !is_own {
        claims.retain(|name, _| ALWAYS_TOLD.contains(&name.as_str()) || allowed.contains(name));
    }
    if let Some(audience @ Value::String(_)) = claims.get_mut("aud") {
        *audience = Value::Array(vec![audience.take()]);
    }
    structure(claims, DEPTH_MAX)
}

fn structure(members: Map<String, Value>, levels: usize) -> Option<Struct> {
    let fields: Option<BTreeMap<String, ProtoValue>> =
        members.into_iter().map(|(name, one)| Some((name, value(one, levels)?))).collect();
    Some(Struct { fields: fields? })
}

fn value(json: Value, levels: usize) -> Option<ProtoValue> {
    let below = levels.checked_sub(1)?;
    let kind = match json {
        Value::Null => Kind::NullValue(0),
        Value::Bool(one) => Kind::BoolValue(one),
        Value::Number(one) => Kind::NumberValue(one.as_f64()?),
        Value::String(one) => Kind::StringValue(one),
        Value::Array(all) => {
            let values: Option<Vec<ProtoValue>> = all.into_iter().map(|one| value(one, below)).collect();
            Kind::ListValue(ListValue { values: values? })
        }
        Value::Object(members) => Kind::StructValue(structure(members, below)?),
    };
    Some(ProtoValue { kind: Some(kind) })
}
