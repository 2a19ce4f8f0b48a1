//! The workload that a broker asks for: named once, and held where it can be, so that its name never comes to mean another.

use std::fmt;
use std::io::Read;

use spindle_attest::{Caller, ProcRoot};
use spindle_proto::broker::{
    KubernetesObjectKey, KubernetesObjectReference, KubernetesObjectType, WorkloadReference,
};
use spindle_proto::workload_reference::{Object, Reference};
use tokio::net::unix::pipe;

use crate::error::Failure;

/// How often a process is looked at that has no pidfd to tell of its end.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_secs(1);

/// What sandboxes of pods run: it keeps their namespaces and does no work (containerd and CRI-O, OpenShift).
const SANDBOXES: [&[u8]; 2] = [b"/pause", b"/usr/bin/pod"];

/// Far more than the names in [`SANDBOXES`].
const PROGRAM_BYTES_MAX: u64 = 256;

/// One workload.
pub(crate) struct Workload {
    reference: Reference,
    /// The process, when it is named by its number.
    process: Option<Caller>,
}

impl Workload {
    /// The process that has this number now.
    ///
    /// # Errors
    /// When the number is not positive, nobody has it, or whoever has it is a sandbox and no workload.
    pub(crate) fn process(pid: i32) -> Result<Self, Failure> {
        let wrong = |cause: &dyn std::error::Error| {
            Failure::because(format!("-pid {pid} names no workload"), cause)
                .try_this("name a process that runs on this machine, by its number as seen here")
        };
        let reference = Reference::process(pid).map_err(|fault| wrong(&fault))?;
        let process = Caller::of_pid(&ProcRoot::default(), pid).map_err(|fault| wrong(&fault))?;
        if is_sandbox(pid) {
            return Err(Failure::new(format!("-pid {pid} names the sandbox of a pod, and no workload"))
                .try_this("name a process of one of the pod's containers, or the pod by -pod"));
        }
        Ok(Self { reference, process: Some(process) })
    }

    /// A pod, by `NAMESPACE/NAME`, by its UID, or by both, which have to fit.
    ///
    /// # Errors
    /// When a name has another form than Kubernetes gives it.
    pub(crate) fn pod(key: Option<&str>, uid: Option<&str>) -> Result<Self, Failure> {
        let given = match (key, uid) {
            (Some(key), None) => format!("-pod {key:?}"),
            (None, Some(uid)) => format!("-podUID {uid:?}"),
            (key, uid) => format!("-pod {:?} -podUID {:?}", key.unwrap_or_default(), uid.unwrap_or_default()),
        };
        let advice = "write it like -pod shop/web-0, or -podUID 0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
        let key = match key.map(|key| key.split_once('/')) {
            None => None,
            Some(Some((namespace, name))) => {
                Some(KubernetesObjectKey { namespace: namespace.into(), name: name.into() })
            }
            Some(None) => {
                return Err(Failure::new(format!("{given} has no namespace")).try_this(advice));
            }
        };
        let object = KubernetesObjectReference {
            r#type: Some(KubernetesObjectType { plural: "pods".into(), group: "core".into() }),
            key,
            uid: uid.unwrap_or_default().into(),
        };
        let object = Object::try_from(object)
            .map_err(|fault| Failure::because(format!("{given} names no pod"), &fault).try_this(advice))?;
        Ok(Self { reference: Reference::Object(object), process: None })
    }

    /// As it is named to an agent.
    pub(crate) fn reference(&self) -> WorkloadReference {
        self.reference.to_message()
    }

    /// Whether its name means something on this host alone.
    pub(crate) fn is_of_this_host(&self) -> bool {
        matches!(self.reference, Reference::Process(_))
    }

    /// Whether it can be seen from here without the agent.
    pub(crate) fn is_held(&self) -> bool {
        self.process.is_some()
    }

    /// Whether it may still be there. As long as a process is, nobody else has its number.
    pub(crate) fn is_there(&self) -> bool {
        self.process.as_ref().is_none_or(Caller::is_running)
    }

