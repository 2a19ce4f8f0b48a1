//! Where the broker endpoint is: a flag, else the environment, checked as the standard says (Broker Endpoint 4).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;

use spindle_spiffe_core::DnsName;

use crate::console::Vars;
use crate::endpoint::{Address, split};
use crate::error::Failure;

/// The standard's variable.
pub(crate) const BROKER_VAR: &str = "SPIFFE_BROKER_SOCKET";

/// A checked address of a broker endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BrokerAddress {
    /// A Unix socket.
    Unix(PathBuf),
    /// A port on the network.
    Tcp {
        /// An IP address, of version 6 without brackets, or a DNS name.
        host: String,
        /// Not 0.
        port: u16,
    },
}

impl BrokerAddress {
    /// The endpoint that flag and environment name; the flag wins. It may hold a bare path, the standard's variable may not.
    ///
    /// # Errors
    /// When neither is there, or the address has another form than the standard's.
    pub(crate) fn of(flag: Option<&str>, vars: Vars<'_>) -> Result<Self, Failure> {
        match (flag, vars(BROKER_VAR)) {
            (Some(text), _) if text.contains(':') && !text.starts_with(['/', '.']) => {
                Self::parse("-brokerSocket", text)
            }
            (Some(path), _) => Ok(Self::Unix(path.into())),
            (None, Some(address)) => Self::parse(BROKER_VAR, &address),
            (None, None) => {
                Err(Failure::new("it is not said where the broker endpoint is").try_this(format!(
                    "set -brokerSocket, or {BROKER_VAR} to an address like unix:///run/spire/broker/api.sock"
                )))
            }
        }
    }

    /// `unix:` with an absolute path, or `tcp:` with an IP address or a DNS name and a port, and nothing else.
    ///
    /// # Errors
    /// What is wrong with the text; `name` says where it stands.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, Failure> {
        let fault = |why: &str| {
            Failure::new(format!("{name} = {text:?} is no address of a broker endpoint: {why}"))
                .try_this("write it like unix:///run/spire/broker/api.sock or tcp://127.0.0.1:8443")
        };
        match split(text).map_err(|why| fault(&why))? {
            Address::Unix(path) => Ok(Self::Unix(path)),
            Address::Tcp(address) => {
                let (host, port) = host_and_port(address).map_err(fault)?;
                Ok(Self::Tcp { host, port })
            }
        }
    }

    /// The same endpoint, on this host for certain. A name becomes the address it stands for now, which nothing can lead
    /// elsewhere later.
    ///
    /// # Errors
    /// When it is on another host, or may be.
    pub(crate) fn on_this_host(self) -> Result<Self, Failure> {
        let Self::Tcp { host, port } = &self else { return Ok(self) };
        let elsewhere = |why: String| {
            Failure::new(format!(
                "a process is not named to an agent at {self}, {why}: its number means another process there"
            ))
            .try_this("name the endpoint's Unix socket, or 127.0.0.1, or name the workload's pod")
        };
        let addresses = (host.as_str(), *port).to_socket_addrs();
        let addresses: Vec<IpAddr> = addresses
            .map_err(|error| elsewhere(format!("which is nowhere ({error})")))?
            .map(|one| one.ip())
            .collect();
        match (addresses.first(), addresses.iter().find(|ip| !is_of_this_host(**ip))) {
            (Some(first), None) => Ok(Self::Tcp { host: first.to_string(), port: *port }),
            (_, Some(other)) => Err(elsewhere(format!("since {other} is not of this host"))),
            (None, None) => Err(elsewhere("which is nowhere".into())),
        }
    }
}

/// An address that a socket of ours can have. A tunnel from it to another host cannot be seen.
fn is_of_this_host(ip: IpAddr) -> bool {
    ip.is_loopback() || (!ip.is_multicast() && UdpSocket::bind((ip, 0)).is_ok())
}

fn host_and_port(address: &str) -> Result<(String, u16), &'static str> {
    let (host, port) = address.rsplit_once(':').ok_or("a port is missing")?;
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| is_number && *port != 0).ok_or("the port is none")?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match bracketed {
        Some(ip) => ip.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok() || is_name(host),
    };
    match is_host {
        true => Ok((bracketed.unwrap_or(host).to_owned(), port)),
        false => Err("the host is neither an IP address nor a DNS name"),
    }
}

