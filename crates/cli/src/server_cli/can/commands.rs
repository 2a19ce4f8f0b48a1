//! The commands of this binary that `can` may be asked about, and the methods that each comes down to.
//!
//! What a command only does with some of its flags is not among them: `entry apply -prune` needs `entry delete` besides.
//! Start at [`methods_of`].

/// What the words after `can` name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// A command, or a verb of entries: all of these methods are needed.
    Methods(Vec<String>),
    /// A command that works on files alone.
    Local,
    /// None of the commands; it may be a method.
    Other,
}

/// Commands and verbs, and the methods that they call, with the packages shortened.
const COMMANDS: &[(&str, &[&str])] = &[
    ("create", &["entry.v1.Entry/BatchCreateEntry"]),
    ("update", &["entry.v1.Entry/BatchUpdateEntry"]),
    ("delete", &["entry.v1.Entry/BatchDeleteEntry"]),
    ("healthcheck", &["/grpc.health.v1.Health/Check"]),
    ("entry create", &["entry.v1.Entry/BatchCreateEntry"]),
    ("entry update", &["entry.v1.Entry/BatchUpdateEntry"]),
    ("entry delete", &["entry.v1.Entry/BatchDeleteEntry"]),
    ("entry show", &["entry.v1.Entry/ListEntries"]),
    ("entry count", &["entry.v1.Entry/CountEntries"]),
    (
        "entry apply",
        &[
            "bundle.v1.Bundle/GetBundle",
            "entry.v1.Entry/ListEntries",
            "entry.v1.Entry/BatchCreateEntry",
            "entry.v1.Entry/BatchUpdateEntry",
        ],
    ),
    (
        "entry lint",
        &[
            "bundle.v1.Bundle/GetBundle",
            "entry.v1.Entry/ListEntries",
            "agent.v1.Agent/ListAgents",
            "bundle.v1.Bundle/GetFederatedBundle",
        ],
    ),
    ("agent list", &["agent.v1.Agent/ListAgents"]),
    ("agent count", &["agent.v1.Agent/CountAgents"]),
    ("agent show", &["agent.v1.Agent/GetAgent"]),
    ("agent ban", &["agent.v1.Agent/BanAgent"]),
    ("agent evict", &["agent.v1.Agent/DeleteAgent"]),
    ("agent purge", &["agent.v1.Agent/ListAgents", "agent.v1.Agent/DeleteAgent"]),
    ("token generate", &["agent.v1.Agent/CreateJoinToken"]),
    ("localauthority x509 show", &["localauthority.v1.LocalAuthority/GetX509AuthorityState"]),
    ("localauthority x509 prepare", &["localauthority.v1.LocalAuthority/PrepareX509Authority"]),
    ("localauthority x509 activate", &["localauthority.v1.LocalAuthority/ActivateX509Authority"]),
    ("localauthority x509 taint", &["localauthority.v1.LocalAuthority/TaintX509Authority"]),
    ("localauthority x509 revoke", &["localauthority.v1.LocalAuthority/RevokeX509Authority"]),
    ("localauthority jwt show", &["localauthority.v1.LocalAuthority/GetJWTAuthorityState"]),
    ("localauthority jwt prepare", &["localauthority.v1.LocalAuthority/PrepareJWTAuthority"]),
    ("localauthority jwt activate", &["localauthority.v1.LocalAuthority/ActivateJWTAuthority"]),
    ("localauthority jwt taint", &["localauthority.v1.LocalAuthority/TaintJWTAuthority"]),
    ("localauthority jwt revoke", &["localauthority.v1.LocalAuthority/RevokeJWTAuthority"]),
    ("localauthority wit show", &["localauthority.v1.LocalAuthority/GetWITAuthorityState"]),
    ("localauthority wit prepare", &["localauthority.v1.LocalAuthority/PrepareWITAuthority"]),
    ("localauthority wit activate", &["localauthority.v1.LocalAuthority/ActivateWITAuthority"]),
    ("localauthority wit taint", &["localauthority.v1.LocalAuthority/TaintWITAuthority"]),
    ("localauthority wit revoke", &["localauthority.v1.LocalAuthority/RevokeWITAuthority"]),
    ("upstreamauthority taint", &["localauthority.v1.LocalAuthority/TaintX509UpstreamAuthority"]),
    ("upstreamauthority revoke", &["localauthority.v1.LocalAuthority/RevokeX509UpstreamAuthority"]),
    ("bundle show", &["bundle.v1.Bundle/GetBundle"]),
    ("bundle list", &["bundle.v1.Bundle/ListFederatedBundles"]),
    ("bundle set", &["bundle.v1.Bundle/BatchSetFederatedBundle"]),
    ("bundle delete", &["bundle.v1.Bundle/BatchDeleteFederatedBundle"]),
    ("bundle count", &["bundle.v1.Bundle/CountBundles"]),
    ("logger get", &["logger.v1.Logger/GetLogger"]),
    ("logger set", &["logger.v1.Logger/SetLogLevel"]),
    ("logger reset", &["logger.v1.Logger/ResetLogLevel"]),
    ("debug getinfo", &["debug.v1.Debug/GetInfo"]),
    ("federation create", &["trustdomain.v1.TrustDomain/BatchCreateFederationRelationship"]),
    ("federation update", &["trustdomain.v1.TrustDomain/BatchUpdateFederationRelationship"]),
    ("federation show", &["trustdomain.v1.TrustDomain/GetFederationRelationship"]),
    ("federation list", &["trustdomain.v1.TrustDomain/ListFederationRelationships"]),
    ("federation delete", &["trustdomain.v1.TrustDomain/BatchDeleteFederationRelationship"]),
    ("federation refresh", &["trustdomain.v1.TrustDomain/RefreshBundle"]),
    ("jwt mint", &["svid.v1.SVID/MintJWTSVID"]),
    ("wit mint", &["svid.v1.SVID/MintWITSVID"]),
    ("x509 mint", &["svid.v1.SVID/MintX509SVID"]),
    ("can", &["/spindle.admin.v1.Roles/Can"]),
    ("role show", &["/spindle.admin.v1.Roles/ListRoles"]),
    ("role grant", &["/spindle.admin.v1.Roles/GrantRole"]),
    ("role revoke", &["/spindle.admin.v1.Roles/RevokeRole"]),
    ("backup", &["/spindle.admin.v1.Backup/Read"]),
    (
        "export",
        &[
            "bundle.v1.Bundle/GetBundle",
            "entry.v1.Entry/ListEntries",
            "bundle.v1.Bundle/ListFederatedBundles",
            "trustdomain.v1.TrustDomain/ListFederationRelationships",
        ],
    ),
    (
        "import",
        &[
            "bundle.v1.Bundle/GetBundle",
            "entry.v1.Entry/ListEntries",
            "bundle.v1.Bundle/ListFederatedBundles",
            "trustdomain.v1.TrustDomain/ListFederationRelationships",
            "bundle.v1.Bundle/BatchCreateFederatedBundle",
            "trustdomain.v1.TrustDomain/BatchCreateFederationRelationship",
            "bundle.v1.Bundle/GetFederatedBundle",
            "entry.v1.Entry/BatchCreateEntry",
        ],
    ),
];

