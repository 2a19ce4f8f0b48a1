//! The attestor trait, and the one way to make an [`AttestedCaller`].
//!
//! One failing attestor loses only its own selectors; when all fail, or the process changed meanwhile, nothing is
//! attested. Attestors run one after another on the calling thread. Start at [`attest_all`].

use std::io;
use std::sync::Arc;

use spindle_spiffe_core::selector::SelectorError;
use spindle_spiffe_core::{ErrorChain, Reason, Selector, Selectors};

use crate::caller::{Caller, CallerError};

/// Tells facts about a process as selectors.
pub trait WorkloadAttestor: Send + Sync {
    /// The plugin name, which is also the type of its selectors.
    fn name(&self) -> &str;

    /// The selectors that `caller` shows now, in any order. May block.
    ///
    /// # Errors
    /// When a fact that the configuration asks for cannot be told.
    fn attest(&self, caller: &Caller) -> Result<Vec<Selector>, AttestorError>;
}

/// Why one attestor told nothing.
#[derive(Debug, thiserror::Error)]
pub enum AttestorError {
    /// The process ended, changed or could not be read.
    #[error(transparent)]
    Caller(#[from] CallerError),
    /// The executable could not be read.
    #[error("cannot read the executable of process {pid}")]
    Executable {
        /// Process number.
        pid: i32,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The executable is over the configured size.
    #[error("the executable of process {pid} has {bytes} bytes, workload_size_limit allows {limit}")]
    TooLarge {
        /// Process number.
        pid: i32,
        /// Size of the file.
        bytes: u64,
        /// The configured limit.
        limit: u64,
    },
    /// The executable was written to while it was hashed.
    #[error("the executable of process {pid} changed while it was hashed")]
    Unsteady {
        /// Process number.
        pid: i32,
    },
    /// The executable takes too long to read.
    #[error(
        "the executable of process {pid} has {bytes} bytes and takes too long to hash; set workload_size_limit"
    )]
    TooSlow {
        /// Process number.
        pid: i32,
        /// Size of the file.
        bytes: u64,
    },
    /// A fact does not fit a selector.
    #[error("cannot express a fact about process {pid} as a selector")]
    Selector {
        /// Process number.
        pid: i32,
        /// What is wrong with it.
        source: SelectorError,
    },
}

/// One attestor that told nothing although others did.
#[derive(Debug)]
pub struct Failure {
    /// The attestor's name.
    pub attestor: String,
    /// Why.
    pub error: AttestorError,
}

impl std::fmt::Display for Failure {
    /// The attestor, its error and what is behind that, on one line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.attestor, ErrorChain(&self.error))
    }
}

fn listed(failures: &[Failure]) -> String {
    if failures.is_empty() {
        return "none is configured".into();
    }
    failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Why a caller could not be attested.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// The process ended or changed while it was attested.
    #[error(transparent)]
    Caller(#[from] CallerError),
    /// Every attestor failed, or none is configured.
    #[error("no workload attestor could attest process {pid}: {}", listed(failures))]
    AllFailed {
        /// Process number.
        pid: i32,
        /// Each attestor's failure; empty when none is configured. The text lists them.
        failures: Vec<Failure>,
    },
    /// The attestors told more than a workload may show.
    #[error("process {pid} shows too many selectors")]
    Selectors {
        /// Process number.
        pid: i32,
        /// The bound that was passed.
        source: SelectorError,
    },
}

impl AttestError {
    /// The code to show.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Caller(error) => error.reason(),
            Self::AllFailed { .. } | Self::Selectors { .. } => Reason::AttestationFailed,
        }
    }
}

/// A process together with the selectors it has shown. Only [`attest_all`] makes one.
#[derive(Debug)]
pub struct AttestedCaller {
    caller: Arc<Caller>,
    selectors: Selectors,
    failures: Vec<Failure>,
}

impl AttestedCaller {
    /// The pinned process.
    pub fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// What it showed, from all attestors.
    pub fn selectors(&self) -> &Selectors {
        &self.selectors
    }

    /// The attestors whose selectors are missing, for the operator's log.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// Confirms that the selectors still describe the process; see [`Caller::recheck`]. After [`CallerError::Changed`] a
    /// new [`Caller`] can be opened and attested.
    ///
    /// # Errors
    /// As [`Caller::recheck`].
    pub fn recheck(&self) -> Result<(), CallerError> {
        self.caller.recheck()
    }

    /// See [`Caller::is_plainly_same`].
    pub fn is_plainly_same(&self) -> bool {
        self.caller.is_plainly_same()
    }
}

/// Asks every attestor about `caller` and then looks at the process again, so that all selectors describe one program
/// run by one user.
///
/// # Errors
/// When the process ended or changed, when all attestors failed, or when there are too many selectors.
pub fn attest_all(
    attestors: &[Box<dyn WorkloadAttestor>],
    caller: Arc<Caller>,
) -> Result<AttestedCaller, AttestError> {
    let mut selectors = Vec::new();
    let mut failures = Vec::new();
    for attestor in attestors {
        match attestor.attest(&caller) {
            Ok(shown) => selectors.extend(shown),
            Err(error) => failures.push(Failure { attestor: attestor.name().to_owned(), error }),
        }
    }
    caller.recheck()?;
    let pid = caller.pid();
    if failures.len() == attestors.len() {
        return Err(AttestError::AllFailed { pid, failures });
    }
    let selectors = Selectors::new(selectors).map_err(|source| AttestError::Selectors { pid, source })?;
    Ok(AttestedCaller { caller, selectors, failures })
}
