//! `WorkloadAttestor "k8s"`: where the kubelet of this node is, and how each side shows who it is.

use std::path::PathBuf;

/// The kubelet of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeletConfig {
    /// The node's name, by which the kubelet is called and, over TLS, recognised; none calls this machine, and then the name in
    /// the certificate does not count.
    pub node_name: Option<String>,
    /// Which of its ports.
    pub port: KubeletPort,
}

/// A port of a kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KubeletPort {
    /// Plain HTTP for anybody.
    ReadOnly(u16),
    /// HTTPS.
    Secure {
        /// The number.
        port: u16,
        /// How the kubelet is recognised.
        trust: KubeletTrust,
        /// What it is shown.
        credentials: KubeletCredentials,
    },
}

/// How the kubelet is recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KubeletTrust {
    /// Not at all.
    Anyone,
    /// By the authorities in a PEM file, which is read for each call.
    Authorities(PathBuf),
}

/// What the kubelet is shown. Files are read for each call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KubeletCredentials {
    /// Nothing.
    Anonymous,
    /// A bearer token in a file.
    Token(PathBuf),
    /// A certificate and its key, in PEM files.
    Certificate {
        /// The chain.
        certificate: PathBuf,
        /// The key.
        private_key: PathBuf,
    },
}
