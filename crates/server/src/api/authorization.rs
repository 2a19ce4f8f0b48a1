//! Who may call what: one table, one line a method.
//!
//! A method that is not in the table may be called by nobody. Rows follow SPIRE's default policy.

/// The classes a caller can belong to; one caller may belong to several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Connected over the admin Unix socket.
    Local,
    /// An identity with the admin flag, or listed in the configuration.
    Admin,
    /// An attested agent in good standing.
    Agent,
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

const ADMINS: &[Class] = &[Class::Local, Class::Admin];
const AGENTS: &[Class] = &[Class::Agent];
const LOCAL: &[Class] = &[Class::Local];
const ANYONE: &[Class] = &[Class::Anyone];

const fn row(method: &'static str, allowed: &'static [Class]) -> Row {
    Row { method, allowed, takes: Takes::Message }
}

const fn stream(method: &'static str, allowed: &'static [Class]) -> Row {
    Row { method, allowed, takes: Takes::Stream }
}

/// The whole policy.
pub(crate) const TABLE: &[Row] = &[
    row("/spire.api.server.agent.v1.Agent/CountAgents", ADMINS),
    row("/spire.api.server.agent.v1.Agent/ListAgents", ADMINS),
    row("/spire.api.server.agent.v1.Agent/GetAgent", ADMINS),
    row("/spire.api.server.agent.v1.Agent/DeleteAgent", ADMINS),
    row("/spire.api.server.agent.v1.Agent/BanAgent", ADMINS),
    stream("/spire.api.server.agent.v1.Agent/AttestAgent", ANYONE),
    row("/spire.api.server.agent.v1.Agent/RenewAgent", AGENTS),
    row("/spire.api.server.agent.v1.Agent/PostStatus", AGENTS),
    row("/spire.api.server.agent.v1.Agent/CreateJoinToken", ADMINS),
    row("/spire.api.server.entry.v1.Entry/CountEntries", ADMINS),
    row("/spire.api.server.entry.v1.Entry/ListEntries", ADMINS),
    row("/spire.api.server.entry.v1.Entry/GetEntry", ADMINS),
    row("/spire.api.server.entry.v1.Entry/BatchCreateEntry", ADMINS),
    row("/spire.api.server.entry.v1.Entry/BatchUpdateEntry", ADMINS),
    row("/spire.api.server.entry.v1.Entry/BatchDeleteEntry", ADMINS),
    row("/spire.api.server.entry.v1.Entry/GetAuthorizedEntries", AGENTS),
    stream("/spire.api.server.entry.v1.Entry/SyncAuthorizedEntries", AGENTS),
    row("/spire.api.server.svid.v1.SVID/MintX509SVID", ADMINS),
    row("/spire.api.server.svid.v1.SVID/BatchNewX509SVID", AGENTS),
    row("/spire.api.server.svid.v1.SVID/MintJWTSVID", ADMINS),
    row("/spire.api.server.svid.v1.SVID/NewJWTSVID", AGENTS),
    row("/spire.api.server.bundle.v1.Bundle/GetBundle", ANYONE),
    row("/spire.api.server.bundle.v1.Bundle/CountBundles", ADMINS),
    row("/spire.api.server.bundle.v1.Bundle/GetFederatedBundle", &[Class::Local, Class::Admin, Class::Agent]),
    row("/spire.api.server.bundle.v1.Bundle/AppendBundle", ADMINS),
    row("/spire.api.server.bundle.v1.Bundle/ListFederatedBundles", ADMINS),
    row("/spire.api.server.bundle.v1.Bundle/BatchCreateFederatedBundle", ADMINS),
    row("/spire.api.server.bundle.v1.Bundle/BatchUpdateFederatedBundle", ADMINS),
    row("/spire.api.server.bundle.v1.Bundle/BatchSetFederatedBundle", ADMINS),
    row("/spire.api.server.bundle.v1.Bundle/BatchDeleteFederatedBundle", ADMINS),
    row("/spire.api.server.trustdomain.v1.TrustDomain/ListFederationRelationships", ADMINS),
    row("/spire.api.server.trustdomain.v1.TrustDomain/GetFederationRelationship", ADMINS),
    row("/spire.api.server.trustdomain.v1.TrustDomain/BatchCreateFederationRelationship", ADMINS),
    row("/spire.api.server.trustdomain.v1.TrustDomain/BatchUpdateFederationRelationship", ADMINS),
    row("/spire.api.server.trustdomain.v1.TrustDomain/BatchDeleteFederationRelationship", ADMINS),
    row("/spire.api.server.trustdomain.v1.TrustDomain/RefreshBundle", ADMINS),
    row("/spire.api.server.debug.v1.Debug/GetInfo", LOCAL),
    row("/spire.api.server.logger.v1.Logger/GetLogger", LOCAL),
    row("/spire.api.server.logger.v1.Logger/SetLogLevel", LOCAL),
    row("/spire.api.server.logger.v1.Logger/ResetLogLevel", LOCAL),
    row("/grpc.health.v1.Health/Check", LOCAL),
    row("/grpc.health.v1.Health/Watch", LOCAL),
    row("/grpc.health.v1.Health/List", LOCAL),
    stream("/spindle.sync.v1.Sync/Follow", AGENTS),
];

/// The row of `method`; none when nobody may call it.
pub(crate) fn row_of(method: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.method == method)
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

    #[test]
    fn a_method_without_a_row_is_for_nobody() {
        for method in
            ["", "/", "/spire.api.server.agent.v1.Agent", "/spire.api.server.agent.v1.Agent/listagents"]
        {
            assert_eq!(row_of(method), None, "{method}");
        }
    }
}
