//! A reference to a Kubernetes object, as a checked value (Broker API 3.1.3).
//!
//! Pure. Names have the forms that Kubernetes gives them. Which kinds live in namespaces is known for those of Kubernetes
//! itself; for others both forms are taken. Start at the conversion into [`Object`].

use crate::broker::{KubernetesObjectKey, KubernetesObjectReference, KubernetesObjectType};

/// The name of the group without a name.
const CORE: &str = "core";

/// The longest name or part of a name in Kubernetes, in bytes.
const NAME_BYTES_MAX: usize = 253;

/// The longest namespace or plural, in bytes.
const LABEL_BYTES_MAX: usize = 63;

/// Kinds that live in namespaces, by group.
const NAMESPACED: &[(&str, &[&str])] = &[
    (
        CORE,
        &[
            "configmaps",
            "endpoints",
            "events",
            "limitranges",
            "persistentvolumeclaims",
            "pods",
            "podtemplates",
            "replicationcontrollers",
            "resourcequotas",
            "secrets",
            "serviceaccounts",
            "services",
        ],
    ),
    ("apps", &["controllerrevisions", "daemonsets", "deployments", "replicasets", "statefulsets"]),
    ("batch", &["cronjobs", "jobs"]),
];

/// Kinds that live in no namespace, by group.
const CLUSTER_WIDE: &[(&str, &[&str])] = &[(CORE, &["namespaces", "nodes", "persistentvolumes"])];

/// One object: by its key, its uid or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Such as `pods`.
    pub plural: String,
    /// The API group, or `core`.
    pub group: String,
    /// Which one of its kind.
    pub key: Option<Key>,
    /// In lower case.
    pub uid: Option<String>,
}

/// Where an object is found. The namespace is empty for kinds that live in none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Where it lives.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

/// What is wrong with a reference to an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectFault {
    /// A field, by its name in the message, is not set.
    #[error("the object's {0} is missing")]
    Missing(&'static str),
    /// A field cannot have that value.
    #[error("the object's {0} is not of the form that Kubernetes gives it")]
    Form(&'static str),
    /// Objects of that kind have a namespace.
    #[error("{0} live in namespaces, and the key has none")]
    NeedsNamespace(String),
    /// Objects of that kind have none.
    #[error("{0} live in no namespace, and the key has one")]
    HasNoNamespace(String),
    /// Nothing says which object it is.
    #[error("the object has neither a key nor a uid")]
    Unnamed,
}

impl Object {
    /// Whether it is a pod, the one kind that a kubelet knows.
    pub fn is_pod(&self) -> bool {
        self.plural == "pods" && self.group == CORE
    }

    fn is_in(&self, table: &[(&str, &[&str])]) -> bool {
        table.iter().any(|(group, kinds)| *group == self.group && kinds.contains(&self.plural.as_str()))
    }

    fn check_scope(&self) -> Result<(), ObjectFault> {
        match &self.key {
            Some(key) if key.namespace.is_empty() && self.is_in(NAMESPACED) => {
                Err(ObjectFault::NeedsNamespace(self.plural.clone()))
            }
            Some(key) if !key.namespace.is_empty() && self.is_in(CLUSTER_WIDE) => {
                Err(ObjectFault::HasNoNamespace(self.plural.clone()))
            }
            _ => Ok(()),
        }
    }
}

impl From<&Object> for KubernetesObjectReference {
    fn from(object: &Object) -> Self {
        let Object { plural, group, key, uid } = object.clone();
        Self {
            r#type: Some(KubernetesObjectType { plural, group }),
            key: key.map(|Key { namespace, name }| KubernetesObjectKey { namespace, name }),
            uid: uid.unwrap_or_default(),
        }
    }
}

impl TryFrom<KubernetesObjectReference> for Object {
    type Error = ObjectFault;

    /// Checks what the standard asks of a reference, and the forms of all names.
    fn try_from(reference: KubernetesObjectReference) -> Result<Self, ObjectFault> {
        let kind = reference.r#type.ok_or(ObjectFault::Missing("type"))?;
        checked("type.plural", &kind.plural, LABEL_BYTES_MAX, is_label)?;
        checked("type.group", &kind.group, NAME_BYTES_MAX, is_name)?;
        let key = reference.key.map(Key::try_from).transpose()?;
        let uid = match reference.uid.as_str() {
            "" => None,
            uid if is_uuid(uid) => Some(uid.to_ascii_lowercase()),
            _ => return Err(ObjectFault::Form("uid")),
        };
        if key.is_none() && uid.is_none() {
            return Err(ObjectFault::Unnamed);
        }
        let object = Self { plural: kind.plural, group: kind.group, key, uid };
        object.check_scope()?;
        Ok(object)
    }
}

impl TryFrom<KubernetesObjectKey> for Key {
    type Error = ObjectFault;

    fn try_from(key: KubernetesObjectKey) -> Result<Self, ObjectFault> {
        checked("key.name", &key.name, NAME_BYTES_MAX, is_name)?;
        if !key.namespace.is_empty() {
            checked("key.namespace", &key.namespace, LABEL_BYTES_MAX, is_label)?;
        }
        Ok(Self { namespace: key.namespace, name: key.name })
    }
}

fn checked(
    what: &'static str,
    text: &str,
    bytes_max: usize,
    is_good: fn(&str) -> bool,
) -> Result<(), ObjectFault> {
    match text {
        "" => Err(ObjectFault::Missing(what)),
        text if text.len() <= bytes_max && is_good(text) => Ok(()),
        _ => Err(ObjectFault::Form(what)),
    }
}

/// RFC 1123: lower-case letters, digits and `-` between them.
fn is_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.bytes().all(is_inner) && !text.is_empty() && !text.starts_with('-') && !text.ends_with('-')
}

