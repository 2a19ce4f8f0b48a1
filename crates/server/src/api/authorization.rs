//! Who may call what: one table, one line a method, and the one decision over it.
//!
//! A method that is not in the table may be called by nobody. Rows follow SPIRE's default policy; roles are our own. What a
//! role covers of an entry is decided in `roles/rules.rs`. Start at [`decide`].

use std::sync::Arc;

use spindle_spiffe_core::{Reason, SpiffeId, Timestamp};
use spindle_transport::VerifiedPeer;

use super::caller::{Standing, standing};
use crate::directory::View;
use crate::roles::{Grant, Role, RoleBook};

/// The classes a caller can belong to; one caller may belong to several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Connected over the admin Unix socket, unless the configuration gives the user or group a role.
    Local,
    /// An identity with the admin flag, or listed in the configuration.
    Admin,
    /// Whoever was given the role.
    Role(Role),
    /// An attested agent in good standing.
    Agent,
    /// An identity with the downstream flag: a server below this one.
    Downstream,
    /// Whoever can connect.
    Anyone,
}

/// What a caller sends to a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// One message, which is complete before the service sees the call.
    Message,
    /// Any number of messages, for as long as the stream is open.
    Stream,
}

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Full gRPC method path.
    pub(crate) method: &'static str,
    /// Any of these classes may call it.
    pub(crate) allowed: &'static [Class],
    /// What it is sent.
    pub(crate) takes: Takes,
}

const READER: Class = Class::Role(Role::Reader);
const REGISTRAR: Class = Class::Role(Role::Registrar);
const OPERATOR: Class = Class::Role(Role::Operator);

const ADMINS: &[Class] = &[Class::Local, Class::Admin];
const AGENTS: &[Class] = &[Class::Agent];
const DOWNSTREAM: &[Class] = &[Class::Downstream];
const ANYONE: &[Class] = &[Class::Anyone];

/// To look at what there is.
const READS: &[Class] = &[Class::Local, Class::Admin, READER, OPERATOR];
/// To look at entries: registrars see theirs.
const READS_ENTRIES: &[Class] = &[Class::Local, Class::Admin, READER, OPERATOR, REGISTRAR];
/// To change entries, within the limits of the role.
const WRITES_ENTRIES: &[Class] = &[Class::Local, Class::Admin, OPERATOR, REGISTRAR];
/// To run the trust domain, without giving anybody power.
const OPERATES: &[Class] = &[Class::Local, Class::Admin, OPERATOR];
/// SPIRE keeps these to the local socket. A role was given on purpose, so it counts over TLS too.
const READS_SERVER: &[Class] = &[Class::Local, READER, OPERATOR];
/// The same, to change how the process runs.
const OPERATES_SERVER: &[Class] = &[Class::Local, OPERATOR];
/// The same; whoever has a role may ask whether the server is well.
const HEALTH: &[Class] = &[Class::Local, READER, OPERATOR, REGISTRAR];

const fn row(method: &'static str, allowed: &'static [Class]) -> Row {
    Row { method, allowed, takes: Takes::Message }
}

const fn stream(method: &'static str, allowed: &'static [Class]) -> Row {
    Row { method, allowed, takes: Takes::Stream }
}

