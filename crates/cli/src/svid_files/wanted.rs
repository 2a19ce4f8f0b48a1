//! What a run wants: one identity of those that come, files under these names, tokens for these audiences.
//!
//! Pure. A name that does not fit is refused here, so that the writer never leaves its directory.

use spindle_spiffe_core::SpiffeId;

use super::folder::CURRENT;
use super::material::Identity;
use crate::error::Failure;

/// Names are shown and linked; this is far below the kernel's 255 bytes.
const NAME_BYTES_MAX: usize = 200;

/// Tokens of one run: each is asked for on its own.
pub(crate) const TOKENS_MAX: usize = 64;

/// Which identity is kept when the agent has several for this caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The first, which is the default identity (Workload API 5.2.1).
    First,
    /// The first with this hint.
    Hint(String),
    /// The one with this SPIFFE ID, and with this hint where one is given.
    Id(SpiffeId, Option<String>),
}

impl Choice {
    /// The chosen one. An unknown hint is an error and never falls back on another identity (Workload API 8).
    ///
    /// # Errors
    /// When none fits, with those there are.
    pub(crate) fn of<'a, T: Identity>(&self, what: &str, all: &'a [T]) -> Result<&'a T, Failure> {
        let fits = |one: &&T| match self {
            Self::First => true,
            Self::Hint(hint) => one.hint() == hint,
            Self::Id(id, hint) => {
                one.spiffe_id() == id.to_string() && hint.as_deref().is_none_or(|hint| one.hint() == hint)
            }
        };
        all.iter().find(fits).ok_or_else(|| self.nothing_fits(what, all))
    }

    fn nothing_fits<T: Identity>(&self, what: &str, all: &[T]) -> Failure {
        let wish = match self {
            Self::First => String::new(),
            Self::Hint(hint) | Self::Id(_, Some(hint)) => format!(" with the hint {hint:?}"),
            Self::Id(id, None) => format!(" for {id}"),
        };
        let shown = |one: &T| match one.hint() {
            "" => one.spiffe_id().to_owned(),
            hint => format!("{} (hint {hint:?})", one.spiffe_id()),
        };
        let there = all.iter().map(shown).collect::<Vec<_>>().join(", ");
        let there = if there.is_empty() { "none".to_owned() } else { there };
        Failure::new(format!("the agent has no {what}{wish}; it has {there}"))
            .try_this("name one of these with -spiffeID or -hint, or register the entry")
    }
}

/// What the files are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum What {
    /// An identity, with what it needs.
    #[default]
    Identity,
    /// Bundles alone, for those who check others and have no identity themselves.
    Bundles,
}

/// What the names of X.509 bundles begin with where nothing else is kept.
pub(crate) const BUNDLE_PREFIX: &str = "bundle.";

/// The files of a generation, by name; a file without a name is not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    /// The certificate chain, leaf first.
    pub(crate) cert: Option<String>,
    /// The private key.
    pub(crate) key: Option<String>,
    /// The authorities of the own trust domain.
    pub(crate) bundle: Option<String>,
    /// Key and chain in one file, for programs that take one.
    pub(crate) combined: Option<String>,
    /// Whether bundles of other trust domains are written, as `federated.NAME.pem`.
    pub(crate) federated: bool,
    /// The keys of JWT-SVIDs of all trust domains, by SPIFFE ID.
    pub(crate) jwt_bundles: Option<String>,
}

impl Names {
    /// No file that needs an identity.
    pub(crate) fn of_bundles(jwt_bundles: Option<String>) -> Self {
        Self { cert: None, key: None, bundle: None, combined: None, federated: false, jwt_bundles }
    }
}

impl Default for Names {
    fn default() -> Self {
        let name = |text: &str| Some(text.to_owned());
        Self {
            cert: name("tls.crt"),
            key: name("tls.key"),
            bundle: name("ca.crt"),
            combined: name("tls.pem"),
            federated: false,
            jwt_bundles: None,
        }
    }
}

/// A token that is kept in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenWish {
    /// The file's name.
    pub(crate) file: String,
    /// Whom the token is for, at least one.
    pub(crate) audience: Vec<String>,
}

/// All that a run keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) what: What,
    pub(crate) choice: Choice,
    pub(crate) names: Names,
    pub(crate) tokens: Vec<TokenWish>,
}

