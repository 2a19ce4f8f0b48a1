//! Where a local trust domain keeps its files.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use spindle_spiffe_core::{TrustDomain, X509Bundle};

use crate::error::Failure;
use crate::files::{Readable, write};

/// The kernel's bound on a socket's path, less the closing zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// All paths, absolute, so that they can be copied into another terminal.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    pub(crate) dir: PathBuf,
    pub(crate) server_socket: PathBuf,
    pub(crate) agent_socket: PathBuf,
    pub(crate) store: PathBuf,
    pub(crate) server_keys: PathBuf,
    pub(crate) agent_data: PathBuf,
    pub(crate) bundle: PathBuf,
    pub(crate) log: PathBuf,
}

impl Paths {
    /// Makes the directory, for this user alone, when it is missing.
    ///
    /// # Errors
    /// When it cannot be made, or its name is too long for a socket.
    pub(crate) fn make(dir: &Path) -> Result<Self, Failure> {
        let name = dir.display();
        let failed = |error: std::io::Error| {
            Failure::because(format!("cannot make the directory {name}"), &error)
                .try_this("name one that this user may write, with -dir")
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let dir = dir.canonicalize().map_err(failed)?;
        let paths = Self {
            dir: dir.clone(),
            server_socket: dir.join("server.sock"),
            agent_socket: dir.join("agent.sock"),
            store: dir.join("server").join("store"),
            server_keys: dir.join("server").join("keys.json"),
            agent_data: dir.join("agent"),
            bundle: dir.join("bundle.pem"),
            log: dir.join("spindle.log"),
        };
        let length = paths.server_socket.as_os_str().len();
        if length > SOCKET_PATH_BYTES_MAX {
            let what = format!("the path {} is too long for a socket", paths.server_socket.display());
            return Err(Failure::new(what).try_this("name a directory with a shorter path, with -dir"));
        }
        DirBuilder::new().recursive(true).mode(0o700).create(dir.join("server")).map_err(failed)?;
        Ok(paths)
    }

    /// Makes the directory that of one trust domain: a kept store holds the entries of the one it was made for, and must
    /// not be taken up under another name.
    ///
    /// # Errors
    /// When it is that of another trust domain, or the mark cannot be read or written.
    pub(crate) fn claim(&self, trust_domain: &TrustDomain) -> Result<(), Failure> {
        let mark = self.dir.join("trust-domain");
        match std::fs::read_to_string(&mark) {
            Ok(owner) if owner.trim() == trust_domain.name() => Ok(()),
            Ok(owner) => {
                let (dir, owner) = (self.dir.display(), owner.trim());
                Err(Failure::new(format!("{dir} holds the trust domain {owner:?}, not {trust_domain}"))
                    .try_this("name another directory with -dir, or the old trust domain with -trustDomain"))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                write(&mark, format!("{trust_domain}\n").as_bytes(), Readable::Public)
            }
            Err(error) => Err(Failure::because(format!("cannot read {}", mark.display()), &error)),
        }
    }

    /// Keeps the server's bundle for the agent. When it has nothing in common with that of the last run the authority is
    /// another one, which an agent of the old one would refuse; its kept identity is removed then.
    ///
    /// # Errors
    /// When the files cannot be written or removed.
    pub(crate) fn take_bundle(&self, bundle: &X509Bundle) -> Result<(), Failure> {
        if !self.knows_one_of(bundle) && self.agent_data.exists() {
            std::fs::remove_dir_all(&self.agent_data).map_err(|error| {
                let what = format!("cannot remove the old agent's directory {}", self.agent_data.display());
                Failure::because(what, &error).try_this("remove it by hand")
            })?;
        }
        write(&self.bundle, bundle.to_pem().as_bytes(), Readable::Public)
    }

    fn knows_one_of(&self, bundle: &X509Bundle) -> bool {
        // What cannot be read is not known; the file is written anew anyway.
        let old = std::fs::read(&self.bundle).ok();
        let old = old.and_then(|text| X509Bundle::from_pem(bundle.trust_domain().clone(), &text).ok());
        old.is_some_and(|old| old.certificates().any(|one| bundle.certificates().any(|other| other == one)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use spindle_testkit::{NOW, TestAuthority};

    use super::*;

    #[test]
    fn the_directory_is_for_its_owner_alone_and_may_exist() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("a").join("b");
        Paths::make(&dir).unwrap();
        let paths = Paths::make(&dir).unwrap();
        assert!(paths.agent_socket.is_absolute());
        assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_directory_belongs_to_the_trust_domain_that_took_it_first() {
        let temp = tempfile::tempdir().unwrap();
        let paths = Paths::make(temp.path()).unwrap();
        let claim = |name: &str| paths.claim(&name.parse().unwrap());
        claim("example.org").unwrap();
        claim("example.org").unwrap();
        let fault = claim("other.org").expect_err("taken");
        assert!(
            fault.what().contains("\"example.org\", not other.org") && !fault.remedies().is_empty(),
            "{fault}"
        );
    }

    #[test]
    fn the_identity_of_an_agent_of_another_authority_is_removed() {
        let temp = tempfile::tempdir().unwrap();
        let paths = Paths::make(temp.path()).unwrap();
        let (one, other) = (TestAuthority::new("example.org", NOW), TestAuthority::new("example.org", NOW));
        let kept_after = |authority: &TestAuthority| {
            std::fs::create_dir_all(&paths.agent_data).unwrap();
            paths.take_bundle(&authority.x509_bundle()).unwrap();
            paths.agent_data.exists()
        };
        assert!(!kept_after(&one), "an agent without a bundle beside it");
        assert!(kept_after(&one));
        assert!(!kept_after(&other));
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused_before_anything_starts() {
        let temp = tempfile::tempdir().unwrap();
        let fault = Paths::make(&temp.path().join("x".repeat(100))).expect_err("too long");
        assert!(fault.what().contains("too long for a socket") && !fault.remedies().is_empty());
        assert!(Paths::make(Path::new("/proc/nope")).is_err());
    }
}
