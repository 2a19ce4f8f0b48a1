//! Admitting agents: join tokens, attestation, renewal, bans.
//!
//! Using a token and writing the agent's row are one transaction with the token's existence as its precondition: of two
//! racing uses exactly one wins, and a crash leaves either both or neither. How nodes prove themselves by other means than
//! tokens is in [`node`].

pub(crate) mod node;
mod x509pop;

use spindle_attest::x509pop::NodeFault;
use spindle_proto::records::v1 as records;
use spindle_spiffe_core::entry::{EntryError, check_workload_id};
use spindle_spiffe_core::{
    DnsName, ErrorChain, Hint, Reason, RegistrationEntry, Selector, Selectors, SpiffeId, Timestamp,
};
use spindle_store::Transaction;
use tracing::info;

use crate::context::Context;
use crate::directory::{
    AgentRow, CommitError, Directory, JoinToken, View, agent_key, encode_entry, entry_key, join_token_key,
    similarity_key,
};
use crate::entries::{self, Permit};
use crate::issuer::{IssueError, Issued};
use crate::roles::RoleRefusal;
use node::NodeAttributes;
use prost::Message as _;

/// The longest join token, in bytes: it becomes a path segment of a SPIFFE ID.
pub(crate) const JOIN_TOKEN_BYTES_MAX: usize = 255;

/// Where the agents of join tokens are, each under the token itself.
const TOKEN_AGENTS: &str = "/spire/agent/join_token/";

/// Why an agent is not admitted, or its row not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttestFault {
    #[error("join token does not exist or has already been used")]
    TokenUnknown,
    #[error("join token expired")]
    TokenExpired,
    #[error("join token is not usable in a SPIFFE ID: {0}")]
    TokenMalformed(String),
    #[error("join token already exists")]
    TokenTaken,
    #[error("agent is banned")]
    Banned,
    #[error("agent not found")]
    NotFound,
    #[error("agent must reattest instead of renewing")]
    MustReattest,
    #[error("agent presents an SVID that is no longer its current one")]
    NotActive,
    #[error("nodeattestor(x509pop): {0}")]
    X509Pop(#[from] NodeFault),
    #[error("the server is stopping")]
    Stopping,
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Entry(#[from] EntryError),
    #[error(transparent)]
    Role(#[from] RoleRefusal),
    #[error("the change could not be stored: {0}")]
    Store(String),
}

impl AttestFault {
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::TokenUnknown => Reason::JoinTokenUnknown,
            Self::TokenExpired => Reason::JoinTokenExpired,
            Self::TokenMalformed(_) => Reason::BadRequest,
            Self::Entry(error) => entries::reason_of(error),
            Self::Role(refusal) => refusal.reason(),
            Self::TokenTaken => Reason::AlreadyExists,
            Self::Banned => Reason::AgentBanned,
            Self::NotFound => Reason::AgentNotFound,
            Self::MustReattest => Reason::AgentMustReattest,
            Self::NotActive => Reason::AgentNotActive,
            Self::X509Pop(fault) => fault.reason(),
            Self::Stopping => Reason::ServerStopping,
            Self::Issue(error) => error.reason(),
            Self::Store(_) => Reason::StoreFailed,
        }
    }
}

impl From<CommitError> for AttestFault {
    fn from(error: CommitError) -> Self {
        Self::Store(ErrorChain(&error).to_string())
    }
}

/// Admits the bearer of a join token and signs its SVID.
///
/// The SVID is signed before the token is used up, so that a failure to sign costs no token. The request is not looked at
/// before the token is found: to check its signature costs more than anyone without a token is worth.
pub(crate) async fn attest_join_token(
    context: &Context,
    token: &str,
    csr_der: Vec<u8>,
) -> Result<Issued, AttestFault> {
    let view = context.directory.view();
    let JoinToken { expires_at, revision } = view.join_token(token).ok_or(AttestFault::TokenUnknown)?;
    let agent_id = join_token_agent(context, token)?;
    if view.agent(&agent_id).is_some_and(|agent| agent.banned) {
        return Err(AttestFault::Banned);
    }
    if expires_at < context.clock.now() {
        match context.directory.commit(removal(token, revision)).await {
            // If another call removes or replaces it first, so much the better.
            Ok(_) | Err(CommitError::Conflict(_)) => return Err(AttestFault::TokenExpired),
            Err(error) => return Err(error.into()),
        }
    }
    let node = NodeAttributes { spiffe_id: agent_id, selectors: Selectors::default(), can_reattest: false };
    admit(context, "join_token", Some(token), node, csr_der).await
}