impl Wanted {
    /// Checks that all names are plain and no two are alike.
    ///
    /// # Errors
    /// The first name that cannot be taken, or that there are too many tokens.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.tokens.len() > TOKENS_MAX {
            return Err(Failure::new(format!("{} JWT-SVIDs are more than {TOKENS_MAX}", self.tokens.len()))
                .try_this("keep fewer in one directory"));
        }
        let Names { cert, key, bundle, combined, jwt_bundles, .. } = &self.names;
        let fixed = [cert, key, bundle, combined, jwt_bundles].into_iter().flatten();
        let mut seen: Vec<&str> = Vec::new();
        for name in fixed.chain(self.tokens.iter().map(|token| &token.file)) {
            check_name(name)?;
            if self.what == What::Bundles && name.starts_with(BUNDLE_PREFIX) {
                return Err(reserved(name));
            }
            if seen.contains(&name.as_str()) {
                return Err(Failure::new(format!("two files would be called {name}"))
                    .try_this("give each file a name of its own"));
            }
            seen.push(name);
        }
        Ok(())
    }
}

const RESERVED: &str = "such names are for the directory's own use";

fn check_name(name: &str) -> Result<(), Failure> {
    let why = if name.is_empty() || name.len() > NAME_BYTES_MAX {
        "it needs 1 to 200 bytes"
    } else if name.contains(['/', '\0']) {
        "it must be in the directory itself"
    } else if name.starts_with('.')
        || name == CURRENT
        || name.starts_with("gen-")
        || name.starts_with("federated.")
    {
        RESERVED
    } else {
        return Ok(());
    };
    Err(unfit(name, why))
}

fn reserved(name: &str) -> Failure {
    unfit(name, RESERVED)
}

fn unfit(name: &str, why: &str) -> Failure {
    Failure::new(format!("{name:?} cannot be the name of a file here: {why}"))
        .try_this("name it like tls.crt")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct One(&'static str, &'static str);

    impl Identity for One {
        fn spiffe_id(&self) -> &str {
            self.0
        }

        fn hint(&self) -> &str {
            self.1
        }
    }

    const ALL: [One; 4] = [
        One("spiffe://a/web", ""),
        One("spiffe://a/in", "internal"),
        One("spiffe://a/out", "external"),
        One("spiffe://a/other", "internal"),
    ];

    fn chosen(choice: &Choice) -> Result<&'static str, String> {
        match choice.of("X509-SVID", &ALL) {
            Ok(one) => Ok(ALL.iter().find(|other| other.0 == one.0).unwrap().0),
            Err(failure) => Err(failure.what().to_owned()),
        }
    }

    #[test]
    fn without_a_wish_the_first_one_is_the_identity() {
        assert_eq!(chosen(&Choice::First).unwrap(), "spiffe://a/web");
        let none: [One; 0] = [];
        assert!(
            Choice::First.of("X509-SVID", &none).is_err_and(|fault| fault.what().ends_with("it has none"))
        );
    }

    #[test]
    fn wap_29_wap_46_wap_68_of_two_with_one_hint_the_first_is_taken() {
        assert_eq!(chosen(&Choice::Hint("internal".into())).unwrap(), "spiffe://a/in");
    }

    #[test]
    fn wap_81_a_missing_hint_is_an_error_with_those_there_are() {
        let fault = chosen(&Choice::Hint("blue".into())).unwrap_err();
        assert!(
            fault.contains("the hint \"blue\"") && fault.contains("spiffe://a/in (hint \"internal\")"),
            "{fault}"
        );
        let other = Choice::Id("spiffe://a/web".parse().unwrap(), Some("external".into()));
        assert!(chosen(&other).is_err(), "the ID is there, but with another hint");
    }

    #[test]
    fn an_identity_is_found_by_its_id() {
        let id = |text: &str| Choice::Id(text.parse().unwrap(), None);
        assert_eq!(chosen(&id("spiffe://a/other")).unwrap(), "spiffe://a/other");
        assert!(chosen(&id("spiffe://a/none")).unwrap_err().contains("for spiffe://a/none"));
    }

    #[test]
    fn names_stay_in_the_directory_and_are_told_apart() {
        let with_cert = |name: &str| {
            let names = Names { cert: Some(name.into()), ..Names::default() };
            Wanted { what: What::Identity, choice: Choice::First, names, tokens: vec![] }.check()
        };
        with_cert("server.pem").unwrap();
        with_cert("bundle.pem").unwrap();
        let names = Names::of_bundles(Some("bundle.pem".into()));
        let bundles = Wanted { what: What::Bundles, choice: Choice::First, names, tokens: vec![] };
        assert!(bundles.check().is_err(), "it could be that of a trust domain");
        for name in [
            "",
            "a/b",
            "..",
            ".hidden",
            "current",
            "gen-1",
            "federated.x.pem",
            "tls.key",
            "a\0b",
            &"x".repeat(201),
        ] {
            assert!(with_cert(name).is_err(), "{name:?}");
        }
    }
}
