//! Which of a caller's selectors may stand in the log (`log_selectors`). They can carry what a workload was started with, so
//! none does unless its kind is named.

use spindle_spiffe_core::Selectors;

/// The selectors of the named kinds, such as `unix:user` or `unix`, as one text; none when there are none.
pub(super) fn loggable(selectors: &Selectors, kinds: &[String]) -> Option<String> {
    let is_named = |text: &str| {
        kinds
            .iter()
            .any(|kind| text.strip_prefix(kind).is_some_and(|rest| rest.is_empty() || rest.starts_with(':')))
    };
    let named: Vec<String> =
        selectors.iter().map(ToString::to_string).filter(|text| is_named(text)).collect();
    (!named.is_empty()).then(|| named.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::selectors;

    #[test]
    fn only_selectors_of_a_named_kind_are_told() {
        let shown = selectors(&["unix:user:app", "unix:uid:1000", "unix:username:x"]);
        let told = |kinds: &[&str]| {
            loggable(&shown, &kinds.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap_or_default()
        };
        assert_eq!(told(&[]), "");
        assert_eq!(told(&["unix:user"]), "unix:user:app");
        assert_eq!(told(&["unix:user:app", "unix:uid"]), "unix:uid:1000,unix:user:app");
        assert_eq!(told(&["unix"]), "unix:uid:1000,unix:user:app,unix:username:x");
        assert_eq!(told(&["unix:use", "k8s"]), "");
    }
}