/// Admits a node that has proved itself to `attestor`, for the first time or again, and signs its SVID.
pub(crate) async fn attest_node(
    context: &Context,
    attestor: &str,
    node: NodeAttributes,
    csr_der: Vec<u8>,
) -> Result<Issued, AttestFault> {
    if context.directory.view().agent(&node.spiffe_id).is_some_and(|agent| agent.banned) {
        return Err(AttestFault::Banned);
    }
    admit(context, attestor, None, node, csr_der).await
}

async fn admit(
    context: &Context,
    attestor: &str,
    token: Option<&str>,
    node: NodeAttributes,
    csr_der: Vec<u8>,
) -> Result<Issued, AttestFault> {
    let NodeAttributes { spiffe_id, mut selectors, can_reattest } = node;
    if context.agent_spiffe_id_as_selector {
        let own = Selector::new("spiffe_id", spiffe_id.as_str()).map_err(NodeFault::from)?;
        selectors = Selectors::new(selectors.iter().cloned().chain([own])).map_err(NodeFault::from)?;
    }
    let ttl_secs = context.live.load().agent_ttl_secs;
    let issued = context.issuer.issue_agent(spiffe_id.clone(), csr_der, ttl_secs).await?;
    let agent = AgentRow {
        spiffe_id,
        attestation_type: attestor.to_owned(),
        serial: issued.serial.clone(),
        expires_at: issued.validity.not_after,
        renewed: None,
        can_reattest,
        agent_version: String::new(),
        selectors,
        banned: false,
        revision: 0,
    };
    write(&context.directory, token, agent).await?;
    Ok(issued)
}

/// Removes a token that has ended, and not one that was made under the same name since.
pub(crate) fn removal(token: &str, revision: u64) -> Transaction {
    Transaction::new().at_revision(join_token_key(token), revision).delete(join_token_key(token))
}

