//! One attested agent as the directory keeps it.

use spindle_proto::records::v1 as records;
use spindle_spiffe_core::{Selector, Selectors, SpiffeId, Timestamp};

/// An attested agent. A banned agent keeps its row, so that it cannot attest again until it is evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentRow {
    pub(crate) spiffe_id: SpiffeId,
    pub(crate) attestation_type: String,
    /// Decimal serial of the SVID in use; empty when banned.
    pub(crate) serial: String,
    pub(crate) expires_at: Timestamp,
    /// A renewed SVID that has not been used yet: decimal serial and expiry.
    pub(crate) renewed: Option<(String, Timestamp)>,
    pub(crate) can_reattest: bool,
    pub(crate) agent_version: String,
    pub(crate) selectors: Selectors,
    pub(crate) banned: bool,
    /// Store revision of the last change; what a write is based on.
    pub(crate) revision: u64,
}

impl AgentRow {
    /// The row as it is stored.
    pub(crate) fn encode(&self) -> Vec<u8> {
        prost::Message::encode_to_vec(&self.to_record())
    }

    fn to_record(&self) -> records::AgentRecord {
        let (new_serial_number, new_expires_at) =
            self.renewed.clone().map_or((String::new(), 0), |(serial, at)| (serial, at.unix_secs()));
        records::AgentRecord {
            spiffe_id: self.spiffe_id.to_string(),
            attestation_type: self.attestation_type.clone(),
            serial_number: self.serial.clone(),
            expires_at: self.expires_at.unix_secs(),
            new_serial_number,
            new_expires_at,
            can_reattest: self.can_reattest,
            agent_version: self.agent_version.clone(),
            selectors: self
                .selectors
                .iter()
                .map(|s| records::SelectorRecord { kind: s.kind().into(), value: s.value().into() })
                .collect(),
            banned: self.banned,
        }
    }

    pub(crate) fn from_record(record: records::AgentRecord, revision: u64) -> Result<Self, String> {
        let selectors = record
            .selectors
            .iter()
            .map(|s| Selector::new(&s.kind, &s.value))
            .collect::<Result<Vec<_>, _>>()
            .and_then(Selectors::new)
            .map_err(|error| error.to_string())?;
        let renewed = (!record.new_serial_number.is_empty())
            .then(|| (record.new_serial_number, Timestamp::from_unix_secs(record.new_expires_at)));
        Ok(Self {
            spiffe_id: record.spiffe_id.parse().map_err(|error| format!("bad SPIFFE ID: {error}"))?,
            attestation_type: record.attestation_type,
            serial: record.serial_number,
            expires_at: Timestamp::from_unix_secs(record.expires_at),
            renewed,
            can_reattest: record.can_reattest,
            agent_version: record.agent_version,
            selectors,
            banned: record.banned,
            revision,
        })
    }
}
