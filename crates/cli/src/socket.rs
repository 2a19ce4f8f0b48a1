//! Which Unix socket a command calls: flag, then instance template, then environment, then the default.

use std::path::PathBuf;

use crate::args::{Socket, set};
use crate::console::Vars;
use crate::error::Failure;

/// Where one kind of socket may be named.
pub struct SocketKind {
    /// Used when nothing else is said.
    pub default: &'static str,
    /// Holds a path with `%i` for the instance.
    pub template_var: &'static str,
    /// Holds a path.
    pub var: Option<&'static str>,
}

/// The server's admin socket.
pub const SERVER: SocketKind = SocketKind {
    default: crate::config::server::SOCKET_PATH,
    template_var: "SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE",
    var: Some("SPIRE_SERVER_PRIVATE_SOCKET"),
};

/// The agent's Workload API socket, less the standard's variable, which has a form of its own: `crate::endpoint`.
pub const AGENT: SocketKind = SocketKind {
    default: crate::config::agent::SOCKET_PATH,
    template_var: "SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE",
    var: Some("SPIRE_AGENT_PUBLIC_SOCKET"),
};

/// The agent's admin socket. SPIRE's tools know it by its flag alone.
pub const AGENT_ADMIN: SocketKind = SocketKind {
    default: crate::config::agent::ADMIN_SOCKET_PATH,
    template_var: "SPIRE_AGENT_ADMIN_SOCKET_TEMPLATE",
    var: None,
};

/// The path to call. A `-socketPath` that names the default counts as not given, as with SPIRE's tools.
///
/// # Errors
/// When `-instance` is given and the template is missing or has no `%i`, or when an address is no Unix socket.
pub fn resolve(socket: &Socket, kind: &SocketKind, vars: Vars<'_>) -> Result<PathBuf, Failure> {
    unix_path(&said(socket, kind, vars)?.map_or_else(|| kind.default.to_owned(), |(_, text)| text))
}

/// What somebody said, and where; none when the default is left.
///
/// # Errors
/// When `-instance` is given and the template is missing or has no `%i`.
pub(crate) fn said(
    socket: &Socket,
    kind: &SocketKind,
    vars: Vars<'_>,
) -> Result<Option<(&'static str, String)>, Failure> {
    let given = socket.path.as_ref().and_then(|path| path.to_str()).filter(|path| !path.is_empty());
    let instance = set(&socket.instance);
    let template = vars(kind.template_var);
    if instance.is_some() {
        check_template(kind, template.as_deref())?;
    }
    Ok(match (given.filter(|path| *path != kind.default), instance, template) {
        (Some(path), _, _) => Some(("-socketPath", path.to_owned())),
        (None, Some(instance), Some(template)) => Some((kind.template_var, template.replace("%i", instance))),
        _ => kind.var.and_then(|name| Some((name, vars(name)?))),
    })
}

fn check_template(kind: &SocketKind, template: Option<&str>) -> Result<(), Failure> {
    let name = kind.template_var;
    match template {
        None => Err(Failure::new(format!("-instance needs the environment variable {name}"))
            .try_this(format!("export {name}=/run/spire/%i/api.sock"))),
        Some(template) if !template.contains("%i") => {
            Err(Failure::new(format!("{name}={template} has no %i for the instance"))
                .try_this("put %i where the instance's name belongs"))
        }
        Some(_) => Ok(()),
    }
}

/// A path, or the path in a `unix:` address (Workload Endpoint 4).
pub(crate) fn unix_path(address: &str) -> Result<PathBuf, Failure> {
    if address.starts_with("tcp:") {
        return Err(Failure::new(format!("{address} is not a Unix socket"))
            .try_this("name a path, or unix: and an absolute path"));
    }
    let path = address.strip_prefix("unix:").unwrap_or(address);
    Ok(PathBuf::from(path.strip_prefix("//").unwrap_or(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(path: &str, instance: &str, vars: &[(&str, &str)]) -> Result<PathBuf, Failure> {
        let socket = Socket { path: Some(path.into()), instance: Some(instance.into()) };
        let vars =
            |name: &str| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        resolve(&socket, &AGENT, &vars)
    }

    fn check(path: &str, instance: &str, vars: &[(&str, &str)], expected: &str) {
        assert_eq!(run(path, instance, vars), Ok(PathBuf::from(expected)));
    }

    const TEMPLATE: (&str, &str) = ("SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE", "/run/%i.sock");
    const BASE: (&str, &str) = ("SPIRE_AGENT_PUBLIC_SOCKET", "/run/base.sock");

    #[test]
    fn flag_then_instance_then_environment_then_default() {
        check("/f", "a", &[TEMPLATE, BASE], "/f");
        check("", "a", &[TEMPLATE, BASE], "/run/a.sock");
        check(AGENT.default, "a", &[TEMPLATE, BASE], "/run/a.sock");
        check("", "", &[TEMPLATE, BASE], "/run/base.sock");
        check("", "", &[], AGENT.default);
    }

    #[test]
    fn unix_addresses_are_understood_in_both_forms() {
        check("unix:///a/b", "", &[], "/a/b");
        check("unix:/a/b", "", &[], "/a/b");
    }

    #[test]
    fn an_instance_without_a_usable_template_is_refused() {
        assert!(run("", "a", &[]).expect_err("no template").what().contains("TEMPLATE"));
        let template = (TEMPLATE.0, "/run/x.sock");
        assert!(run("", "a", &[template]).expect_err("no %i").what().contains("%i"));
        assert!(run("/f", "a", &[]).is_err(), "even when the flag would win");
    }

    #[test]
    fn a_tcp_address_is_refused() {
        assert!(run("", "", &[(BASE.0, "tcp://127.0.0.1:1")]).is_err());
    }
}