/// The whole policy.
pub(crate) const TABLE: &[Row] = &[
    row("/spire.api.server.agent.v1.Agent/CountAgents", READS),
    row("/spire.api.server.agent.v1.Agent/ListAgents", READS),
    row("/spire.api.server.agent.v1.Agent/GetAgent", READS),
    row("/spire.api.server.agent.v1.Agent/DeleteAgent", OPERATES),
    row("/spire.api.server.agent.v1.Agent/BanAgent", OPERATES),
    stream("/spire.api.server.agent.v1.Agent/AttestAgent", ANYONE),
    row("/spire.api.server.agent.v1.Agent/RenewAgent", AGENTS),
    row("/spire.api.server.agent.v1.Agent/PostStatus", AGENTS),
    row("/spire.api.server.agent.v1.Agent/CreateJoinToken", OPERATES),
    row("/spire.api.server.entry.v1.Entry/CountEntries", READS_ENTRIES),
    row("/spire.api.server.entry.v1.Entry/ListEntries", READS_ENTRIES),
    row("/spire.api.server.entry.v1.Entry/GetEntry", READS_ENTRIES),
    row("/spire.api.server.entry.v1.Entry/BatchCreateEntry", WRITES_ENTRIES),
    row("/spire.api.server.entry.v1.Entry/BatchUpdateEntry", WRITES_ENTRIES),
    row("/spire.api.server.entry.v1.Entry/BatchDeleteEntry", WRITES_ENTRIES),
    row("/spire.api.server.entry.v1.Entry/GetAuthorizedEntries", AGENTS),
    stream("/spire.api.server.entry.v1.Entry/SyncAuthorizedEntries", AGENTS),
    row("/spire.api.server.svid.v1.SVID/MintX509SVID", ADMINS),
    row("/spire.api.server.svid.v1.SVID/BatchNewX509SVID", AGENTS),
    row("/spire.api.server.svid.v1.SVID/MintJWTSVID", ADMINS),
    row("/spire.api.server.svid.v1.SVID/NewJWTSVID", AGENTS),
    row("/spire.api.server.svid.v1.SVID/MintWITSVID", ADMINS),
    row("/spire.api.server.svid.v1.SVID/BatchNewWITSVID", AGENTS),
    row("/spire.api.server.svid.v1.SVID/NewDownstreamX509CA", DOWNSTREAM),
    row("/spire.api.server.bundle.v1.Bundle/GetBundle", ANYONE),
    row("/spire.api.server.bundle.v1.Bundle/CountBundles", READS),
    row(
        "/spire.api.server.bundle.v1.Bundle/GetFederatedBundle",
        &[Class::Local, Class::Admin, READER, OPERATOR, Class::Agent],
    ),
    row("/spire.api.server.bundle.v1.Bundle/AppendBundle", ADMINS),
    row("/spire.api.server.bundle.v1.Bundle/PublishJWTAuthority", DOWNSTREAM),
    row("/spire.api.server.bundle.v1.Bundle/PublishWITAuthority", DOWNSTREAM),
    row("/spire.api.server.bundle.v1.Bundle/ListFederatedBundles", READS),
    row("/spire.api.server.bundle.v1.Bundle/BatchCreateFederatedBundle", ADMINS),
    row("/spire.api.server.bundle.v1.Bundle/BatchUpdateFederatedBundle", ADMINS),
    row("/spire.api.server.bundle.v1.Bundle/BatchSetFederatedBundle", ADMINS),
    row("/spire.api.server.bundle.v1.Bundle/BatchDeleteFederatedBundle", ADMINS),
    row("/spire.api.server.trustdomain.v1.TrustDomain/ListFederationRelationships", READS),
    row("/spire.api.server.trustdomain.v1.TrustDomain/GetFederationRelationship", READS),
    row("/spire.api.server.trustdomain.v1.TrustDomain/BatchCreateFederationRelationship", ADMINS),
    row("/spire.api.server.trustdomain.v1.TrustDomain/BatchUpdateFederationRelationship", ADMINS),
    row("/spire.api.server.trustdomain.v1.TrustDomain/BatchDeleteFederationRelationship", ADMINS),
    row("/spire.api.server.trustdomain.v1.TrustDomain/RefreshBundle", OPERATES),
    row("/spire.api.server.localauthority.v1.LocalAuthority/GetX509AuthorityState", READS),
    row("/spire.api.server.localauthority.v1.LocalAuthority/PrepareX509Authority", OPERATES),
    row("/spire.api.server.localauthority.v1.LocalAuthority/ActivateX509Authority", OPERATES),
    row("/spire.api.server.localauthority.v1.LocalAuthority/TaintX509Authority", OPERATES),
    row("/spire.api.server.localauthority.v1.LocalAuthority/TaintX509UpstreamAuthority", OPERATES),
    row("/spire.api.server.localauthority.v1.LocalAuthority/RevokeX509Authority", OPERATES),
    row("/spire.api.server.localauthority.v1.LocalAuthority/RevokeX509UpstreamAuthority", OPERATES),
    row("/spire.api.server.localauthority.v1.LocalAuthority/GetJWTAuthorityState", READS),
    row("/spire.api.server.localauthority.v1.LocalAuthority/PrepareJWTAuthority", OPERATES),
    row("/spire.api.server.localauthority.v1.LocalAuthority/ActivateJWTAuthority", OPERATES),
    row("/spire.api.server.localauthority.v1.LocalAuthority/TaintJWTAuthority", OPERATES),
    row("/spire.api.server.localauthority.v1.LocalAuthority/RevokeJWTAuthority", OPERATES),
    row("/spire.api.server.localauthority.v1.LocalAuthority/GetWITAuthorityState", READS),
    row("/spire.api.server.localauthority.v1.LocalAuthority/PrepareWITAuthority", OPERATES),
    row("/spire.api.server.localauthority.v1.LocalAuthority/ActivateWITAuthority", OPERATES),
    row("/spire.api.server.localauthority.v1.LocalAuthority/TaintWITAuthority", OPERATES),
    row("/spire.api.server.localauthority.v1.LocalAuthority/RevokeWITAuthority", OPERATES),
    row("/spire.api.server.debug.v1.Debug/GetInfo", READS_SERVER),
    row("/spire.api.server.logger.v1.Logger/GetLogger", READS_SERVER),
    row("/spire.api.server.logger.v1.Logger/SetLogLevel", OPERATES_SERVER),
    row("/spire.api.server.logger.v1.Logger/ResetLogLevel", OPERATES_SERVER),
    row("/grpc.health.v1.Health/Check", HEALTH),
    row("/grpc.health.v1.Health/Watch", HEALTH),
    row("/grpc.health.v1.Health/List", HEALTH),
    stream("/spindle.sync.v1.Sync/Follow", AGENTS),
    row("/spindle.admin.v1.Roles/ListRoles", READS),
    row(GRANT_ROLE, ADMINS),
    row("/spindle.admin.v1.Roles/RevokeRole", ADMINS),
    row("/spindle.admin.v1.Roles/Can", ANYONE),
    row("/spindle.admin.v1.Backup/Read", &[Class::Local]),
];

