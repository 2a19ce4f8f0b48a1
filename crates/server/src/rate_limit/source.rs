//! Whose call it is, for a limit: the identity that the connection proved, or else where it comes from.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use spindle_spiffe_core::SpiffeId;
use spindle_transport::Peer;
use tonic::Request;

/// What a caller is told from others by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Who it is, wherever it calls from.
    Identity(SpiffeId),
    /// Where it calls from; of version 6 the network, as one machine may have all addresses of it.
    Address(IpAddr),
}

/// One call's place among all calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(super) key: Key,
    /// The connection, when it does not tell who calls.
    pub(super) connection: Option<SocketAddr>,
    /// How long the caller will wait, if it says so.
    pub(super) patience: Option<Duration>,
}

/// Whose call it is; none when it came over the admin socket, which has no limits.
pub(crate) fn source_of<T>(request: &Request<T>) -> Option<Source> {
    let Peer::Tls { addr, identity } = request.extensions().get::<Peer>()? else { return None };
    let patience = request.metadata().get("grpc-timeout").and_then(|text| timeout(text.to_str().ok()?));
    Some(match identity {
        Some(peer) => Source { key: Key::Identity(peer.spiffe_id().clone()), connection: None, patience },
        None => Source { key: Key::Address(network(addr.ip())), connection: Some(*addr), patience },
    })
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

/// `1S`, `250m`: at most eight digits and a unit. Anything else is no deadline, as it is for the gRPC library.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
impl Source {
    /// A call of a stranger.
    pub(super) fn stranger(host: u32, port: u16) -> Self {
        let address = IpAddr::from(std::net::Ipv4Addr::from(host));
        let connection = Some(SocketAddr::new(address, port));
        Self { key: Key::Address(network(address)), connection, patience: None }
    }

    /// A call of somebody who is known.
    pub(super) fn known(id: &str) -> Self {
        Self { key: Key::Identity(id.parse().unwrap()), connection: None, patience: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_of_version_6_and_one_address_of_version_4_are_one_caller() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("192.0.2.7"), "192.0.2.7");
        assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }

    #[test]
    fn a_deadline_is_read_in_every_unit() {
        for (text, millis) in [("1H", 3_600_000), ("2M", 120_000), ("3S", 3000), ("250m", 250), ("7000u", 7)]
        {
            assert_eq!(timeout(text), Some(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(timeout("99999999n"), Some(Duration::from_nanos(99_999_999)));
        assert_eq!(timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
    }

    #[test]
    fn what_is_no_deadline_is_none() {
        for text in ["", "S", "1", "1s", "-1S", "+1S", "123456789S", "1 S", "1ä", "ä", "1.5S"] {
            assert_eq!(timeout(text), None, "{text:?}");
        }
    }
}
