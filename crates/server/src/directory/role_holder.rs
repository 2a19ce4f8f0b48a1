//! The stored roles of one identity.

use prost::Message;
use spindle_proto::records::v1 as records;
use spindle_spiffe_core::SpiffeId;

use crate::roles::{Grant, grant_from_record, grant_to_record};

/// An identity that was given roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RoleHolder {
    pub(crate) spiffe_id: SpiffeId,
    /// Never empty.
    pub(crate) grants: Vec<Grant>,
    /// Store revision of the last change; what a write is based on.
    pub(crate) revision: u64,
}

impl RoleHolder {
    /// The roles of `id` as they are stored.
    pub(crate) fn encode(id: &SpiffeId, grants: &[Grant]) -> Vec<u8> {
        let grants = grants.iter().map(grant_to_record).collect();
        records::RolesRecord { spiffe_id: id.to_string(), grants }.encode_to_vec()
    }

    pub(crate) fn from_record(record: records::RolesRecord, revision: u64) -> Result<Self, String> {
        let grants = record.grants.into_iter().map(grant_from_record).collect::<Result<_, _>>();
        Ok(Self {
            spiffe_id: record.spiffe_id.parse().map_err(|error| format!("bad SPIFFE ID: {error}"))?,
            grants: grants.map_err(|error| error.to_string())?,
            revision,
        })
    }
}