/// What only those who may do everything may call.
pub(crate) const GRANT_ROLE: &str = "/spindle.admin.v1.Roles/GrantRole";

/// The row of `method`; none when nobody may call it.
pub(crate) fn row_of(method: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.method == method)
}

/// Who calls, or would.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who<'a> {
    /// A process of this machine, over the admin socket.
    Local {
        /// Its user.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// An identity, with the SVID it shows; none when somebody only asks about it.
    Identity(&'a SpiffeId, Option<&'a VerifiedPeer>),
    /// Over TLS, without an identity.
    Stranger,
}

/// What a decision looks at beside the caller, all of one moment.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub(crate) view: &'a View,
    pub(crate) roles: &'a RoleBook,
    pub(crate) now: Timestamp,
}

/// What lets a caller in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Admitted {
    Local,
    Admin,
    /// These roles, which are those of the row.
    Roles(Arc<[Grant]>),
    /// As a server below this one.
    Downstream,
    /// As an agent; whether it used its renewed SVID for the first time.
    Agent {
        renewed: bool,
    },
    Anyone,
}

/// Why a caller is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// It belongs to none of the classes.
    Class,
    /// Agents may call it, and this is wrong with the caller as one.
    Agent(Reason),
}

/// Whether `who` may call the method of `row`: the first class of the row that the caller belongs to, the mightiest first.
pub(crate) fn decide(row: &Row, who: Who<'_>, at: Surroundings<'_>) -> Result<Admitted, Denied> {
    let lists = |class| row.allowed.contains(&class);
    let of_row = |grants: &mut dyn Iterator<Item = &Grant>| -> Option<Admitted> {
        let grants: Arc<[Grant]> = grants.filter(|grant| lists(Class::Role(grant.role()))).cloned().collect();
        (!grants.is_empty()).then_some(Admitted::Roles(grants))
    };
    match who {
        Who::Local { uid, gid } => match at.roles.local_grants(uid, gid) {
            None if lists(Class::Local) => return Ok(Admitted::Local),
            None => {}
            Some(grants) => {
                if let Some(roles) = of_row(&mut grants.iter()) {
                    return Ok(roles);
                }
            }
        },
        Who::Identity(id, shown) => {
            // An agent that shows an SVID past its end is told so below; nobody else gets anything by one.
            if shown.is_none_or(|shown| at.now <= shown.not_after()) && is_still_trusted(id, shown, at) {
                if lists(Class::Admin) && is_admin(id, at) {
                    return Ok(Admitted::Admin);
                }
                if let Some(roles) = of_row(&mut at.roles.grants_of(at.view, id)) {
                    return Ok(roles);
                }
                if lists(Class::Downstream) && is_downstream(id, at) {
                    return Ok(Admitted::Downstream);
                }
            }
            if lists(Class::Agent) {
                return match standing(at.view.agent(id).map(AsRef::as_ref), shown, at.now) {
                    Standing::Good => Ok(Admitted::Agent { renewed: false }),
                    Standing::Promote => Ok(Admitted::Agent { renewed: true }),
                    Standing::Refused(reason) => Err(Denied::Agent(reason)),
                };
            }
        }
        Who::Stranger => {}
    }
    if lists(Class::Anyone) { Ok(Admitted::Anyone) } else { Err(Denied::Class) }
}

