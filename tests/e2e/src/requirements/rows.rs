//! The list of requirements, `docs/requirements.tsv`.

use std::path::Path;

/// A document of the SPIFFE standards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standard {
    /// JWT-SVID.
    Jwt,
    /// WIT-SVID.
    Wit,
    /// Workload Endpoint.
    Wep,
    /// Workload API.
    Wap,
    /// Broker Endpoint.
    Bep,
    /// Broker API.
    Bap,
}

/// One requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Such as `WAP-40`.
    pub id: String,
    /// Where it is from.
    pub standard: Standard,
    /// MUST, SHOULD or MAY; small with a star when the standard says it in other words.
    pub level: String,
    /// Who has to obey.
    pub binds: String,
    /// The sections of the document.
    pub section: String,
    /// What is demanded, in short.
    pub requirement: String,
}

impl Standard {
    /// All of them, in the order of the page.
    pub const ALL: [Self; 6] = [Self::Jwt, Self::Wit, Self::Wep, Self::Wap, Self::Bep, Self::Bap];

    /// The three letters that its rows begin with.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Jwt => "JWT",
            Self::Wit => "WIT",
            Self::Wep => "WEP",
            Self::Wap => "WAP",
            Self::Bep => "BEP",
            Self::Bap => "BAP",
        }
    }

    /// Its name.
    pub fn title(self) -> &'static str {
        match self {
            Self::Jwt => "JWT-SVID",
            Self::Wit => "WIT-SVID",
            Self::Wep => "Workload Endpoint",
            Self::Wap => "Workload API",
            Self::Bep => "Broker Endpoint",
            Self::Bap => "Broker API",
        }
    }
}

impl Row {
    /// Whether there is no choice about it.
    pub fn is_binding(&self) -> bool {
        matches!(self.level.as_str(), "MUST" | "must*")
    }
}

/// The rows of the list below the repository's `root`.
///
/// # Errors
/// When the list cannot be read, or a line is not five columns that begin with a known ID.
pub fn rows(root: &Path) -> anyhow::Result<Vec<Row>> {
    let text = std::fs::read_to_string(root.join("docs/requirements.tsv"))?;
    text.lines().skip(1).map(|line| row(line).ok_or_else(|| anyhow::anyhow!("no row: {line}"))).collect()
}

fn row(line: &str) -> Option<Row> {
    let cells: Vec<&str> = line.split('\t').collect();
    let [id, level, binds, section, requirement] = cells[..] else { return None };
    let (prefix, _) = id.split_once('-')?;
    let standard = Standard::ALL.into_iter().find(|standard| standard.prefix() == prefix)?;
    let [id, level, binds, section, requirement] =
        [id, level, binds, section, requirement].map(str::to_owned);
    Some(Row { id, standard, level, binds, section, requirement })
}
