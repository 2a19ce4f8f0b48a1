//! Who may call, and how each may name workloads: a list from the configuration, and nobody else (Broker API 4.1).
//!
//! Pure. Start at [`Brokers::find`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use spindle_spiffe_core::SpiffeId;

use crate::config::{ANY_REFERENCE_TYPE, AllowedBroker, AllowedReferenceType};

/// How a call came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From this machine, over the Unix socket.
    Local,
    /// Over TCP, perhaps from another machine, where the number of a process means another one.
    Tcp,
}

/// The brokers by their SPIFFE IDs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Brokers(BTreeMap<SpiffeId, Allowed>);

/// How one broker may name workloads.
#[derive(Clone, Debug)]
pub(super) struct Allowed(Arc<[AllowedReferenceType]>);

/// A broker may not name workloads in that way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// Not at all.
    Type(String),
    /// Not over TCP.
    OverTcp(String),
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type(url) => write!(f, "the broker may not name workloads by {url}"),
            Self::OverTcp(url) => write!(f, "the broker may not name workloads by {url} over TCP"),
        }
    }
}

impl Brokers {
    pub(crate) fn new(listed: &[AllowedBroker]) -> Self {
        let pair =
            |one: &AllowedBroker| (one.id.clone(), Allowed(one.allowed_reference_types.clone().into()));
        Self(listed.iter().map(pair).collect())
    }

    /// What the process with this identity may, if it is a broker.
    pub(super) fn find(&self, id: &SpiffeId) -> Option<&Allowed> {
        self.0.get(id)
    }
}

impl Allowed {
    /// Whether workloads may be named by `type_url` in a call that came this way.
    pub(super) fn check(&self, type_url: &str, way: Way) -> Result<(), Denied> {
        let mut fitting = self
            .0
            .iter()
            .filter(|one| one.type_url == type_url || one.type_url == ANY_REFERENCE_TYPE)
            .peekable();
        if fitting.peek().is_none() {
            return Err(Denied::Type(type_url.to_owned()));
        }
        if way == Way::Tcp && !fitting.any(|one| one.allow_over_tcp) {
            return Err(Denied::OverTcp(type_url.to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(types: &[(&str, bool)]) -> Allowed {
        let types = types
            .iter()
            .map(|(url, tcp)| AllowedReferenceType { type_url: (*url).into(), allow_over_tcp: *tcp });
        Allowed(types.collect())
    }

    #[test]
    fn bap_08_bap_16_bap_31_a_type_has_to_be_listed_and_over_tcp_by_name() {
        let some = allowed(&[("pid", false), ("object", true)]);
        let (local, tcp) = (Way::Local, Way::Tcp);
        assert_eq!(some.check("pid", local), Ok(()));
        assert_eq!(some.check("pid", tcp), Err(Denied::OverTcp("pid".into())));
        assert_eq!(some.check("object", tcp), Ok(()));
        assert_eq!(some.check("other", local), Err(Denied::Type("other".into())));
        assert_eq!(some.check("pi", local), Err(Denied::Type("pi".into())));
        let any = allowed(&[("*", false)]);
        assert_eq!(any.check("pid", local), Ok(()));
        assert_eq!(any.check("pid", tcp), Err(Denied::OverTcp("pid".into())));
        assert_eq!(allowed(&[("*", true)]).check("pid", tcp), Ok(()));
        assert!(allowed(&[]).check("pid", local).is_err());
    }

    #[test]
    fn bap_30_an_empty_list_has_no_broker() {
        let id = "spiffe://prod.example/broker".parse().unwrap();
        assert!(Brokers::new(&[]).find(&id).is_none());
        let one = AllowedBroker { id, allowed_reference_types: Vec::new() };
        let brokers = Brokers::new(std::slice::from_ref(&one));
        assert!(brokers.find(&one.id).is_some());
        for other in ["spiffe://prod.example/broker/x", "spiffe://prod.example/brok", "spiffe://prod.example"]
        {
            assert!(brokers.find(&other.parse().unwrap()).is_none(), "{other}");
        }
    }
}
