//! What a broker says to name a workload (Broker API 3.1), as a checked value, for both ends of a call.
//!
//! Pure. What is refused here an agent answers with InvalidArgument, and our own broker does not send. Start at [`Reference`].

mod kubernetes;

pub use kubernetes::{Key, Object, ObjectFault};

use std::num::NonZero;

use prost::Message;
use prost_types::Any;

use crate::broker::{KubernetesObjectReference, WorkloadPidReference, WorkloadReference};

/// The type of [`Reference::Process`].
pub const PID: &str = "type.googleapis.com/spiffe.broker.WorkloadPIDReference";

/// The type of [`Reference::Object`].
pub const OBJECT: &str = "type.googleapis.com/spiffe.broker.KubernetesObjectReference";

/// The longest type that is repeated in a message, in characters.
const TYPE_SHOWN_MAX: usize = 100;

/// One workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// By the number of its process.
    Process(NonZero<u32>),
    /// As a Kubernetes object.
    Object(Object),
}

/// What is wrong with a reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// There is none.
    #[error("the request names no workload")]
    Missing,
    /// It does not say what it is.
    #[error("the reference has no type")]
    NoType,
    /// It is of a kind that nobody here knows.
    #[error("references of type {0:?} are not understood")]
    UnknownType(String),
    /// Its bytes are not a message.
    #[error("the reference is not an encoded message of its type")]
    Encoding,
    /// No process has such a number.
    #[error("the process number {0} is not positive")]
    Pid(i32),
    /// Whoever was asked has no way to look for objects of that kind and group.
    #[error("nothing here can look up {0} of the group {1}")]
    Unresolved(String, String),
    /// The object's reference is not as it should be.
    #[error(transparent)]
    Object(#[from] ObjectFault),
}

impl Reference {
    /// A process by its number.
    ///
    /// # Errors
    /// When the number is not positive.
    pub fn process(pid: i32) -> Result<Self, Invalid> {
        let number = u32::try_from(pid).ok().and_then(NonZero::new);
        number.map(Self::Process).ok_or(Invalid::Pid(pid))
    }

    /// The workload of a request.
    ///
    /// # Errors
    /// What is missing or wrong.
    pub fn of(reference: Option<WorkloadReference>) -> Result<Self, Invalid> {
        let any = reference.and_then(|one| one.reference).ok_or(Invalid::Missing)?;
        match any.type_url.as_str() {
            "" => Err(Invalid::NoType),
            PID => {
                let WorkloadPidReference { pid } =
                    Message::decode(any.value.as_slice()).map_err(|_| Invalid::Encoding)?;
                Self::process(pid)
            }
            OBJECT => {
                let object: KubernetesObjectReference =
                    Message::decode(any.value.as_slice()).map_err(|_| Invalid::Encoding)?;
                Ok(Self::Object(object.try_into()?))
            }
            other => Err(Invalid::UnknownType(other.chars().take(TYPE_SHOWN_MAX).collect())),
        }
    }

    /// As it stands in a request.
    pub fn to_message(&self) -> WorkloadReference {
        let value = match self {
            // Numbers above the message's range come from no message and no kernel.
            Self::Process(number) => {
                WorkloadPidReference { pid: i32::try_from(number.get()).unwrap_or(i32::MAX) }.encode_to_vec()
            }
            Self::Object(object) => KubernetesObjectReference::from(object).encode_to_vec(),
        };
        WorkloadReference { reference: Some(Any { type_url: self.type_url().into(), value }) }
    }

    /// Its type, as brokers' permissions name it.
    pub fn type_url(&self) -> &'static str {
        match self {
            Self::Process(_) => PID,
            Self::Object(_) => OBJECT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(type_url: &str, value: Vec<u8>) -> Result<Reference, Invalid> {
        Reference::of(Some(WorkloadReference { reference: Some(Any { type_url: type_url.into(), value }) }))
    }

    fn pid(pid: i32) -> Result<Reference, Invalid> {
        of(PID, WorkloadPidReference { pid }.encode_to_vec())
    }

    #[test]
    fn bap_17_a_process_number_is_positive() {
        assert_eq!(pid(7), Ok(Reference::Process(NonZero::new(7).unwrap())));
        for wrong in [0, -1, i32::MIN] {
            assert_eq!(pid(wrong), Err(Invalid::Pid(wrong)));
        }
    }

    #[test]
    fn bap_10_bap_11_what_is_missing_empty_or_not_understood_is_told_apart() {
        assert_eq!(Reference::of(None), Err(Invalid::Missing));
        assert_eq!(Reference::of(Some(WorkloadReference { reference: None })), Err(Invalid::Missing));
        assert_eq!(of("", Vec::new()), Err(Invalid::NoType));
        let vendor = "type.googleapis.com/vendor.Thing";
        assert_eq!(of(vendor, Vec::new()), Err(Invalid::UnknownType(vendor.into())));
        let bare = "spiffe.broker.WorkloadPIDReference";
        assert_eq!(of(bare, Vec::new()), Err(Invalid::UnknownType(bare.into())));
        assert_eq!(of(PID, vec![0xff]), Err(Invalid::Encoding));
        assert_eq!(of(OBJECT, vec![0xff]), Err(Invalid::Encoding));
        let long = of(&"x".repeat(100_000), Vec::new()).unwrap_err();
        assert!(long.to_string().len() < 200);
    }

    #[test]
    fn bap_10_a_reference_is_the_same_at_both_ends() {
        let uid = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
        let pod = |key: Option<(&str, &str)>, uid: Option<&str>| {
            let key = key.map(|(namespace, name)| Key { namespace: namespace.into(), name: name.into() });
            Reference::Object(Object {
                plural: "pods".into(),
                group: "core".into(),
                key,
                uid: uid.map(str::to_owned),
            })
        };
        for reference in [
            Reference::process(7).unwrap(),
            Reference::process(i32::MAX).unwrap(),
            pod(Some(("shop", "web-0")), None),
            pod(None, Some(uid)),
            pod(Some(("shop", "web-0")), Some(uid)),
        ] {
            assert_eq!(Reference::of(Some(reference.to_message())), Ok(reference));
        }
    }
}
