//! `roles { registrar "spiffe://example.org/ci" { … } }`: callers that may do less than everything. SPIRE has none of this.

use spindle_server::{EntryRules, Grant, PathPrefix, Role, RoleAssignment, Verb};

use super::known;
use crate::config::ConfigError;
use crate::config::keys::check_keys;
use crate::config::section::Section;
use crate::config::values::{lifetime_secs, required};

/// Reads the block.
///
/// # Errors
/// The first role, subject or limit that is not understood.
pub(super) fn read(block: &Section<'_>, notes: &mut Vec<String>) -> Result<Vec<RoleAssignment>, ConfigError> {
    check_keys(block, known::ROLES, notes)?;
    let mut assignments = Vec::new();
    for item in block.items() {
        let of_role = block.block_of(item)?;
        let role: Role = item.key.parse().map_err(|fault| ConfigError::value(of_role.path(), fault))?;
        for named in of_role.items() {
            let limits = of_role.block_of(named)?;
            let subject = named.key.parse().map_err(|fault| ConfigError::value(of_role.path(), fault))?;
            let grant = match role {
                Role::Registrar => Grant::Registrar(registrar(&limits, notes)?),
                Role::Reader | Role::Operator => {
                    check_keys(&limits, &[], notes)?;
                    if role == Role::Reader { Grant::Reader } else { Grant::Operator }
                }
            };
            assignments.push(RoleAssignment { subject, grant });
        }
    }
    Ok(assignments)
}

fn registrar(limits: &Section<'_>, notes: &mut Vec<String>) -> Result<EntryRules, ConfigError> {
    check_keys(limits, known::REGISTRAR, notes)?;
    let path_prefix = required(&limits.key("path_prefix"), prefix(limits, "path_prefix")?)?;
    Ok(EntryRules {
        parent_path_prefix: prefix(limits, "parent_path_prefix")?.unwrap_or_else(|| path_prefix.clone()),
        path_prefix,
        verbs: verbs(limits)?,
        max_x509_svid_ttl_secs: limit_secs(limits, "max_x509_svid_ttl")?,
        max_jwt_svid_ttl_secs: limit_secs(limits, "max_jwt_svid_ttl")?,
        allow_admin: limits.switch("allow_admin")?.unwrap_or(false),
        allow_downstream: limits.switch("allow_downstream")?.unwrap_or(false),
    })
}

fn prefix(limits: &Section<'_>, key: &str) -> Result<Option<PathPrefix>, ConfigError> {
    let Some(text) = limits.text(key)? else { return Ok(None) };
    text.parse().map(Some).map_err(|fault| ConfigError::value(&limits.key(key), fault))
}

/// Nothing is allowed that is not said, so the key has to be there.
fn verbs(limits: &Section<'_>) -> Result<Vec<Verb>, ConfigError> {
    let key = limits.key("verbs");
    let mut verbs = Vec::new();
    for text in required(&key, limits.texts("verbs")?)? {
        let verb: Verb = text.parse().map_err(|fault| ConfigError::value(&key, fault))?;
        if !verbs.contains(&verb) {
            verbs.push(verb);
        }
    }
    if verbs.is_empty() {
        return Err(ConfigError::value(&key, "write at least one of create, update and delete"));
    }
    Ok(verbs)
}

