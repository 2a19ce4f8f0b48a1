//! Where the Workload API is: flags first, then SPIRE's variables, then the standard's, and what has a scheme is checked as the
//! standard says (Workload Endpoint 4).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tonic::transport::Channel;

use crate::args::Socket;
use crate::client::connect;
use crate::console::Vars;
use crate::error::Failure;
use crate::socket;

/// The standard's variable.
pub(crate) const ENDPOINT_VAR: &str = "SPIFFE_ENDPOINT_SOCKET";

/// A healthy endpoint accepts at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A checked address of the Workload API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// A Unix socket.
    Unix(PathBuf),
    /// An address on the network, without TLS: the standard leaves its protection to the network.
    Tcp(SocketAddr),
}

impl Endpoint {
    /// The endpoint that flags and environment name; the standard's variable is for when nothing else is said. Flags and SPIRE's
    /// variables may hold a bare path, the standard's may not.
    ///
    /// # Errors
    /// When the address has another form than the standard's.
    pub(crate) fn of(flags: &Socket, vars: Vars<'_>) -> Result<Self, Failure> {
        match (socket::said(flags, &socket::AGENT, vars)?, vars(ENDPOINT_VAR)) {
            (Some((name, address)), _) if has_scheme(&address) => Self::parse(name, &address),
            (Some((_, path)), _) => Ok(Self::Unix(path.into())),
            (None, Some(address)) => Self::parse(ENDPOINT_VAR, &address),
            (None, None) => Ok(Self::Unix(socket::AGENT.default.into())),
        }
    }

    /// `unix:` with an absolute path, or `tcp:` with an IP address and a port, and nothing else.
    ///
    /// # Errors
    /// What is wrong with the text; `name` says where it stands.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, Failure> {
        let fault = |why: &str| {
            Failure::new(format!("{name} = {text:?} is no address of the Workload API: {why}"))
                .try_this("write it like unix:///run/spire/agent/public/api.sock or tcp://127.0.0.1:8000")
        };
        match split(text).map_err(|why| fault(&why))? {
            Address::Unix(path) => Ok(Self::Unix(path)),
            Address::Tcp(address) => {
                let address = address.parse().map(Self::Tcp);
                address.map_err(|_| fault("what follows tcp:// must be an IP address and a port"))
            }
        }
    }

    /// A connection.
    ///
    /// # Errors
    /// When nobody answers there.
    pub(crate) async fn connect(&self) -> Result<Channel, Failure> {
        match self {
            Self::Unix(path) => connect(path, "agent").await,
            Self::Tcp(address) => {
                let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
                let endpoint = endpoint.map(|endpoint| endpoint.connect_timeout(CONNECT_TIMEOUT));
                let unreachable = |error: &tonic::transport::Error| {
                    Failure::because(format!("nobody answers on {address}"), error)
                        .try_this(format!("start the agent, or correct {ENDPOINT_VAR}"))
                };
                let endpoint = endpoint.map_err(|error| unreachable(&error))?;
                endpoint.connect().await.map_err(|error| unreachable(&error))
            }
        }
    }

    /// The address as the standard's variable holds it.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Unix(path) => {
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                format!("unix://{}", path.display())
            }
            Self::Tcp(address) => format!("tcp://{address}"),
        }
    }
}

/// An address in one of the standards' variables, with its two possible forms told apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Address<'a> {
    /// An absolute path.
    Unix(PathBuf),
    /// What follows `tcp://`, to be checked further.
    Tcp(&'a str),
}

/// Tells the forms apart, and refuses all that neither has.
///
/// # Errors
/// Why it is none of them.
pub(crate) fn split(text: &str) -> Result<Address<'_>, String> {
    let neither = || "it begins with neither unix: nor tcp:".to_owned();
    let (scheme, rest) = text.split_once(':').ok_or_else(neither)?;
    if !matches!(scheme, "unix" | "tcp") {
        return Err(neither());
    }
    if let Some(mark) = rest.chars().find(|letter| matches!(letter, '?' | '#')) {
        return Err(format!("{mark:?} has no place in it"));
    }
    if scheme == "tcp" {
        return rest.strip_prefix("//").map(Address::Tcp).ok_or("two slashes must follow tcp:".into());
    }
    let path = rest.strip_prefix("//").unwrap_or(rest);
    match path.len() > 1 && path.starts_with('/') {
        true => Ok(Address::Unix(path.into())),
        false => Err("what follows unix: must be an absolute path, without a host".into()),
    }
}