/// An agent keeps no right that it has besides once it is banned or evicted, or shows an SVID that is not its current one. An
/// identity of another trust domain keeps none, however old its connection, once the bundle that vouched for it is gone.
fn is_still_trusted(id: &SpiffeId, shown: Option<&VerifiedPeer>, at: Surroundings<'_>) -> bool {
    if !at.view.is_ours(id) {
        return at.view.bundle(&id.trust_domain()).is_some();
    }
    if !id.is_agent() {
        return true;
    }
    match standing(at.view.agent(id).map(AsRef::as_ref), shown, at.now) {
        Standing::Good | Standing::Promote => true,
        Standing::Refused(_) => false,
    }
}

fn is_admin(id: &SpiffeId, at: Surroundings<'_>) -> bool {
    at.roles.is_admin(id)
        || at.view.entries_of(id).any(|row| row.entry.admin && !row.entry.is_expired(at.now))
}

/// An entry with the downstream flag names it.
fn is_downstream(id: &SpiffeId, at: Surroundings<'_>) -> bool {
    at.view.entries_of(id).any(|row| row.entry.downstream && !row.entry.is_expired(at.now))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    /// In newer descriptors of the health service than ours.
    const NOT_DESCRIBED: &str = "/grpc.health.v1.Health/List";

    /// Every method that the descriptors name, and whether its callers send a stream.
    fn described() -> BTreeSet<(String, bool)> {
        let sets = [spindle_proto::SERVER_DESCRIPTOR_SET, tonic_health::pb::FILE_DESCRIPTOR_SET];
        let files = sets.iter().flat_map(|set| FileDescriptorSet::decode(*set).unwrap().file);
        let mut methods = BTreeSet::from([(NOT_DESCRIBED.to_owned(), false)]);
        for file in files {
            for service in &file.service {
                let name = format!("{}.{}", file.package(), service.name());
                methods.extend(service.method.iter().map(|method| {
                    (format!("/{name}/{}", method.name()), method.client_streaming.unwrap_or(false))
                }));
            }
        }
        methods
    }

    #[test]
    fn every_method_of_every_service_has_exactly_one_row() {
        let rows: BTreeSet<(String, bool)> =
            TABLE.iter().map(|row| (row.method.to_owned(), row.takes == Takes::Stream)).collect();
        assert_eq!(rows.len(), TABLE.len(), "a method has two rows");
        assert_eq!(rows, described());
    }

    #[test]
    fn every_row_lets_somebody_in() {
        assert!(TABLE.iter().all(|row| !row.allowed.is_empty()));
    }

    /// Roles take nothing away: whatever a role opens is open to those who may do everything, over the socket at least.
    #[test]
    fn what_a_role_may_call_is_open_to_the_socket_too() {
        for row in TABLE {
            let by_role = row.allowed.iter().any(|class| matches!(class, Class::Role(_)));
            assert!(!by_role || row.allowed.contains(&Class::Local), "{}", row.method);
        }
    }

    #[test]
    fn a_method_without_a_row_is_for_nobody() {
        for method in
            ["", "/", "/spire.api.server.agent.v1.Agent", "/spire.api.server.agent.v1.Agent/listagents"]
        {
            assert_eq!(row_of(method), None, "{method}");
        }
    }
}