/// Uses up the token, if there is one, and writes the agent's row, unless the agent is banned at that very moment.
async fn write(directory: &Directory, token: Option<&str>, mut agent: AgentRow) -> Result<(), AttestFault> {
    let (token_key, agent_key) = (token.map(join_token_key), agent_key(&agent.spiffe_id));
    for _ in 0..TRIES_MAX {
        let transaction = match &token_key {
            Some(key) => Transaction::new().exists(key.clone()).delete(key.clone()),
            None => Transaction::new(),
        };
        let transaction = match directory.view().agent(&agent.spiffe_id) {
            Some(old) if old.banned => return Err(AttestFault::Banned),
            Some(old) => {
                agent.agent_version.clone_from(&old.agent_version);
                transaction.at_revision(agent_key.clone(), old.revision)
            }
            None => transaction.absent(agent_key.clone()),
        };
        match directory.commit(transaction.put(agent_key.clone(), agent.encode())).await {
            Ok(_) => return Ok(()),
            Err(CommitError::Conflict(conflict))
                if Some(conflict.precondition.key()) == token_key.as_ref() =>
            {
                return Err(AttestFault::TokenUnknown);
            }
            Err(CommitError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(AttestFault::Store(format!("agent {} is being changed by others", agent.spiffe_id)))
}

fn join_token_agent(context: &Context, token: &str) -> Result<SpiffeId, AttestFault> {
    if token.is_empty() || token.len() > JOIN_TOKEN_BYTES_MAX || token.contains('/') {
        return Err(AttestFault::TokenMalformed(format!(
            "it has 1 to {JOIN_TOKEN_BYTES_MAX} bytes and no slash"
        )));
    }
    context
        .trust_domain
        .member(&format!("{TOKEN_AGENTS}{token}"))
        .map_err(|error| AttestFault::TokenMalformed(error.to_string()))
}

/// Whether `id` tells a join token that nobody has used yet: whoever reads it could be the agent before the agent is.
pub(crate) fn tells_token(view: &View, id: &SpiffeId) -> bool {
    let token = id.path().strip_prefix(TOKEN_AGENTS);
    token.is_some_and(|token| view.join_token(token).is_some()) && view.is_ours(id)
}

/// A join token that was made.
pub(crate) struct NewToken {
    pub(crate) token: String,
    pub(crate) expires_at: Timestamp,
}

/// Makes a join token, with an entry for `workload_id` below its agent when one is asked for and permitted.
pub(crate) async fn create_join_token(
    context: &Context,
    token: String,
    ttl_secs: i64,
    workload_id: Option<SpiffeId>,
    permit: &Permit<'_>,
) -> Result<NewToken, AttestFault> {
    let token = if token.is_empty() { context.entropy.uuid() } else { token };
    let agent_id = join_token_agent(context, &token)?;
    let expires_at = context.clock.now() + ttl_secs;
    let record = records::JoinTokenRecord { token: token.clone(), expires_at: expires_at.unix_secs() };
    let token_key = join_token_key(&token);
    let draft = Transaction::new().absent(token_key.clone()).put(token_key.clone(), record.encode_to_vec());
    let entry = workload_id.map(|id| alias_entry(context, agent_id.clone(), id)).transpose()?;
    for _ in 0..TRIES_MAX {
        let mut transaction = draft.clone();
        if let Some(entry) = &entry {
            let view = context.directory.view();
            let permitted = permit(&view, None, Some(entry))?;
            transaction = entries::within(&view, transaction, permitted);
            // One that an earlier token of the same name has left behind says the same and stays.
            if view.similar(entry).is_none() {
                transaction = transaction
                    .absent(similarity_key(entry))
                    .put(similarity_key(entry), entry.id.as_str().as_bytes())
                    .put(entry_key(&entry.id), encode_entry(entry));
            }
        }
        match context.directory.commit(transaction).await {
            Ok(_) => return Ok(NewToken { token, expires_at }),
            Err(CommitError::Conflict(conflict)) if *conflict.precondition.key() == token_key => {
                return Err(AttestFault::TokenTaken);
            }
            Err(CommitError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(AttestFault::Store(format!("the entry for join token agent {agent_id} is being changed by others")))
}

/// SPIRE's entry for `token generate -spiffeID`: a child of the agent, whose one selector names the agent itself.
fn alias_entry(
    context: &Context,
    agent_id: SpiffeId,
    workload_id: SpiffeId,
) -> Result<RegistrationEntry, AttestFault> {
    check_workload_id(&workload_id, &context.trust_domain)?;
    let selector = Selector::new("spiffe_id", agent_id.as_str())
        .map_err(|error| AttestFault::TokenMalformed(error.to_string()))?;
    Ok(RegistrationEntry {
        // A random UUID is within the alphabet and length of entry ids.
        id: context.entropy.uuid().parse().expect("a UUID is an entry id"),
        spiffe_id: workload_id,
        parent_id: agent_id,
        selectors: Selectors::new([selector])
            .map_err(|error| AttestFault::TokenMalformed(error.to_string()))?,
        x509_svid_ttl_secs: 0,
        jwt_svid_ttl_secs: 0,
        federates_with: Vec::new(),
        admin: false,
        downstream: false,
        expires_at: None,
        dns_names: Vec::<DnsName>::new(),
        revision_number: 0,
        store_svid: false,
        hint: Hint::default(),
        created_at: context.clock.now(),
        disable_x509_svid_prefetch: false,
        jwt_svid_include_jti: false,
    })
}

/// Signs a fresh SVID for the agent that shows the SVID of `serial`, which stays valid until the new one is first used.
pub(crate) async fn renew(
    context: &Context,
    agent_id: &SpiffeId,
    serial: &str,
    csr_der: Vec<u8>,
) -> Result<Issued, AttestFault> {
    let view = context.directory.view();
    let agent = view.agent(agent_id).ok_or(AttestFault::NotFound)?;
    if agent.can_reattest {
        return Err(AttestFault::MustReattest);
    }
    let issued =
        context.issuer.issue_agent(agent_id.clone(), csr_der, context.live.load().agent_ttl_secs).await?;
    // The row may have changed while the SVID was signed: an agent that was evicted and joined again is another one.
    change_agent(&context.directory, agent_id, |agent| {
        if agent.serial != serial {
            return Err(AttestFault::NotActive);
        }
        agent.renewed = Some((issued.serial.clone(), issued.validity.not_after));
        Ok(())
    })
    .await?;
    Ok(issued)
}

/// Makes the renewed SVID of an agent its current one, provided that the row is still as it was read.
pub(crate) async fn promote(directory: &Directory, agent: &AgentRow) -> Result<(), CommitError> {
    let mut agent = agent.clone();
    if let Some((serial, expires_at)) = agent.renewed.take() {
        agent.serial = serial;
        agent.expires_at = expires_at;
    }
    let key = agent_key(&agent.spiffe_id);
    let transaction = Transaction::new().at_revision(key.clone(), agent.revision).put(key, agent.encode());
    directory.commit(transaction).await.map(|_| ())
}

/// Bans an agent: its row stays, its serials go.
pub(crate) async fn ban(context: &Context, agent_id: &SpiffeId) -> Result<(), AttestFault> {
    change_agent(&context.directory, agent_id, |agent| {
        agent.banned = true;
        agent.serial.clear();
        agent.renewed = None;
        Ok(())
    })
    .await?;
    info!(agent_id = %agent_id, "agent banned");
    Ok(())
}

/// Records the version an agent reports.
pub(crate) async fn post_version(
    context: &Context,
    agent_id: &SpiffeId,
    version: &str,
) -> Result<(), AttestFault> {
    let view = context.directory.view();
    if view.agent(agent_id).is_some_and(|agent| agent.agent_version == version) {
        return Ok(());
    }
    change_agent(&context.directory, agent_id, |agent| {
        agent.agent_version = version.to_owned();
        Ok(())
    })
    .await
}

/// Evicts an agent, and the entry that `token generate -spiffeID` made for it.
pub(crate) async fn evict(context: &Context, agent_id: &SpiffeId) -> Result<(), AttestFault> {
    for _ in 0..TRIES_MAX {
        let view = context.directory.view();
        let agent = view.agent(agent_id).ok_or(AttestFault::NotFound)?;
        let transaction = Transaction::new().exists(agent_key(agent_id));
        match context.directory.commit(eviction(&view, agent, transaction)).await {
            Ok(_) => {
                info!(agent_id = %agent_id, "agent evicted");
                return Ok(());
            }
            // The agent or its entry changed; the next round looks again.
            Err(CommitError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(AttestFault::Store(format!("agent {agent_id} is being changed by others")))
}

/// Adds to `transaction` what evicts an agent.
pub(crate) fn eviction(view: &View, agent: &AgentRow, transaction: Transaction) -> Transaction {
    let agent_id = &agent.spiffe_id;
    let transaction = transaction.delete(agent_key(agent_id));
    if agent.attestation_type != "join_token" {
        return transaction;
    }
    let own = format!("spiffe_id:{agent_id}");
    let alias = view
        .children(agent_id)
        .find(|row| row.entry.selectors.len() == 1 && row.entry.selectors.iter().all(|s| s.as_str() == own));
    match alias {
        Some(row) => entries::deletion(view, row, transaction),
        None => transaction,
    }
}

/// How often a change of an agent's row is tried again when another call changed the row in between.
const TRIES_MAX: usize = 8;

/// Changes an agent's row as it was read, so that a ban and a renewal at the same moment cannot undo each other.
async fn change_agent(
    directory: &Directory,
    agent_id: &SpiffeId,
    change: impl Fn(&mut AgentRow) -> Result<(), AttestFault>,
) -> Result<(), AttestFault> {
    for _ in 0..TRIES_MAX {
        let view = directory.view();
        let mut agent = AgentRow::clone(view.agent(agent_id).ok_or(AttestFault::NotFound)?);
        if agent.banned {
            return Err(AttestFault::Banned);
        }
        change(&mut agent)?;
        let transaction = Transaction::new()
            .at_revision(agent_key(agent_id), agent.revision)
            .put(agent_key(&agent.spiffe_id), agent.encode());
        match directory.commit(transaction).await {
            Ok(_) => return Ok(()),
            Err(CommitError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(AttestFault::Store(format!("agent {agent_id} is being changed by others")))
}

#[cfg(test)]
mod tests;
