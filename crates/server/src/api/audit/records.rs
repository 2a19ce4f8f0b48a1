//! What the record of each method says, read from the messages themselves: SPIRE's names, hashes in place of secrets.
//!
//! A method that is not listed has a record without fields of its own; a batch of one has a record for each item.

use prost::Message;
use spindle_proto::convert::spiffe_id_from_proto;
use spindle_proto::spire::api::server::{
    agent::v1 as agent, bundle::v1 as bundle, entry::v1 as entry, logger::v1 as logger, svid::v1 as svid,
};
use spindle_proto::spire::api::types;
use x509_parser::prelude::{FromDer, ParsedExtension, X509CertificationRequest};

use super::fields::{AgentFilter, EntryFilter, entry_fields, id, put, put_set, put_text, rfc3339, sha256};
use super::{Fields, trust};

/// One item of a batch.
pub(super) struct Item {
    pub(super) fields: Fields,
    pub(super) status: types::Status,
}

/// What all answers of batches have in common.
#[derive(Clone, PartialEq, Message)]
struct Outcomes {
    #[prost(message, repeated, tag = "1")]
    results: Vec<Outcome>,
}

#[derive(Clone, PartialEq, Message)]
struct Outcome {
    #[prost(message, optional, tag = "1")]
    status: Option<types::Status>,
}

/// Methods but batches whose answer says what they did.
const READ: [&str; 5] = [
    "agent.v1.Agent/AttestAgent",
    "bundle.v1.Bundle/GetBundle",
    "svid.v1.SVID/MintX509SVID",
    "svid.v1.SVID/NewJWTSVID",
    "svid.v1.SVID/NewDownstreamX509CA",
];

/// The method without the part that all of SPIRE's have.
fn short(method: &str) -> &str {
    method.strip_prefix("/spire.api.server.").unwrap_or(method)
}

fn is_batch(method: &str) -> bool {
    method.rsplit('/').next().is_some_and(|name| name.starts_with("Batch"))
}

/// Whether the answer is needed to tell what the call did.
pub(super) fn reads_answer(method: &str) -> bool {
    is_batch(method) || READ.contains(&short(method))
}

/// Whether what a stream brings is needed to tell what the call did. Others may stay open for days.
pub(super) fn reads_stream(method: &str) -> bool {
    short(method) == "agent.v1.Agent/AttestAgent"
}

/// Whether SPIRE writes a record only when the call fails: probes ask all the time.
pub(super) fn is_quiet(method: &str) -> bool {
    method.starts_with("/grpc.health.") || short(method) == "debug.v1.Debug/GetInfo"
}

/// The messages that stand one after the other, each behind its prefix of one byte of flags and four of length. What is
/// compressed or cut off ends the list.
pub(super) fn messages(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while let Some(([0, a, b, c, d], rest)) = bytes.split_first_chunk::<5>() {
        let Ok(length) = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])) else { break };
        let Some((message, after)) = rest.split_at_checked(length) else { break };
        messages.push(message);
        bytes = after;
    }
    messages
}

/// The first message as `M`; the empty one when there is none, which has no fields to tell.
pub(super) fn first<M: Message + Default>(bytes: &[u8]) -> M {
    messages(bytes).first().and_then(|message| M::decode(*message).ok()).unwrap_or_default()
}

