//! Values of these tests: names, entries, requests and roles, and how answers are read.

use super::*;

/// `example.org`.
pub(crate) fn trust_domain() -> TrustDomain {
    "example.org".parse().unwrap()
}

/// `spiffe://example.org` + `path`.
pub(crate) fn id(path: &str) -> SpiffeId {
    trust_domain().member(path).unwrap()
}

/// The same on the wire.
pub(crate) fn wire_id(path: &str) -> types::Spiffeid {
    foreign_id("example.org", path)
}

/// An ID on the wire, checked by nobody.
pub(crate) fn foreign_id(trust_domain: &str, path: &str) -> types::Spiffeid {
    types::Spiffeid { trust_domain: trust_domain.into(), path: path.into() }
}

/// `type:value` on the wire.
pub(crate) fn selector(text: &str) -> types::Selector {
    let (kind, value) = text.split_once(':').unwrap();
    types::Selector { r#type: kind.into(), value: value.into() }
}

/// A wire entry for `path` below `parent`.
pub(crate) fn entry(parent: &SpiffeId, path: &str, selectors: &[&str]) -> types::Entry {
    types::Entry {
        spiffe_id: Some(wire_id(path)),
        parent_id: Some(spiffe_id_to_proto(parent)),
        selectors: selectors.iter().map(|text| selector(text)).collect(),
        ..Default::default()
    }
}

/// A certificate request for a fresh key, without names.
pub(crate) fn csr() -> Vec<u8> {
    csr_of(&Key::generate(KeyType::EcP256).unwrap())
}

/// A certificate request for `key`, without names.
pub(crate) fn csr_of(key: &Key) -> Vec<u8> {
    certificate_request(key, None, &[]).unwrap()
}

/// The SVID in an answer.
pub(crate) fn parse_svid(wire: &types::X509svid) -> X509Svid {
    X509Svid::parse(wire.cert_chain.iter().map(|der| der.to_vec().into()).collect()).unwrap()
}

/// The message of a refusal with that code and reason.
#[track_caller]
pub(crate) fn expect_refusal<T: std::fmt::Debug>(
    answer: Result<T, Status>,
    code: Code,
    reason: Reason,
) -> String {
    let status = answer.expect_err("a refusal");
    assert_eq!(status.code(), code, "{status:?}");
    assert_eq!(reason_of(&status).as_deref(), Some(reason.code()), "{status:?}");
    status.message().to_owned()
}

/// The code of one item of a batch.
pub(crate) fn code_of(status: &Option<types::Status>) -> Code {
    Code::from(status.as_ref().unwrap().code)
}

/// The user of this process.
pub(crate) fn own_uid() -> u32 {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap())
}

/// A role on the wire; a registrar's is for everything below `/ci`, below parents there too.
pub(crate) fn grant_of(role: Role) -> admin_api::Grant {
    let bare = admin_api::Grant { role: role.as_str().into(), ..Default::default() };
    match role {
        Role::Reader | Role::Operator => bare,
        Role::Registrar => admin_api::Grant {
            path_prefix: "/ci/".into(),
            verbs: Verb::ALL.iter().map(|verb| verb.as_str().into()).collect(),
            ..bare
        },
    }
}

/// The same role, given by the configuration.
pub(crate) fn assignment(subject: RoleSubject, role: Role) -> RoleAssignment {
    let prefix: PathPrefix = "/ci/".parse().unwrap();
    let grant = match role {
        Role::Reader => Grant::Reader,
        Role::Operator => Grant::Operator,
        Role::Registrar => Grant::Registrar(EntryRules {
            path_prefix: prefix.clone(),
            parent_path_prefix: prefix,
            verbs: Verb::ALL.to_vec(),
            max_x509_svid_ttl_secs: None,
            max_jwt_svid_ttl_secs: None,
            allow_admin: false,
            allow_downstream: false,
        }),
    };
    RoleAssignment { subject, grant }
}
