//! What a broker says to name a workload, as a checked value.
//!
//! Pure. Start at [`Reference::of`].

use std::num::NonZero;

use prost::Message;
use spindle_proto::broker::{KubernetesObjectReference, WorkloadPidReference, WorkloadReference};

use super::kubernetes::{Object, ObjectFault};

/// The type of [`Reference::Process`].
pub(super) const PID: &str = "type.googleapis.com/spiffe.broker.WorkloadPIDReference";

/// The type of [`Reference::Object`].
pub(super) const OBJECT: &str = "type.googleapis.com/spiffe.broker.KubernetesObjectReference";

/// The longest type that is repeated in a message, in characters.
const TYPE_SHOWN_MAX: usize = 100;

/// One workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    /// By the number of its process.
    Process(NonZero<u32>),
    /// As a Kubernetes object.
    Object(Object),
}

/// What is wrong with a reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Invalid {
    #[error("the request names no workload")]
    Missing,
    #[error("the reference has no type")]
    NoType,
    #[error("references of type {0:?} are not understood")]
    UnknownType(String),
    #[error("the reference is not an encoded message of its type")]
    Encoding,
    #[error("the process number {0} is not positive")]
    Pid(i32),
    #[error("nothing here can look up {0} of the group {1}")]
    Unresolved(String, String),
    #[error(transparent)]
    Object(#[from] ObjectFault),
}

impl Reference {
    /// The workload of a request.
    ///
    /// # Errors
    /// What is missing or wrong.
    pub(super) fn of(reference: Option<WorkloadReference>) -> Result<Self, Invalid> {
        let any = reference.and_then(|one| one.reference).ok_or(Invalid::Missing)?;
        match any.type_url.as_str() {
            "" => Err(Invalid::NoType),
            PID => {
                let WorkloadPidReference { pid } =
                    Message::decode(any.value.as_slice()).map_err(|_| Invalid::Encoding)?;
                let number = u32::try_from(pid).ok().and_then(NonZero::new);
                Ok(Self::Process(number.ok_or(Invalid::Pid(pid))?))
            }
            OBJECT => {
                let object: KubernetesObjectReference =
                    Message::decode(any.value.as_slice()).map_err(|_| Invalid::Encoding)?;
                Ok(Self::Object(object.try_into()?))
            }
            other => Err(Invalid::UnknownType(other.chars().take(TYPE_SHOWN_MAX).collect())),
        }
    }

    /// Its type, as brokers' permissions name it.
    pub(super) fn type_url(&self) -> &'static str {
        match self {
            Self::Process(_) => PID,
            Self::Object(_) => OBJECT,
        }
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Any;

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
}
