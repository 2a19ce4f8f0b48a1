//! `experimental { feature_flags = […] }`: SPIRE's names of features that are on their way in or out.

use super::ConfigError;
use super::section::Section;

/// The names that SPIRE knows. The second one is for its tests.
const KNOWN: &[&str] = &["wit-svid", "i_am_a_test_flag"];

/// The flags that are set.
///
/// # Errors
/// The first name that nobody knows.
pub(super) fn read(experimental: &Section<'_>) -> Result<Vec<String>, ConfigError> {
    let flags = experimental.texts("feature_flags")?.unwrap_or_default();
    match flags.iter().find(|flag| !KNOWN.contains(&flag.as_str())) {
        None => Ok(flags),
        Some(flag) => {
            let what = format!("{flag:?} is not a feature flag (known: {})", KNOWN.join(", "));
            Err(ConfigError::value(&experimental.key("feature_flags"), what))
        }
    }
}