    /// Returns when it is seen to have ended; never for what can only be seen by the agent. Cancel-safe.
    pub(crate) async fn ended(&self) {
        let Some(process) = &self.process else { return std::future::pending().await };
        // The one wrapper for foreign descriptors that tokio has without `unsafe`; nothing is read from it.
        let end = process.pidfd().and_then(|pidfd| pipe::Receiver::from_owned_fd_unchecked(pidfd).ok());
        if let Some(end) = end
            && end.readable().await.is_ok()
        {
            return;
        }
        while process.is_running() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// By the first word of its command line, which everyone may read. A workload that calls itself so harms itself alone.
fn is_sandbox(pid: i32) -> bool {
    let mut line = Vec::new();
    let file = std::fs::File::open(format!("/proc/{pid}/cmdline"));
    let read = file.and_then(|file| file.take(PROGRAM_BYTES_MAX).read_to_end(&mut line));
    read.is_ok() && line.split(|byte| *byte == 0).next().is_some_and(|word| SANDBOXES.contains(&word))
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reference {
            Reference::Process(pid) => write!(f, "process {pid}"),
            Reference::Object(Object { key: Some(key), .. }) => {
                write!(f, "pod {}/{}", key.namespace, key.name)
            }
            Reference::Object(object) => write!(f, "pod {}", object.uid.as_deref().unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process that runs until it is told to end.
    struct Running(Child);

    impl Running {
        fn start(name: &str) -> Self {
            let mut command = Command::new("cat");
            let child = command.arg0(name).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            // For a moment after `exec` it has no command line yet.
            let line = format!("/proc/{}/cmdline", child.id());
            while std::fs::read(&line).unwrap().is_empty() {
                std::thread::yield_now();
            }
            Self(child)
        }

        fn pid(&self) -> i32 {
            i32::try_from(self.0.id()).unwrap()
        }

        fn end(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            self.end();
        }
    }

    fn refused(made: Result<Workload, Failure>, why: &str) {
        let fault = made.err().unwrap();
        assert!(fault.what().contains(why) && !fault.remedies().is_empty(), "{fault}");
    }

    #[tokio::test]
    async fn bap_07_a_process_is_held_and_its_end_is_seen() {
        let (mut ending, staying) = (Running::start("cat"), Running::start("cat"));
        let workload = Workload::process(ending.pid()).unwrap();
        let other = Workload::process(staying.pid()).unwrap();
        assert!(workload.is_there() && workload.is_of_this_host());
        ending.end();
        workload.ended().await;
        assert!(!workload.is_there() && other.is_there());
        assert_eq!(workload.to_string(), format!("process {}", ending.pid()));
    }

    #[test]
    fn bap_17_a_number_that_no_process_has_is_refused() {
        for pid in [0, -1, i32::MIN] {
            refused(Workload::process(pid), "is not positive");
        }
        let mut ended = Running::start("cat");
        let pid = ended.pid();
        ended.end();
        refused(Workload::process(pid), &format!("-pid {pid} names no workload"));
    }

    #[test]
    fn bap_18_the_sandbox_of_a_pod_is_no_workload() {
        for name in ["/pause", "/usr/bin/pod"] {
            let sandbox = Running::start(name);
            refused(Workload::process(sandbox.pid()), "the sandbox of a pod");
        }
        let other = Running::start("/pauses");
        assert!(Workload::process(other.pid()).is_ok());
    }

    #[test]
    fn bap_20_bap_21_bap_22_bap_23_bap_26_a_pod_is_named_as_kubernetes_names_it() {
        const UID: &str = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
        let shown = |key, uid| Workload::pod(key, uid).unwrap().to_string();
        assert_eq!(shown(Some("shop/web-0"), None), "pod shop/web-0");
        assert_eq!(shown(Some("shop/web-0"), Some(UID)), "pod shop/web-0");
        assert_eq!(shown(None, Some(&UID.to_uppercase())), format!("pod {UID}"));
        let pod = Workload::pod(None, Some(UID)).unwrap();
        assert!(!pod.is_of_this_host() && pod.is_there());
        refused(Workload::pod(Some("web-0"), None), "has no namespace");
        refused(Workload::pod(Some("/web-0"), None), "the key has none");
        refused(Workload::pod(Some("shop/"), None), "key.name is missing");
        refused(Workload::pod(Some("shop/Web"), None), "key.name is not of the form");
        refused(Workload::pod(Some("shop/a/b"), None), "key.name is not of the form");
        refused(Workload::pod(None, Some("xyz")), "uid is not of the form");
        refused(Workload::pod(None, None), "neither a key nor a uid");
    }
}