/// The fields of a call that has one record.
pub(super) fn of_call(method: &str, sent: &[u8], answer: &[u8], caller_id: &str) -> Fields {
    let mut fields = Fields::new();
    match short(method) {
        "agent.v1.Agent/CountAgents" => {
            let filter = first::<agent::CountAgentsRequest>(sent).filter;
            filter.map(AgentFilter::from).into_iter().for_each(|filter| filter.put(&mut fields));
        }
        "agent.v1.Agent/ListAgents" => {
            let filter = first::<agent::ListAgentsRequest>(sent).filter;
            filter.map(AgentFilter::from).into_iter().for_each(|filter| filter.put(&mut fields));
        }
        "agent.v1.Agent/GetAgent" => {
            put_set(&mut fields, "spiffe_id", id(&first::<agent::GetAgentRequest>(sent).id));
        }
        "agent.v1.Agent/DeleteAgent" => {
            put_set(&mut fields, "spiffe_id", id(&first::<agent::DeleteAgentRequest>(sent).id));
        }
        "agent.v1.Agent/BanAgent" => {
            put_set(&mut fields, "spiffe_id", id(&first::<agent::BanAgentRequest>(sent).id));
        }
        "agent.v1.Agent/AttestAgent" => attestation(&mut fields, sent, answer),
        "agent.v1.Agent/RenewAgent" => {
            let csr = first::<agent::RenewAgentRequest>(sent).params.unwrap_or_default().csr;
            put_set(&mut fields, "csr", (!csr.is_empty()).then(|| sha256(&csr)));
        }
        "agent.v1.Agent/PostStatus" => {
            put_text(&mut fields, "spiffe_id", caller_id);
            put_text(&mut fields, "agent_version", &first::<agent::PostStatusRequest>(sent).agent_version);
        }
        "agent.v1.Agent/CreateJoinToken" => {
            let request = first::<agent::CreateJoinTokenRequest>(sent);
            put_set(&mut fields, "ttl", (request.ttl > 0).then_some(request.ttl));
            put_set(&mut fields, "spiffe_id", id(&request.agent_id));
        }
        "entry.v1.Entry/CountEntries" => {
            let filter = first::<entry::CountEntriesRequest>(sent).filter;
            filter.map(EntryFilter::from).into_iter().for_each(|filter| filter.put(&mut fields));
        }
        "entry.v1.Entry/ListEntries" => {
            let filter = first::<entry::ListEntriesRequest>(sent).filter;
            filter.map(EntryFilter::from).into_iter().for_each(|filter| filter.put(&mut fields));
        }
        "entry.v1.Entry/GetEntry" => {
            put_text(&mut fields, "entry_id", &first::<entry::GetEntryRequest>(sent).id);
        }
        "svid.v1.SVID/MintX509SVID" => minted(&mut fields, sent, answer),
        "bundle.v1.Bundle/GetBundle" => {
            put_text(&mut fields, "trust_domain_id", &first::<types::Bundle>(answer).trust_domain);
        }
        "bundle.v1.Bundle/GetFederatedBundle" => {
            let request = first::<bundle::GetFederatedBundleRequest>(sent);
            put_text(&mut fields, "trust_domain_id", &request.trust_domain);
        }
        "logger.v1.Logger/SetLogLevel" => {
            let level = first::<logger::SetLogLevelRequest>(sent).new_level();
            put(&mut fields, "new_log_level", level.as_str_name());
        }
        other => trust::of_call(&mut fields, other, sent, answer, caller_id),
    }
    fields
}

/// The items of a batch, in order; none when the method is no batch or its answer cannot be read.
pub(super) fn of_items(method: &str, sent: &[u8], answer: &[u8]) -> Option<Vec<Item>> {
    if !is_batch(method) {
        return None;
    }
    let outcomes = messages(answer).first().and_then(|message| Outcomes::decode(*message).ok())?;
    let mut fields = fields_of_items(short(method), sent, answer).into_iter();
    let item = |outcome: Outcome| Item {
        fields: fields.next().unwrap_or_default(),
        status: outcome.status.unwrap_or_default(),
    };
    Some(outcomes.results.into_iter().map(item).collect())
}

/// What each item of a batch was to do; nothing when the method is no batch.
pub(super) fn of_items_sent(method: &str, sent: &[u8]) -> Vec<Fields> {
    if is_batch(method) { fields_of_items(short(method), sent, &[]) } else { Vec::new() }
}

fn fields_of_items(method: &str, sent: &[u8], answer: &[u8]) -> Vec<Fields> {
    match method {
        "entry.v1.Entry/BatchCreateEntry" => {
            let request = first::<entry::BatchCreateEntryRequest>(sent);
            request.entries.iter().map(|entry| entry_fields(entry, None)).collect()
        }
        "entry.v1.Entry/BatchUpdateEntry" => {
            let request = first::<entry::BatchUpdateEntryRequest>(sent);
            let mask = request.input_mask.as_ref();
            request.entries.iter().map(|entry| entry_fields(entry, mask)).collect()
        }
        "entry.v1.Entry/BatchDeleteEntry" => {
            let request = first::<entry::BatchDeleteEntryRequest>(sent);
            let one = |id: &String| Fields::from_iter([("entry_id".to_owned(), id.clone().into())]);
            request.ids.iter().map(one).collect()
        }
        "svid.v1.SVID/BatchNewX509SVID" => new_svids(sent, answer),
        "svid.v1.SVID/BatchNewWITSVID" => new_wit_svids(sent, answer),
        other => trust::of_items(other, sent),
    }
}

