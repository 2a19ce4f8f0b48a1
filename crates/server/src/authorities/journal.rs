//! The journal of authorities as it is stored, and back.

use spindle_ca::{AuthorityStatus, AuthorityTrust, JournalEntry, Slot};
use spindle_proto::records::v1 as records;
use spindle_spiffe_core::Timestamp;

/// The journal as a record; entries oldest first.
pub(super) fn encode(entries: &[JournalEntry]) -> records::JournalRecord {
    let authorities = entries
        .iter()
        .map(|entry| {
            let status = match (entry.status, entry.trust) {
                (_, AuthorityTrust::Revoked) => records::AuthorityStatus::Revoked,
                (AuthorityStatus::Prepared, _) => records::AuthorityStatus::Prepared,
                (AuthorityStatus::Active, _) => records::AuthorityStatus::Active,
                (AuthorityStatus::Old, _) => records::AuthorityStatus::Old,
            };
            records::AuthorityRecord {
                slot_key_id: entry.slot.key_id().into(),
                certificate: entry.certificate.to_vec().into(),
                issued_at: entry.issued_at.unix_secs(),
                not_before: entry.not_before.unix_secs(),
                not_after: entry.not_after.unix_secs(),
                status: status.into(),
                authority_id: entry.authority_id.clone(),
                published_revision: 0,
                tainted: entry.trust == AuthorityTrust::Tainted,
            }
        })
        .collect();
    records::JournalRecord { authorities }
}

/// The entries of a stored journal, oldest first; the error names the authority that is damaged.
pub(super) fn decode(journal: &records::JournalRecord) -> Result<Vec<JournalEntry>, String> {
    let entry = |record: &records::AuthorityRecord| {
        let id = &record.authority_id;
        let (status, trust) = match record.status() {
            records::AuthorityStatus::Prepared => (AuthorityStatus::Prepared, AuthorityTrust::Trusted),
            records::AuthorityStatus::Active => (AuthorityStatus::Active, AuthorityTrust::Trusted),
            records::AuthorityStatus::Old if record.tainted => {
                (AuthorityStatus::Old, AuthorityTrust::Tainted)
            }
            records::AuthorityStatus::Old => (AuthorityStatus::Old, AuthorityTrust::Trusted),
            records::AuthorityStatus::Revoked => (AuthorityStatus::Old, AuthorityTrust::Revoked),
            records::AuthorityStatus::Unspecified => return Err(format!("authority {id} has no status")),
        };
        Ok(JournalEntry {
            slot: Slot::of_key_id(&record.slot_key_id)
                .ok_or_else(|| format!("authority {id} has unknown slot {:?}", record.slot_key_id))?,
            certificate: record.certificate.to_vec().into(),
            upstream_chain: Vec::new(),
            issued_at: Timestamp::from_unix_secs(record.issued_at),
            not_before: Timestamp::from_unix_secs(record.not_before),
            not_after: Timestamp::from_unix_secs(record.not_after),
            status,
            trust,
            authority_id: id.clone(),
        })
    };
    journal.authorities.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(status: AuthorityStatus, trust: AuthorityTrust) -> JournalEntry {
        JournalEntry {
            slot: Slot::B,
            certificate: vec![1, 2, 3].into(),
            upstream_chain: Vec::new(),
            issued_at: Timestamp::from_unix_secs(5),
            not_before: Timestamp::from_unix_secs(4),
            not_after: Timestamp::from_unix_secs(9),
            status,
            trust,
            authority_id: "ab".into(),
        }
    }

    #[test]
    fn a_journal_reads_back_as_it_was_written() {
        let entries = [
            entry(AuthorityStatus::Prepared, AuthorityTrust::Trusted),
            entry(AuthorityStatus::Active, AuthorityTrust::Trusted),
            entry(AuthorityStatus::Old, AuthorityTrust::Trusted),
            entry(AuthorityStatus::Old, AuthorityTrust::Tainted),
            entry(AuthorityStatus::Old, AuthorityTrust::Revoked),
        ];
        assert_eq!(decode(&encode(&entries)), Ok(entries.to_vec()));
    }

    #[test]
    fn an_authority_without_status_or_of_an_unknown_slot_is_named() {
        let mut journal = encode(&[entry(AuthorityStatus::Active, AuthorityTrust::Trusted)]);
        journal.authorities[0].slot_key_id = "x509-CA-C".into();
        assert!(decode(&journal).is_err_and(|why| why.contains("ab") && why.contains("x509-CA-C")));
        journal.authorities[0].status = records::AuthorityStatus::Unspecified.into();
        assert!(decode(&journal).is_err_and(|why| why.contains("no status")));
    }
}
