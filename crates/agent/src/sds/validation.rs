//! How a proxy is told whom to accept: by Envoy's SPIFFE validator, or by plain certificates of authorities.
//!
//! Follows from the agent's configuration and from what the proxy says about itself, which decides over nothing else.

use prost_types::value::Kind;
use spindle_proto::envoy::config::core::v3::Node;
use spindle_proto::envoy::config::core::v3::node::UserAgentVersionType;

/// The key in the metadata of a proxy, named like the agent's setting, which it overrides.
const DISABLE_KEY: &str = "disable_spiffe_cert_validation";

/// The last Envoy without the validator, as SPIRE has it.
const WITHOUT_VALIDATOR: (u32, u32) = (1, 17);

/// The form of validation contexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Validation {
    /// For the SPIFFE validator: each SVID is judged by the bundle of its own trust domain.
    Spiffe,
    /// Certificates of authorities, whatever trust domain they speak for.
    PlainCa,
}

impl Validation {
    /// The agent's choice for proxies that say nothing.
    pub(super) fn configured(is_disabled: bool) -> Self {
        if is_disabled { Self::PlainCa } else { Self::Spiffe }
    }

    /// The form for this proxy.
    pub(super) fn of(node: &Node, configured: Self) -> Self {
        let wanted = node
            .metadata
            .as_ref()
            .and_then(|metadata| metadata.fields.get(DISABLE_KEY))
            .and_then(|value| flag(value.kind.as_ref()?))
            .map_or(configured, Self::configured);
        if lacks_validator(node) { Self::PlainCa } else { wanted }
    }
}

/// A proxy that does not tell its version is taken for a new one.
fn lacks_validator(node: &Node) -> bool {
    let Some(UserAgentVersionType::UserAgentBuildVersion(build)) = &node.user_agent_version_type else {
        return false;
    };
    build
        .version
        .as_ref()
        .is_some_and(|version| (version.major_number, version.minor_number) <= WITHOUT_VALIDATOR)
}

/// A truth value, or the texts that SPIRE takes for one. Anything else counts as not there.
fn flag(kind: &Kind) -> Option<bool> {
    match kind {
        Kind::BoolValue(value) => Some(*value),
        Kind::StringValue(text) => match text.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use prost_types::{Struct, Value};
    use spindle_proto::envoy::config::core::v3::BuildVersion;
    use spindle_proto::envoy::r#type::v3::SemanticVersion;

    use super::*;

    fn with_metadata(kind: Kind) -> Node {
        let fields = [(DISABLE_KEY.to_owned(), Value { kind: Some(kind) })].into();
        Node { metadata: Some(Struct { fields }), ..Node::default() }
    }

    fn with_version(major_number: u32, minor_number: u32) -> Node {
        let version = Some(SemanticVersion { major_number, minor_number, patch: 0 });
        let build = BuildVersion { version, metadata: None };
        Node {
            user_agent_version_type: Some(UserAgentVersionType::UserAgentBuildVersion(build)),
            ..Node::default()
        }
    }

    #[test]
    fn the_configuration_decides_for_proxies_that_say_nothing() {
        assert_eq!(Validation::of(&Node::default(), Validation::configured(false)), Validation::Spiffe);
        assert_eq!(Validation::of(&Node::default(), Validation::configured(true)), Validation::PlainCa);
    }

    #[test]
    fn the_metadata_of_a_proxy_wins_over_the_configuration() {
        for (kind, expected) in [
            (Kind::BoolValue(true), Validation::PlainCa),
            (Kind::StringValue("true".into()), Validation::PlainCa),
            (Kind::StringValue("T".into()), Validation::PlainCa),
            (Kind::BoolValue(false), Validation::Spiffe),
            (Kind::StringValue("0".into()), Validation::Spiffe),
        ] {
            for configured in [Validation::Spiffe, Validation::PlainCa] {
                assert_eq!(Validation::of(&with_metadata(kind.clone()), configured), expected, "{kind:?}");
            }
        }
    }

    #[test]
    fn metadata_of_another_kind_counts_as_not_there() {
        for kind in [Kind::StringValue("yes".into()), Kind::NumberValue(1.0), Kind::NullValue(0)] {
            for configured in [Validation::Spiffe, Validation::PlainCa] {
                assert_eq!(Validation::of(&with_metadata(kind.clone()), configured), configured, "{kind:?}");
            }
        }
    }

    #[test]
    fn an_old_envoy_gets_plain_authorities_whatever_is_asked_for() {
        for (major, minor, expected) in [
            (0, 99, Validation::PlainCa),
            (1, 16, Validation::PlainCa),
            (1, 17, Validation::PlainCa),
            (1, 18, Validation::Spiffe),
            (2, 0, Validation::Spiffe),
        ] {
            assert_eq!(Validation::of(&with_version(major, minor), Validation::Spiffe), expected);
        }
        let asks = with_metadata(Kind::BoolValue(false));
        let old = Node { user_agent_version_type: with_version(1, 17).user_agent_version_type, ..asks };
        assert_eq!(Validation::of(&old, Validation::Spiffe), Validation::PlainCa);
    }

    #[test]
    fn a_build_without_a_version_is_taken_for_a_new_one() {
        let build = BuildVersion::default();
        let kind = UserAgentVersionType::UserAgentBuildVersion(build);
        let node = Node { user_agent_version_type: Some(kind), ..Node::default() };
        assert_eq!(Validation::of(&node, Validation::Spiffe), Validation::Spiffe);
    }
}