fn new_svids(sent: &[u8], answer: &[u8]) -> Vec<Fields> {
    let request = first::<svid::BatchNewX509svidRequest>(sent);
    let mut results = first::<svid::BatchNewX509svidResponse>(answer).results.into_iter();
    let one = |param: &svid::NewX509svidParams| {
        let svid = results.next().and_then(|result| result.svid);
        let mut fields = Fields::new();
        put(&mut fields, "csr", sha256(&param.csr));
        put(&mut fields, "entry_id", param.entry_id.as_str());
        put(&mut fields, "spiffe_id", svid.as_ref().and_then(|svid| id(&svid.id)).unwrap_or_default());
        put_set(&mut fields, "expires_at", svid.map(|svid| svid.expires_at));
        fields
    };
    request.params.iter().map(one).collect()
}

fn new_wit_svids(sent: &[u8], answer: &[u8]) -> Vec<Fields> {
    let request = first::<svid::BatchNewWitsvidRequest>(sent);
    let mut results = first::<svid::BatchNewWitsvidResponse>(answer).results.into_iter();
    let one = |param: &svid::NewWitsvidParams| {
        let svid = results.next().and_then(|result| result.svid);
        let mut fields = Fields::new();
        put(&mut fields, "public_key_sha256", sha256(&param.public_key));
        put(&mut fields, "entry_id", param.entry_id.as_str());
        put(&mut fields, "spiffe_id", svid.as_ref().and_then(|svid| id(&svid.id)).unwrap_or_default());
        put_set(&mut fields, "expires_at", svid.map(|svid| svid.expires_at));
        fields
    };
    request.params.iter().map(one).collect()
}

/// The attestor from what the node sent first, the agent from the answer that lets it in.
fn attestation(fields: &mut Fields, sent: &[u8], answer: &[u8]) {
    if let Some(agent::attest_agent_request::Step::Params(params)) =
        first::<agent::AttestAgentRequest>(sent).step
    {
        put_text(fields, "node_attestor_type", &params.data.unwrap_or_default().r#type);
    }
    for message in messages(answer) {
        if let Ok(agent::AttestAgentResponse {
            step: Some(agent::attest_agent_response::Step::Result(result)),
        }) = agent::AttestAgentResponse::decode(message)
        {
            put_set(fields, "agent_id", id(&result.svid.unwrap_or_default().id));
        }
    }
}

fn minted(fields: &mut Fields, sent: &[u8], answer: &[u8]) {
    let request = first::<svid::MintX509svidRequest>(sent);
    put(fields, "csr", sha256(&request.csr));
    put(fields, "ttl", request.ttl);
    let Some(svid) = first::<svid::MintX509svidResponse>(answer).svid else { return };
    put_set(fields, "spiffe_id", id(&svid.id));
    put_set(fields, "expires_at", rfc3339(svid.expires_at));
    let Ok((_, csr)) = X509CertificationRequest::from_der(&request.csr) else { return };
    put(fields, "subject", csr.certification_request_info.subject.to_string());
    let names: Vec<_> = csr
        .requested_extensions()
        .into_iter()
        .flatten()
        .filter_map(|extension| match extension {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        })
        .flatten()
        .filter_map(|name| match name {
            x509_parser::extensions::GeneralName::DNSName(name) => Some(*name),
            _ => None,
        })
        .collect();
    put(fields, "dns_name", names.join(","));
}

/// A SPIFFE ID of a message as text, if it is one.
pub(super) fn id_text(wire: &types::Spiffeid) -> Option<String> {
    spiffe_id_from_proto(wire).ok().map(|id| id.to_string())
}