/// Commands that call no server.
const LOCAL: &[&str] = &[
    "run",
    "validate",
    "restore",
    "store copy",
    "store export",
    "store import",
    "store accept-restored",
    "completion",
    "man",
];

/// What these words name, as they follow the name of the binary.
pub(super) fn methods_of(words: &str) -> Named {
    if LOCAL.contains(&words) {
        return Named::Local;
    }
    match COMMANDS.iter().find(|(command, _)| *command == words) {
        Some((_, methods)) => Named::Methods(methods.iter().map(|method| path(method)).collect()),
        None => Named::Other,
    }
}

/// The whole path of a method; most are of SPIRE's server.
fn path(method: &str) -> String {
    if method.starts_with('/') { method.into() } else { format!("/spire.api.server.{method}") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;
    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    /// The commands below this one that have none below themselves.
    fn leaves(command: &clap::Command, above: &str, found: &mut BTreeSet<String>) {
        for one in command.get_subcommands() {
            let words = format!("{above} {}", one.get_name()).trim_start().to_owned();
            match one.has_subcommands() {
                true => leaves(one, &words, found),
                false => drop(found.insert(words)),
            }
        }
    }

    #[test]
    fn every_command_of_the_binary_can_be_asked_about_and_nothing_else_is_listed() {
        let mut all = BTreeSet::new();
        leaves(&crate::server_cli::Args::command(), "", &mut all);
        assert!(all.contains("entry create") && all.contains("localauthority jwt show"), "{all:?}");
        let calling = COMMANDS.iter().map(|(command, _)| *command);
        let listed: Vec<&str> = calling.chain(LOCAL.iter().copied()).collect();
        for command in &all {
            let times = listed.iter().filter(|one| *one == command).count();
            assert_eq!(
                times, 1,
                "`{command}` needs a row of its methods, or one among those that call nobody"
            );
        }
        let verbs = ["create", "update", "delete"];
        let stale = listed.iter().find(|one| !all.contains(**one) && !verbs.contains(one));
        assert_eq!(stale, None, "no such command");
    }

    #[test]
    fn every_command_comes_down_to_methods_that_there_are() {
        let mut methods = BTreeSet::new();
        for set in [spindle_proto::SERVER_DESCRIPTOR_SET, tonic_health::pb::FILE_DESCRIPTOR_SET] {
            for file in &FileDescriptorSet::decode(set).unwrap().file {
                for service in &file.service {
                    let of = |method: &str| format!("/{}.{}/{method}", file.package(), service.name());
                    methods.extend(service.method.iter().map(|method| of(method.name())));
                }
            }
        }
        for (command, needed) in COMMANDS {
            assert!(!needed.is_empty(), "{command}");
            for method in *needed {
                assert!(methods.contains(&path(method)), "{command}: {method}");
            }
        }
    }

    #[test]
    fn words_that_name_no_command_are_left_to_the_server() {
        for words in ["BatchCreateEntry", "entry", "entry creat", "bundle  set", ""] {
            assert_eq!(methods_of(words), Named::Other, "{words}");
        }
        assert_eq!(methods_of("store copy"), Named::Local);
    }
}
