//! What a command is told of its files: words of its command line, and variables of its environment.
//!
//! Pure.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::endpoint::{ENDPOINT_VAR, Endpoint};
use crate::svid_files::wanted::Names;

/// Each place with its word and its variable.
pub(super) struct Places {
    places: Vec<(&'static str, &'static str, PathBuf)>,
    endpoint: String,
}

impl Places {
    /// The places in `dir`.
    pub(super) fn new(dir: &Path, names: &Names, endpoint: &Endpoint) -> Self {
        let files = [
            ("{cert}", "SPINDLE_CERT_FILE", &names.cert),
            ("{key}", "SPINDLE_KEY_FILE", &names.key),
            ("{bundle}", "SPINDLE_BUNDLE_FILE", &names.bundle),
            ("{combined}", "SPINDLE_COMBINED_FILE", &names.combined),
        ];
        let file = |(word, var, name): (_, _, &Option<String>)| Some((word, var, dir.join(name.as_ref()?)));
        let mut places = vec![("{dir}", "SPINDLE_SVID_DIR", dir.to_owned())];
        places.extend(files.into_iter().filter_map(file));
        Self { places, endpoint: endpoint.address() }
    }

    /// The command with each known word replaced, wherever it stands; everything else in braces stays as it is.
    pub(super) fn fill(&self, command: &[OsString]) -> Vec<OsString> {
        command.iter().map(|word| self.fill_word(word)).collect()
    }

    fn fill_word(&self, word: &OsStr) -> OsString {
        let (mut rest, mut filled) = (word.as_bytes(), Vec::new());
        while let Some((first, tail)) = rest.split_first() {
            match self.places.iter().find(|(name, ..)| rest.starts_with(name.as_bytes())) {
                Some((name, _, path)) => {
                    filled.extend_from_slice(path.as_os_str().as_bytes());
                    rest = &rest[name.len()..];
                }
                None => {
                    filled.push(*first);
                    rest = tail;
                }
            }
        }
        OsString::from_vec(filled)
    }

    /// The variables.
    pub(super) fn vars(&self) -> Vec<(&'static str, OsString)> {
        let mut vars = vec![(ENDPOINT_VAR, OsString::from(&self.endpoint))];
        vars.extend(self.places.iter().map(|(_, var, path)| (*var, path.into())));
        vars
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        Places::new(Path::new("/run/x"), &Names::default(), &Endpoint::Unix("/a.sock".into()))
    }

    fn filled(word: &str) -> String {
        places().fill(&[word.into()]).remove(0).into_string().unwrap()
    }

    #[test]
    fn known_words_are_replaced_and_other_braces_are_not() {
        assert_eq!(filled("{cert}"), "/run/x/tls.crt");
        assert_eq!(filled("--tls={cert},{key}"), "--tls=/run/x/tls.crt,/run/x/tls.key");
        assert_eq!(filled("{dir}/current/ca.crt"), "/run/x/current/ca.crt");
        for word in ["{\"key\":1}", "{}", "{cert", "{unknown}", "${HOME}", ""] {
            assert_eq!(filled(word), word);
        }
        assert_eq!(filled("{{bundle}}"), "{/run/x/ca.crt}");
    }

    #[test]
    fn every_place_has_a_variable() {
        let vars = places().vars();
        let value =
            |name: &str| vars.iter().find(|(var, _)| *var == name).unwrap().1.to_str().unwrap().to_owned();
        assert_eq!(value("SPIFFE_ENDPOINT_SOCKET"), "unix:///a.sock");
        assert_eq!(value("SPINDLE_SVID_DIR"), "/run/x");
        assert_eq!(value("SPINDLE_COMBINED_FILE"), "/run/x/tls.pem");
        assert_eq!(vars.len(), 6);
    }
}
