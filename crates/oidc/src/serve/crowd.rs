//! How many connections each address has open, so that one client cannot take all places.

use std::collections::HashMap;
use std::net::IpAddr;

/// Counts connections by address. Of IPv6 the first 64 bits count: one network has all the rest.
pub(super) struct Crowd {
    per_address_max: usize,
    open: HashMap<IpAddr, usize>,
}

impl Crowd {
    pub(super) fn new(per_address_max: usize) -> Self {
        Self { per_address_max, open: HashMap::new() }
    }

    /// Takes a place for a connection from this address; false when it has all that it may have.
    pub(super) fn enter(&mut self, address: IpAddr) -> bool {
        let open = self.open.entry(network(address)).or_default();
        let has_room = *open < self.per_address_max;
        *open += usize::from(has_room);
        has_room
    }

    /// Gives the place of a connection back.
    pub(super) fn left(&mut self, address: Option<IpAddr>) {
        let Some(network) = address.map(network) else { return };
        if let Some(open) = self.open.get_mut(&network) {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&network);
            }
        }
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_places_and_gets_them_back() {
        let mut crowd = Crowd::new(2);
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        assert!(crowd.enter(one) && crowd.enter(one) && !crowd.enter(one) && crowd.enter(other));
        crowd.left(Some(one));
        assert!(crowd.enter(one) && !crowd.enter(one));
        for address in [one, one, other] {
            crowd.left(Some(address));
        }
        assert!(crowd.open.is_empty());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_and_a_mapped_address_as_itself() {
        let mut crowd = Crowd::new(1);
        assert!(crowd.enter("2001:db8::1".parse().unwrap()));
        assert!(!crowd.enter("2001:db8::ffff:2".parse().unwrap()));
        assert!(crowd.enter("2001:db8:0:1::1".parse().unwrap()));
        assert!(crowd.enter("::ffff:192.0.2.1".parse().unwrap()));
        assert!(!crowd.enter("192.0.2.1".parse().unwrap()) && crowd.enter("192.0.2.2".parse().unwrap()));
    }
}
