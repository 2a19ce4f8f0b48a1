//! Roles as they travel and as they are stored, and the check of both.

use spindle_proto::admin::v1 as wire;
use spindle_proto::records::v1 as records;

use super::{EntryRules, Grant, PathPrefix, Role, RoleError, Verb};

/// The grant of a message.
///
/// # Errors
/// The first field that is missing, malformed or of no use to the role.
pub(crate) fn grant_from_wire(wire: &wire::Grant) -> Result<Grant, RoleError> {
    let role: Role = wire.role.parse()?;
    let rules = match role {
        Role::Registrar => return Ok(Grant::Registrar(rules(wire)?)),
        Role::Reader => Grant::Reader,
        Role::Operator => Grant::Operator,
    };
    let bare = wire::Grant { role: wire.role.clone(), ..Default::default() };
    if *wire == bare { Ok(rules) } else { Err(RoleError::NoLimits(role)) }
}

fn rules(wire: &wire::Grant) -> Result<EntryRules, RoleError> {
    let path_prefix: PathPrefix = wire.path_prefix.parse()?;
    // No more verbs than there are: a list of thousands is not read to its end.
    let mut verbs = Vec::new();
    for verb in wire.verbs.iter().take(Verb::ALL.len() * 2) {
        let verb = verb.parse()?;
        if !verbs.contains(&verb) {
            verbs.push(verb);
        }
    }
    verbs.sort_unstable();
    if verbs.is_empty() {
        return Err(RoleError::NoVerbs);
    }
    Ok(EntryRules {
        parent_path_prefix: match wire.parent_path_prefix.as_str() {
            "" => path_prefix.clone(),
            text => text.parse()?,
        },
        path_prefix,
        verbs,
        max_x509_svid_ttl_secs: Some(wire.max_x509_svid_ttl).filter(|secs| *secs > 0),
        max_jwt_svid_ttl_secs: Some(wire.max_jwt_svid_ttl).filter(|secs| *secs > 0),
        allow_admin: wire.allow_admin,
        allow_downstream: wire.allow_downstream,
    })
}

/// The grant as a message.
pub(crate) fn grant_to_wire(grant: &Grant) -> wire::Grant {
    let role = grant.role().as_str().to_owned();
    match grant {
        Grant::Reader | Grant::Operator => wire::Grant { role, ..Default::default() },
        Grant::Registrar(rules) => wire::Grant {
            role,
            path_prefix: rules.path_prefix.as_str().into(),
            parent_path_prefix: rules.parent_path_prefix.as_str().into(),
            verbs: rules.verbs.iter().map(|verb| verb.as_str().into()).collect(),
            max_x509_svid_ttl: rules.max_x509_svid_ttl_secs.unwrap_or(0),
            max_jwt_svid_ttl: rules.max_jwt_svid_ttl_secs.unwrap_or(0),
            allow_admin: rules.allow_admin,
            allow_downstream: rules.allow_downstream,
        },
    }
}

/// The grant of a stored record.
///
/// # Errors
/// As [`grant_from_wire`].
pub(crate) fn grant_from_record(record: records::GrantRecord) -> Result<Grant, RoleError> {
    grant_from_wire(&wire::Grant {
        role: record.role,
        path_prefix: record.path_prefix,
        parent_path_prefix: record.parent_path_prefix,
        verbs: record.verbs,
        max_x509_svid_ttl: record.max_x509_svid_ttl,
        max_jwt_svid_ttl: record.max_jwt_svid_ttl,
        allow_admin: record.allow_admin,
        allow_downstream: record.allow_downstream,
    })
}

/// The grant as it is stored.
pub(crate) fn grant_to_record(grant: &Grant) -> records::GrantRecord {
    let wire = grant_to_wire(grant);
    records::GrantRecord {
        role: wire.role,
        path_prefix: wire.path_prefix,
        parent_path_prefix: wire.parent_path_prefix,
        verbs: wire.verbs,
        max_x509_svid_ttl: wire.max_x509_svid_ttl,
        max_jwt_svid_ttl: wire.max_jwt_svid_ttl,
        allow_admin: wire.allow_admin,
        allow_downstream: wire.allow_downstream,
    }
}
