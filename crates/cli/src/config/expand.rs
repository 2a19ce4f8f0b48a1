//! `-expandEnv`: `$VAR` and `${VAR}` in the raw text, before it is parsed. `$$` is one dollar, unset is empty.

use crate::console::Vars;

/// Puts the values of variables into `text`.
pub fn expand_env(text: &str, vars: Vars<'_>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let (value, after) = one(rest, vars);
        expanded.push_str(&value);
        rest = after;
    }
    expanded.push_str(rest);
    expanded
}

/// What stands for the text behind one dollar, and what follows it.
fn one<'a>(rest: &'a str, vars: Vars<'_>) -> (String, &'a str) {
    if let Some(after) = rest.strip_prefix('$') {
        return ("$".into(), after);
    }
    if let Some((name, after)) = rest.strip_prefix('{').and_then(|tail| tail.split_once('}'))
        && is_name(name)
    {
        return (vars(name).unwrap_or_default(), after);
    }
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    let (name, after) = rest.split_at(end);
    if is_name(name) { (vars(name).unwrap_or_default(), after) } else { ("$".into(), rest) }
}

fn is_name(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let vars = |name: &str| (name == "HOME_DIR").then(|| "/srv".to_owned());
        assert_eq!(expand_env(text, &vars), expected, "{text}");
    }

    #[test]
    fn variables_are_put_in_in_both_spellings() {
        check("a = \"$HOME_DIR/x\"", "a = \"/srv/x\"");
        check("a = \"${HOME_DIR}x\"", "a = \"/srvx\"");
    }

    #[test]
    fn two_dollars_are_one_and_unset_is_empty() {
        check("$$HOME_DIR", "$HOME_DIR");
        check("<$NOSUCH>", "<>");
        check("<${NOSUCH}>", "<>");
    }

    #[test]
    fn a_dollar_that_names_nothing_stays() {
        for text in ["$", "a $ b", "${", "${}", "${a b}", "$1", "${1}", "cost: 5$"] {
            check(text, text);
        }
    }
}