/// Labels with dots between them.
fn is_name(text: &str) -> bool {
    text.split('.').all(is_label)
}

/// RFC 9562: groups of 8, 4, 4, 4 and 12 hexadecimal digits.
fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let are_long_enough = groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]);
    are_long_enough && groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";

    fn object(kind: [&str; 2], key: Option<[&str; 2]>, uid: &str) -> Result<Object, ObjectFault> {
        let [plural, group] = kind.map(String::from);
        let key = key.map(|key| key.map(String::from));
        Object::try_from(KubernetesObjectReference {
            r#type: Some(KubernetesObjectType { plural, group }),
            key: key.map(|[namespace, name]| KubernetesObjectKey { namespace, name }),
            uid: uid.into(),
        })
    }

    const PODS: [&str; 2] = ["pods", "core"];

    #[test]
    fn bap_19_type_plural_and_type_group_are_both_required() {
        let untyped = KubernetesObjectReference { uid: UID.into(), ..KubernetesObjectReference::default() };
        assert_eq!(Object::try_from(untyped), Err(ObjectFault::Missing("type")));
        assert_eq!(object(["", "core"], None, UID), Err(ObjectFault::Missing("type.plural")));
        assert_eq!(object(["pods", ""], None, UID), Err(ObjectFault::Missing("type.group")));
    }

    #[test]
    fn bap_20_core_resources_are_of_the_group_core_and_others_of_their_api_group() {
        assert!(object(PODS, Some(["shop", "web-0"]), "").unwrap().is_pod());
        assert_eq!(
            object(["pods", ""], Some(["shop", "web-0"]), ""),
            Err(ObjectFault::Missing("type.group"))
        );
        assert!(!object(["deployments", "apps"], Some(["shop", "web"]), "").unwrap().is_pod());
        assert!(!object(["pods", "metrics.k8s.io"], Some(["shop", "web"]), "").unwrap().is_pod());
        assert_eq!(object(["pods", "Core"], None, UID), Err(ObjectFault::Form("type.group")));
    }

    #[test]
    fn bap_21_a_namespace_is_set_for_kinds_that_live_in_one_and_only_for_those() {
        assert_eq!(object(PODS, Some(["", "web-0"]), ""), Err(ObjectFault::NeedsNamespace("pods".into())));
        let nodes = ["nodes", "core"];
        assert_eq!(object(nodes, Some(["shop", "n"]), ""), Err(ObjectFault::HasNoNamespace("nodes".into())));
        assert!(object(nodes, Some(["", "n"]), "").is_ok());
        for namespace in ["", "shop"] {
            assert!(object(["things", "example.com"], Some([namespace, "a.b"]), "").is_ok());
        }
    }

    #[test]
    fn bap_22_a_key_has_a_name() {
        assert_eq!(object(PODS, Some(["shop", ""]), UID), Err(ObjectFault::Missing("key.name")));
        for name in ["Web", "web_0", "-web", "web-", "a..b", "web/0", &"x".repeat(254)] {
            assert_eq!(object(PODS, Some(["shop", name]), ""), Err(ObjectFault::Form("key.name")), "{name}");
        }
        assert_eq!(object(PODS, Some(["a.b", "web"]), ""), Err(ObjectFault::Form("key.namespace")));
    }

    #[test]
    fn bap_23_a_key_or_a_uid_is_given() {
        assert_eq!(object(PODS, None, ""), Err(ObjectFault::Unnamed));
        assert!(object(PODS, None, UID).is_ok());
        assert!(object(PODS, Some(["shop", "web-0"]), UID).is_ok());
    }

    #[test]
    fn bap_26_a_uid_is_a_uuid() {
        assert_eq!(object(PODS, None, &UID.to_uppercase()).unwrap().uid.as_deref(), Some(UID));
        for uid in ["xyz", &UID[1..], &format!("{UID}0"), &UID.replace('-', ""), &UID.replace('f', "g")] {
            assert_eq!(object(PODS, None, uid), Err(ObjectFault::Form("uid")), "{uid}");
        }
    }
}
