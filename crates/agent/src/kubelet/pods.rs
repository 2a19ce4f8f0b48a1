//! What a kubelet says of its pods, and the selectors that SPIRE's attestor makes of it.
//!
//! Pure. Start at [`Pods::parse`] and [`Pods::find`].

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use spindle_spiffe_core::selector::SelectorError;
use spindle_spiffe_core::{Selector, Selectors};

/// The type of all selectors, the name of SPIRE's attestor.
const TYPE: &str = "k8s";

/// The pods of one node at one moment.
#[derive(Debug, Deserialize)]
pub(crate) struct Pods {
    #[serde(default)]
    items: Vec<Pod>,
}

/// Which pod is meant: by namespace and name, uid, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodName {
    pub(crate) key: Option<(String, String)>,
    pub(crate) uid: Option<String>,
}

/// One pod. What is not used is passed over.
#[derive(Debug, Deserialize)]
pub(crate) struct Pod {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: State,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: String,
    uid: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    owner_references: Option<Vec<Owner>>,
}

#[derive(Debug, Deserialize)]
struct Owner {
    kind: String,
    name: String,
    uid: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: String,
    service_account_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct State {
    container_statuses: Option<Vec<Container>>,
    init_container_statuses: Option<Vec<Container>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Container {
    image: String,
    #[serde(rename = "imageID")]
    image_id: String,
}

impl Pods {
    /// The list in JSON, of kind `PodList`.
    pub(super) fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// The pod that is meant. One with another uid than is said is another pod (Broker API 3.1.3).
    pub(crate) fn find(&self, wanted: &PodName) -> Option<&Pod> {
        self.items.iter().find(|pod| {
            let metadata = &pod.metadata;
            let is_at = wanted
                .key
                .as_ref()
                .is_none_or(|(namespace, name)| metadata.namespace == *namespace && metadata.name == *name);
            is_at && wanted.uid.as_ref().is_none_or(|uid| metadata.uid.eq_ignore_ascii_case(uid))
        })
    }
}

impl Pod {
    /// As Kubernetes assigned it.
    pub(crate) fn uid(&self) -> &str {
        &self.metadata.uid
    }

    /// What the pod shows. Facts without a value are left out.
    ///
    /// # Errors
    /// When there are too many, or one is too long.
    pub(crate) fn selectors(&self) -> Result<Selectors, SelectorError> {
        let facts = self.facts().into_iter().filter(|(_, value)| !value.is_empty());
        let selectors: Result<Vec<Selector>, SelectorError> =
            facts.map(|(name, value)| Selector::new(TYPE, &format!("{name}:{value}"))).collect();
        Selectors::new(selectors?)
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let (metadata, spec) = (&self.metadata, &self.spec);
        let containers = self.status.container_statuses.as_deref().unwrap_or_default();
        let inits = self.status.init_container_statuses.as_deref().unwrap_or_default();
        let mut facts = vec![
            ("sa", spec.service_account_name.clone()),
            ("ns", metadata.namespace.clone()),
            ("node-name", spec.node_name.clone()),
            ("pod-uid", metadata.uid.clone()),
            ("pod-name", metadata.name.clone()),
            ("pod-image-count", containers.len().to_string()),
            ("pod-init-image-count", inits.len().to_string()),
        ];
        facts.extend(images(containers).into_iter().map(|image| ("pod-image", image.to_owned())));
        facts.extend(images(inits).into_iter().map(|image| ("pod-init-image", image.to_owned())));
        let labels = metadata.labels.iter().flatten();
        facts.extend(labels.map(|(name, value)| ("pod-label", format!("{name}:{value}"))));
        for owner in metadata.owner_references.iter().flatten() {
            facts.push(("pod-owner", format!("{}:{}", owner.kind, owner.name)));
            facts.push(("pod-owner-uid", format!("{}:{}", owner.kind, owner.uid)));
        }
        facts
    }
}

/// Each image by its name and by its digest.
fn images(containers: &[Container]) -> BTreeSet<&str> {
    containers.iter().flat_map(|one| [one.image.as_str(), one.image_id.as_str()]).collect()
}