fn has_scheme(text: &str) -> bool {
    text.starts_with("unix:") || text.starts_with("tcp:")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, instance: &str, env: &[(&str, &str)]) -> Result<Endpoint, Failure> {
        let flags = Socket { path: Some(path.into()), instance: Some(instance.into()) };
        Endpoint::of(&flags, &|name| env.iter().find(|(var, _)| *var == name).map(|(_, text)| (*text).into()))
    }

    fn resolved(path: &str, env: Option<&str>) -> Result<Endpoint, Failure> {
        found(path, "", env.map(|text| (ENDPOINT_VAR, text)).as_slice())
    }

    fn unix(path: &str) -> Endpoint {
        Endpoint::Unix(path.into())
    }

    fn refused(text: &str) {
        let fault = resolved("", Some(text)).expect_err(text);
        assert!(fault.what().contains(ENDPOINT_VAR) && !fault.remedies().is_empty(), "{fault}");
    }

    #[test]
    fn wep_12_the_variable_counts_where_no_flag_says_otherwise() {
        assert_eq!(resolved("", Some("unix:///env.sock")).unwrap(), unix("/env.sock"));
        assert_eq!(resolved("/flag.sock", Some("unix:///env.sock")).unwrap(), unix("/flag.sock"));
        assert_eq!(resolved("unix:///flag.sock", Some("no address")).unwrap(), unix("/flag.sock"));
        assert_eq!(resolved("", None).unwrap(), unix(socket::AGENT.default), "what -h names as the default");
        let standard = (ENDPOINT_VAR, "unix:///env.sock");
        let template = (socket::AGENT.template_var, "/run/%i.sock");
        let spires = (socket::AGENT.var.unwrap(), "/spire.sock");
        assert_eq!(found("", "", &[standard, spires, template]).unwrap(), unix("/spire.sock"));
        assert_eq!(found("", "a", &[standard, spires, template]).unwrap(), unix("/run/a.sock"));
        assert_eq!(
            found(socket::AGENT.default, "", &[standard]).unwrap(),
            unix("/env.sock"),
            "as if not given"
        );
    }

    #[test]
    fn an_address_is_checked_wherever_it_stands() {
        let spires = (socket::AGENT.var.unwrap(), "unix:relative");
        assert!(found("", "", &[spires]).expect_err("relative").what().contains(spires.0));
        assert!(found("tcp://localhost:1", "", &[]).expect_err("a name").what().contains("-socketPath"));
    }

    #[test]
    fn wep_13_other_schemes_than_unix_and_tcp_are_refused() {
        for text in ["http://127.0.0.1:1", "npipe:spire", "/bare.sock", "relative.sock", "UNIX:/a", ":", "x"]
        {
            refused(text);
        }
    }

    #[test]
    fn wep_14_a_unix_address_is_an_absolute_path_and_nothing_else() {
        assert_eq!(resolved("", Some("unix:///a/b.sock")).unwrap(), unix("/a/b.sock"));
        assert_eq!(resolved("", Some("unix:/a/b.sock")).unwrap(), unix("/a/b.sock"));
        for text in
            ["unix://host/a.sock", "unix:a.sock", "unix:///a.sock?x", "unix:///a.sock#x", "unix:", "unix:///"]
        {
            refused(text);
        }
    }

    #[test]
    fn wep_15_a_tcp_address_is_an_ip_address_with_a_port_and_nothing_else() {
        for text in ["tcp://127.0.0.1:8000", "tcp://[::1]:8000"] {
            let endpoint = resolved("", Some(text)).unwrap();
            assert_eq!(
                (&endpoint, endpoint.address().as_str()),
                (&Endpoint::Tcp(text[6..].parse().unwrap()), text)
            );
        }
        for text in [
            "tcp://localhost:8000",
            "tcp://127.0.0.1",
            "tcp://127.0.0.1:8000/foo",
            "tcp://u@127.0.0.1:1",
            "tcp:127.0.0.1:1",
            "tcp://127.0.0.1:1?x",
        ] {
            refused(text);
        }
    }
}