/// A name that is not a mistyped address: its last label is not a number.
fn is_name(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    !is_number && !host.starts_with('*') && host.parse::<DnsName>().is_ok()
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(flag: Option<&str>, env: Option<&str>) -> Result<BrokerAddress, Failure> {
        BrokerAddress::of(flag, &|name| env.filter(|_| name == BROKER_VAR).map(str::to_owned))
    }

    fn unix(path: &str) -> BrokerAddress {
        BrokerAddress::Unix(path.into())
    }

    fn tcp(host: &str, port: u16) -> BrokerAddress {
        BrokerAddress::Tcp { host: host.into(), port }
    }

    /// Refused with the variable's name, the reason and what to try.
    fn refused(text: &str, why: &str) {
        let fault = resolved(None, Some(text)).expect_err(text);
        let what = fault.what();
        assert!(
            what.contains(BROKER_VAR) && what.contains(why) && !fault.remedies().is_empty(),
            "{text}: {fault}"
        );
    }

    #[test]
    fn bep_10_the_variable_counts_where_no_flag_says_otherwise() {
        assert_eq!(resolved(None, Some("unix:///env.sock")).unwrap(), unix("/env.sock"));
        assert_eq!(resolved(Some("/flag.sock"), Some("unix:///env.sock")).unwrap(), unix("/flag.sock"));
        assert_eq!(resolved(Some("tcp://h:1"), Some("no address")).unwrap(), tcp("h", 1));
        let fault = resolved(None, None).unwrap_err();
        assert!(fault.remedies()[0].contains(BROKER_VAR), "{fault}");
        let fault = resolved(Some("http://h:1"), None).unwrap_err();
        assert!(fault.what().contains("-brokerSocket"), "{fault}");
    }

    #[test]
    fn bep_11_other_schemes_than_unix_and_tcp_are_refused() {
        for text in ["http://127.0.0.1:1", "npipe:spire", "/bare.sock", "relative.sock", "UNIX:/a", ":", "x"]
        {
            refused(text, "neither unix: nor tcp:");
        }
    }

    #[test]
    fn bep_12_a_unix_address_is_an_absolute_path_and_nothing_else() {
        assert_eq!(resolved(None, Some("unix:///a/b.sock")).unwrap(), unix("/a/b.sock"));
        assert_eq!(resolved(None, Some("unix:/a/b.sock")).unwrap(), unix("/a/b.sock"));
        for text in ["unix://host/a.sock", "unix:a.sock", "unix:", "unix:///"] {
            refused(text, "absolute path");
        }
        for text in ["unix:///a.sock?x", "unix:///a.sock#x"] {
            refused(text, "has no place in it");
        }
    }

    #[test]
    fn bep_13_a_tcp_address_is_an_ip_address_or_a_dns_name_with_a_port_and_nothing_else() {
        for (text, host, port) in [
            ("tcp://127.0.0.1:8000", "127.0.0.1", 8000),
            ("tcp://[::1]:8000", "::1", 8000),
            ("tcp://broker.example.com:8443", "broker.example.com", 8443),
            ("tcp://localhost:65535", "localhost", 65535),
        ] {
            assert_eq!(resolved(None, Some(text)).unwrap(), tcp(host, port));
            assert_eq!(format!("tcp://{}", tcp(host, port)), text);
        }
        for text in ["tcp://127.0.0.1", "tcp://h", "tcp://"] {
            refused(text, "a port is missing");
        }
        for text in ["tcp://h:", "tcp://h:0", "tcp://h:65536", "tcp://h:+1", "tcp://h:1/foo", "tcp://h:http"]
        {
            refused(text, "the port is none");
        }
        for text in [
            "tcp://u@127.0.0.1:1",
            "tcp://u:p@h:1",
            "tcp://1.2.3:1",
            "tcp://1.2.3.4.5:1",
            "tcp://::1:1",
            "tcp://[127.0.0.1]:1",
            "tcp://[::1:1",
            "tcp://*.example.com:1",
            "tcp://a b:1",
            "tcp://:1",
            "tcp://h/:1",
        ] {
            refused(text, "neither an IP address nor a DNS name");
        }
        for text in ["tcp://h:1?x", "tcp://h:1#x"] {
            refused(text, "has no place in it");
        }
        refused("tcp:h:1", "two slashes");
    }

    #[test]
    fn bap_15_a_process_is_named_to_nobody_but_this_host() {
        assert_eq!(unix("/a.sock").on_this_host().unwrap(), unix("/a.sock"));
        assert_eq!(tcp("127.0.0.1", 1).on_this_host().unwrap(), tcp("127.0.0.1", 1));
        assert_eq!(tcp("127.8.9.1", 1).on_this_host().unwrap(), tcp("127.8.9.1", 1));
        // Addresses of documentation (RFC 5737, RFC 3849) are nobody's.
        for host in ["192.0.2.7", "2001:db8::7"] {
            let fault = tcp(host, 1).on_this_host().unwrap_err();
            assert!(
                fault.what().contains("not of this host") && fault.remedies()[0].contains("Unix socket"),
                "{fault}"
            );
        }
        let fault = tcp("nowhere.invalid", 1).on_this_host().unwrap_err();
        assert!(fault.what().contains("which is nowhere"), "{fault}");
    }
}
