//! What a workload of the demo tells its parent, one line each.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// One line of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// It has a new SVID with this serial number.
    Svid(String),
    /// It answers here.
    Listening(SocketAddr),
    /// Handshakes so far: good ones and failed ones.
    Handshakes(u64, u64),
    /// A handshake or call failed.
    Fault(String),
    /// Its stream of SVIDs ended, or it got none.
    Ended(String),
    /// A call without an identity was refused.
    Refused(String),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Svid(serial) => write!(f, "svid {serial}"),
            Event::Listening(addr) => write!(f, "listening {addr}"),
            Event::Handshakes(good, failed) => write!(f, "handshakes {good} {failed}"),
            Event::Fault(why) => write!(f, "fault {}", one_line(why)),
            Event::Ended(why) => write!(f, "ended {}", one_line(why)),
            Event::Refused(why) => write!(f, "refused {}", one_line(why)),
        }
    }
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

impl FromStr for Event {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let malformed = || format!("a workload said {line:?}");
        let (word, rest) = line.split_once(' ').ok_or_else(malformed)?;
        Ok(match word {
            "svid" => Event::Svid(rest.into()),
            "listening" => Event::Listening(rest.parse().map_err(|_| malformed())?),
            "handshakes" => {
                let (good, failed) = rest.split_once(' ').ok_or_else(malformed)?;
                Event::Handshakes(
                    good.parse().map_err(|_| malformed())?,
                    failed.parse().map_err(|_| malformed())?,
                )
            }
            "fault" => Event::Fault(rest.into()),
            "ended" => Event::Ended(rest.into()),
            "refused" => Event::Refused(rest.into()),
            _ => return Err(malformed()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_survives_its_line() {
        for event in [
            Event::Svid("12".into()),
            Event::Listening("127.0.0.1:9".parse().unwrap()),
            Event::Handshakes(5, 0),
            Event::Fault("no route".into()),
            Event::Ended("denied".into()),
            Event::Refused("no certificate".into()),
        ] {
            assert_eq!(event.to_string().parse(), Ok(event));
        }
    }

    #[test]
    fn other_lines_are_refused() {
        for line in ["", "svid", "listening here", "handshakes 1", "handshakes a b", "panic at"] {
            assert!(line.parse::<Event>().is_err(), "{line}");
        }
    }
}
