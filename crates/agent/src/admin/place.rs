//! Whether a socket lies apart from the public one: workloads are often given the public socket's whole directory, and must
//! not find another socket in it.

use std::path::{Component, Path, PathBuf};

/// A socket lies where workloads can find it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} lies in or below {}, the directory of the public socket; choose another directory",
    .socket.display(), .directory.display()
)]
pub(crate) struct NotApart {
    /// The socket as configured.
    pub(crate) socket: PathBuf,
    /// The directory of the public socket, all links followed.
    pub(crate) directory: PathBuf,
}

/// Refuses `socket` in or below the directory of `public`, with all links followed. Neither has to exist.
pub(crate) fn check_apart(socket: &Path, public: &Path) -> Result<(), NotApart> {
    let directory = followed(&parent(public));
    if followed(&parent(socket)).starts_with(&directory) {
        return Err(NotApart { socket: socket.to_owned(), directory });
    }
    Ok(())
}

/// The directory that a socket lies in.
fn parent(socket: &Path) -> PathBuf {
    let absolute = std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned());
    absolute.parent().unwrap_or(&absolute).to_owned()
}

/// The absolute path without links, as far as it exists; the rest is not there yet, and will be directories when it is.
fn followed(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut real, component| {
        match component {
            Component::ParentDir => {
                real.pop();
            }
            further => real.push(further),
        }
        real.canonicalize().unwrap_or(real)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_in_or_below_the_public_directory_is_refused_however_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("public/below")).unwrap();
        std::fs::create_dir_all(at("private")).unwrap();
        std::os::unix::fs::symlink(at("public"), at("link")).unwrap();
        std::os::unix::fs::symlink(at("public/below"), at("private/link")).unwrap();
        let public = at("public/api.sock");
        for inside in [
            "public/admin.sock",
            "public/below/admin.sock",
            "public/new/dir/admin.sock",
            "link/admin.sock",
            "link/new/admin.sock",
            "private/link/admin.sock",
            "private/../public/admin.sock",
            "missing/../public/admin.sock",
            "link/new/../admin.sock",
        ] {
            let error = check_apart(&at(inside), &public).expect_err(inside);
            assert!(error.to_string().contains("the directory of the public socket"), "{error}");
        }
        for apart in ["private/admin.sock", "new/admin.sock", "public2/admin.sock", "admin.sock"] {
            check_apart(&at(apart), &public).expect(apart);
        }
        // The public socket's own directory may be a link as well.
        assert!(check_apart(&at("public/admin.sock"), &at("link/api.sock")).is_err());
    }
}
