//! Where a local trust domain keeps its files.
//!
//! The directory itself is open, as that of SPIRE's agent socket is: workloads of other users connect there. Keys, the
//! store and the admin socket lie below it in directories for the owner alone.

use std::fs::{DirBuilder, Permissions, set_permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
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
    /// Makes the directory when it is missing, open to others; one that exists keeps its mode. What lies below it is not open.
    ///
    /// # Errors
    /// When it cannot be made, or its name is too long for a socket.
    pub(crate) fn make(dir: &Path) -> Result<Self, Failure> {
        let name = dir.display();
        let failed = |error: std::io::Error| {
            Failure::because(format!("cannot make the directory {name}"), &error)
                .try_this("name one that this user may write, with -dir")
        };
        if !dir.exists() {
            DirBuilder::new().recursive(true).create(dir).map_err(failed)?;
            set_permissions(dir, Permissions::from_mode(0o755)).map_err(failed)?;
        }
        let dir = dir.canonicalize().map_err(failed)?;
        let server = dir.join("server");
        let paths = Self {
            dir: dir.clone(),
            server_socket: server.join("api.sock"),
            agent_socket: dir.join("agent.sock"),
            store: server.join("store"),
            server_keys: server.join("keys.json"),
            agent_data: dir.join("agent"),
            bundle: dir.join("bundle.pem"),
            log: dir.join("spindle.log"),
        };
        let length = paths.server_socket.as_os_str().len();
        if length > SOCKET_PATH_BYTES_MAX {
            let what = format!("the path {} is too long for a socket", paths.server_socket.display());
            return Err(Failure::new(what).try_this("name a directory with a shorter path, with -dir"));
        }
        for private in [&server, &paths.agent_data] {
            make_private(private).map_err(failed)?;
        }
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

/// A directory for its owner alone, also when it is an older one.
fn make_private(dir: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    set_permissions(dir, Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use spindle_testkit::{NOW, TestAuthority};

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn others_reach_the_agents_socket_and_nothing_that_is_private() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("a").join("b");
        let paths = Paths::make(&dir).unwrap();
        assert!(paths.agent_socket.is_absolute());
        assert_eq!(mode(paths.agent_socket.parent().unwrap()), 0o755);
        for private in [&paths.server_socket, &paths.server_keys, &paths.store] {
            assert_eq!(mode(private.parent().unwrap()), 0o700, "{}", private.display());
        }
        assert_eq!(mode(&paths.agent_data), 0o700);
    }

    #[test]
    fn a_directory_that_exists_keeps_its_mode_and_private_ones_are_closed_again() {
        let temp = tempfile::tempdir().unwrap();
        let server = temp.path().join("server");
        std::fs::create_dir(&server).unwrap();
        for dir in [temp.path(), &server] {
            set_permissions(dir, Permissions::from_mode(0o750)).unwrap();
        }
        Paths::make(temp.path()).unwrap();
        assert_eq!((mode(temp.path()), mode(&server)), (0o750, 0o700));
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