fn limit_secs(limits: &Section<'_>, key: &str) -> Result<Option<u32>, ConfigError> {
    let Some(text) = limits.text(key)? else { return Ok(None) };
    let secs = lifetime_secs(&limits.key(key), Some(&text), 0)?;
    // Longer than any entry can say is no limit at all.
    Ok(Some(u32::try_from(secs).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use spindle_server::RoleSubject;

    use super::super::{RawServer, ServerSettings};
    use super::*;
    use crate::hcl;

    fn load(roles: &str) -> Result<Vec<RoleAssignment>, ConfigError> {
        let text = format!("server {{\n trust_domain = \"example.org\"\n data_dir = \"/d\"\n {roles}\n}}");
        let items = hcl::parse(&text).expect("well formed");
        Ok(ServerSettings::try_from(RawServer::read(&items)?)?.roles)
    }

    #[test]
    fn every_role_and_limit_is_read() {
        let roles = load(
            r#"roles {
                reader "spiffe://other.example/monitor" {}
                operator "unix:gid:1001" {}
                registrar "spiffe://example.org/ci" { path_prefix = "/ci/" verbs = ["create", "create"] }
                registrar "spiffe://example.org/ci" {
                    path_prefix = "/web" parent_path_prefix = "/spire/agent/" verbs = ["delete", "update"]
                    max_x509_svid_ttl = "1h" max_jwt_svid_ttl = "5m" allow_admin = true allow_downstream = true
                }
            }"#,
        );
        let prefix = |text: &str| text.parse::<PathPrefix>().unwrap();
        let ci = || RoleSubject::Identity("spiffe://example.org/ci".parse().unwrap());
        let small = EntryRules {
            path_prefix: prefix("/ci/"),
            parent_path_prefix: prefix("/ci/"),
            verbs: vec![Verb::Create],
            max_x509_svid_ttl_secs: None,
            max_jwt_svid_ttl_secs: None,
            allow_admin: false,
            allow_downstream: false,
        };
        let large = EntryRules {
            path_prefix: prefix("/web"),
            parent_path_prefix: prefix("/spire/agent/"),
            verbs: vec![Verb::Delete, Verb::Update],
            max_x509_svid_ttl_secs: Some(3600),
            max_jwt_svid_ttl_secs: Some(300),
            allow_admin: true,
            allow_downstream: true,
        };
        let monitor = RoleSubject::Identity("spiffe://other.example/monitor".parse().unwrap());
        let expected = [
            RoleAssignment { subject: monitor, grant: Grant::Reader },
            RoleAssignment { subject: RoleSubject::Gid(1001), grant: Grant::Operator },
            RoleAssignment { subject: ci(), grant: Grant::Registrar(small) },
            RoleAssignment { subject: ci(), grant: Grant::Registrar(large) },
        ];
        assert_eq!(roles.unwrap(), expected);
        assert!(load("roles {}").unwrap().is_empty() && load("").unwrap().is_empty());
    }

    #[test]
    fn what_is_not_understood_is_refused_by_key() {
        let ci = |limits: &str| format!("roles {{ registrar \"spiffe://example.org/ci\" {{ {limits} }} }}");
        let key = "server.roles.registrar.spiffe://example.org/ci";
        for (roles, says) in [
            ("roles { registar \"spiffe://a/b\" {} }".to_owned(), "did you mean registrar?".to_owned()),
            ("roles { reader \"ci\" {} }".into(), "server.roles.reader: \"ci\" is neither".into()),
            (
                "roles { reader \"unix:uid:me\" {} }".into(),
                "is neither a SPIFFE ID nor unix:uid:NUMBER".into(),
            ),
            (
                "roles { reader \"spiffe://a/b\" { verbs = [] } }".into(),
                "verbs (line 4) is not a known key".into(),
            ),
            ("roles { reader = true }".into(), "must be a block".into()),
            ("roles { registrar { verbs = [] } }".into(), "must be a block".into()),
            ("roles = []".into(), "server.roles (line 4) must be a block".into()),
            (ci("verbs = [\"create\"]"), format!("{key}.path_prefix is required")),
            (ci("path_prefix = \"/a\""), format!("{key}.verbs is required")),
            (ci("path_prefix = \"/a\" verbs = []"), format!("{key}.verbs: write at least one")),
            (ci("path_prefix = \"/a\" verbs = [\"ban\"]"), format!("{key}.verbs: \"ban\" is nothing")),
            (
                ci("path_prefix = \"a\" verbs = [\"create\"]"),
                format!("{key}.path_prefix: \"a\" is not a path prefix"),
            ),
            (ci("path_prefx = \"a\""), "did you mean path_prefix?".into()),
            (
                ci("path_prefix = \"/a\" verbs = [\"create\"] max_x509_svid_ttl = \"0s\""),
                format!("{key}.max_x509_svid_ttl: a lifetime of zero"),
            ),
            (
                ci("path_prefix = \"/a\" verbs = [\"create\"] allow_admin = \"perhaps\""),
                format!("{key}.allow_admin"),
            ),
        ] {
            let fault = load(&roles).expect_err(&roles).to_string();
            assert!(fault.contains(&says), "{roles}: {says:?} is not in {fault:?}");
        }
    }
}
