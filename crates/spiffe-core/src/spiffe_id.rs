//! SPIFFE IDs, SPIFFE-ID 2: `spiffe://` + trust domain + path, parsed byte by byte.
//!
//! No URL library is involved: those normalise case, percent signs and dots, and every such step would make two
//! spellings of one identity. An ID longer than 2048 bytes is refused on input as well as never made.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::trust_domain::{TrustDomain, TrustDomainError};

/// The longest SPIFFE ID, in bytes, scheme included (SPIFFE-ID 2.3).
pub const ID_BYTES_MAX: usize = 2048;

const SCHEME: &str = "spiffe://";

/// A valid SPIFFE ID such as `spiffe://prod.example/web`. Clones share their bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    uri: Arc<str>,
    /// Where the path starts; the length of `uri` when there is none.
    path_at: u16,
}

/// Why a text is not a SPIFFE ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    /// Longer than [`ID_BYTES_MAX`].
    #[error("a SPIFFE ID has at most {ID_BYTES_MAX} bytes, this one has {0}")]
    Length(usize),
    /// The text does not start with `spiffe://`.
    #[error("a SPIFFE ID starts with \"spiffe://\", in lower case")]
    Scheme,
    /// The part between the scheme and the path.
    #[error("bad trust domain in SPIFFE ID")]
    TrustDomain(#[from] TrustDomainError),
    /// A path that does not start with a slash.
    #[error("the path of a SPIFFE ID starts with a slash")]
    PathStart,
    /// Two slashes in a row, or a slash at the end.
    #[error("the path of a SPIFFE ID has no empty segment and no slash at its end (segment {segment})")]
    EmptySegment {
        /// Number of the segment, counted from 1.
        segment: usize,
    },
    /// A segment that is `.` or `..`.
    #[error("no segment of a SPIFFE ID's path is \".\" or \"..\" (segment {segment})")]
    DotSegment {
        /// Number of the segment, counted from 1.
        segment: usize,
    },
    /// A byte outside `[a-zA-Z0-9.-_]` in the path.
    #[error(
        "the path of a SPIFFE ID is made of letters, digits, dot, dash and underscore; byte {at} (0x{byte:02x}) is not"
    )]
    PathByte {
        /// Offset of the first bad byte, counted from the start of the ID.
        at: usize,
        /// The bad byte.
        byte: u8,
    },
}

impl SpiffeId {
    /// The whole ID as text.
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The trust domain this ID belongs to.
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain::from_checked(self.trust_domain_name())
    }

    /// The bare name of the trust domain.
    pub fn trust_domain_name(&self) -> &str {
        &self.uri[SCHEME.len()..usize::from(self.path_at)]
    }

    /// The path with its leading slash, or an empty text.
    pub fn path(&self) -> &str {
        &self.uri[usize::from(self.path_at)..]
    }

    /// Whether this ID lies in `trust_domain`.
    pub fn is_member_of(&self, trust_domain: &TrustDomain) -> bool {
        self.trust_domain_name() == trust_domain.name()
    }

    /// Whether the path is `/spire` or below it: reserved for servers and agents, refused for workloads.
    pub fn is_reserved(&self) -> bool {
        self.path() == "/spire" || self.path().starts_with("/spire/")
    }

    /// Whether this is the ID of an agent: a path below `/spire/agent/`.
    pub fn is_agent(&self) -> bool {
        self.path().starts_with("/spire/agent/")
    }

    pub(crate) fn of_trust_domain(trust_domain: &TrustDomain) -> Self {
        let uri = format!("{SCHEME}{}", trust_domain.name());
        let path_at = path_offset(uri.len());
        Self { uri: uri.into(), path_at }
    }

    pub(crate) fn from_parts(trust_domain: &TrustDomain, path: &str) -> Result<Self, SpiffeIdError> {
        let path_at = SCHEME.len() + trust_domain.name().len();
        check_length(path_at + path.len())?;
        check_path(path.as_bytes(), path_at)?;
        Ok(Self {
            uri: format!("{SCHEME}{}{path}", trust_domain.name()).into(),
            path_at: path_offset(path_at),
        })
    }
}

/// Offsets are below 2048 once the length was checked, or below 264 for a bare trust domain: both fit 16 bits.
fn path_offset(at: usize) -> u16 {
    u16::try_from(at).expect("a checked SPIFFE ID is shorter than 64 KiB")
}

fn check_length(bytes: usize) -> Result<(), SpiffeIdError> {
    if bytes > ID_BYTES_MAX { Err(SpiffeIdError::Length(bytes)) } else { Ok(()) }
}

fn check_path(path: &[u8], offset: usize) -> Result<(), SpiffeIdError> {
    let Some((first, segments)) = path.split_first() else { return Ok(()) };
    if *first != b'/' {
        return Err(SpiffeIdError::PathStart);
    }
    if let Some(at) = path.iter().position(|&byte| !is_path_byte(byte)) {
        return Err(SpiffeIdError::PathByte { at: offset + at, byte: path[at] });
    }
    for (index, segment) in segments.split(|&byte| byte == b'/').enumerate() {
        match segment {
            b"" => return Err(SpiffeIdError::EmptySegment { segment: index + 1 }),
            b"." | b".." => return Err(SpiffeIdError::DotSegment { segment: index + 1 }),
            _ => {}
        }
    }
    Ok(())
}

fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'/')
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(uri: &str) -> Result<Self, Self::Err> {
        check_length(uri.len())?;
        let rest = uri.strip_prefix(SCHEME).ok_or(SpiffeIdError::Scheme)?.as_bytes();
        let name_bytes = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
        TrustDomain::check(&rest[..name_bytes])?;
        let path_at = SCHEME.len() + name_bytes;
        check_path(&rest[name_bytes..], path_at)?;
        Ok(Self { uri: uri.into(), path_at: path_offset(path_at) })
    }
}

impl From<TrustDomain> for SpiffeId {
    fn from(trust_domain: TrustDomain) -> Self {
        trust_domain.id()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[&str] = &[
        "spiffe://td",
        "spiffe://td/a",
        "spiffe://td/a/b/c",
        "spiffe://a.b-c_d/A.b-C_9",
        "spiffe://1.2.3.4/a",
        "spiffe://1/1",
        "spiffe://-/a",
        "spiffe://./a",
        "spiffe://../a",
        "spiffe://_/a",
        "spiffe://td/...",
        "spiffe://td/.a",
        "spiffe://td/a.",
        "spiffe://td/-",
        "spiffe://td/_",
    ];

    const BAD: &[&str] = &[
        "",
        "td",
        "/td/a",
        "spiffe",
        "spiffe:",
        "spiffe:/",
        "spiffe://",
        "spiffe:///a",
        "spiffe:td/a",
        "spiffe:/td/a",
        "http://td/a",
        " spiffe://td/a",
        "spiffe://td/a ",
        "spiffe://td/",
        "spiffe://td//",
        "spiffe://td//a",
        "spiffe://td/a//b",
        "spiffe://td/a/",
        "spiffe://td/.",
        "spiffe://td/..",
        "spiffe://td/./a",
        "spiffe://td/a/../b",
        "spiffe://td:1/a",
        "spiffe://td:/a",
        "spiffe://u@td/a",
        "spiffe://@td/a",
        "spiffe://[::1]/a",
        "spiffe://t%64/a",
        "spiffe://td/%41",
        "spiffe://td/a?",
        "spiffe://td/a?x",
        "spiffe://td/a#",
        "spiffe://td?x",
        "spiffe://td/a~b",
        "spiffe://td/a+b",
        "spiffe://td/a@b",
        "spiffe://td/a:b",
        "spiffe://td/a*",
        "spiffe://td/a\\b",
        "spiffe://td/a\0",
        "spiffe://td\n/a",
        "SPIFFE://td/a",
        "spiffe://TD/a",
    ];

    fn td() -> TrustDomain {
        "td".parse().unwrap()
    }

    #[test]
    fn good_ids_keep_their_text_and_come_apart_and_together() {
        for text in GOOD {
            let id: SpiffeId = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(id.to_string(), *text);
            assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), *text);
            assert_eq!(id.trust_domain().member(id.path()).unwrap(), id);
        }
    }

    #[test]
    fn bad_ids_are_refused() {
        for text in BAD {
            assert!(text.parse::<SpiffeId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn no_control_byte_and_no_byte_above_0x7f_passes_at_any_place() {
        for byte in (0..=0x1f).chain(0x7f..=0xff_u8) {
            let strange = char::from(byte);
            for text in [
                format!("spiffe://t{strange}d/a"),
                format!("spiffe://td/a{strange}"),
                format!("{strange}spiffe://td"),
            ] {
                assert!(text.parse::<SpiffeId>().is_err(), "{text:?}");
            }
        }
    }

    #[test]
    fn an_error_names_place_and_value_of_the_first_bad_byte() {
        let error = "spiffe://td/a b c".parse::<SpiffeId>().unwrap_err();
        assert_eq!(error, SpiffeIdError::PathByte { at: 13, byte: b' ' });
        assert!(error.to_string().contains("byte 13 (0x20)"), "{error}");
    }

    #[test]
    fn a_path_without_a_slash_at_its_start_is_no_member() {
        assert_eq!(td().member("a"), Err(SpiffeIdError::PathStart));
        assert_eq!(td().member("/"), Err(SpiffeIdError::EmptySegment { segment: 1 }));
        assert_eq!(td().member("").unwrap(), td().id());
        assert_eq!(SpiffeId::from(td()).as_str(), "spiffe://td");
        assert_eq!(td().server_id().as_str(), "spiffe://td/spire/server");
    }

    #[test]
    fn reserved_paths_are_spire_itself_and_what_lies_below() {
        for (path, is_reserved, is_agent) in [
            ("/spire", true, false),
            ("/spire/server", true, false),
            ("/spire/agent", true, false),
            ("/spire/agent/join_token/x", true, true),
            ("/spirex", false, false),
            ("/Spire/server", false, false),
            ("/a/spire/agent/x", false, false),
            ("", false, false),
        ] {
            let id = td().member(path).unwrap();
            assert_eq!((id.is_reserved(), id.is_agent()), (is_reserved, is_agent), "{id}");
        }
    }

    #[test]
    fn membership_compares_whole_names() {
        let id: SpiffeId = "spiffe://td.example/a".parse().unwrap();
        assert!(!id.is_member_of(&td()));
        assert!(id.is_member_of(&"td.example".parse().unwrap()));
    }

    #[test]
    fn a_trust_domain_of_255_bytes_leaves_room_for_a_path_up_to_2048() {
        let long: TrustDomain = "t".repeat(255).parse().unwrap();
        assert_eq!(long.id().as_str().len(), 264);
        assert_eq!(long.member(&format!("/{}", "a".repeat(2048 - 265))).unwrap().as_str().len(), 2048);
        assert_eq!(long.member(&format!("/{}", "a".repeat(2048 - 264))), Err(SpiffeIdError::Length(2049)));
    }
}
