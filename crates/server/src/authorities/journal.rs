//! The journal of authorities as it is stored, and back. All families have records of one kind.

use spindle_ca::{
    AuthorityStatus, AuthorityTrust, CaCertificate, Family, JournalEntry, Slot, TokenFamily, TokenPublicKey,
};
use spindle_proto::records::v1 as records;
use spindle_spiffe_core::Timestamp;

/// What is public of an authority, in the fields of a record that are for its family.
pub(super) trait Stored: Sized {
    const FAMILY: Family;

    fn put(&self, record: &mut records::AuthorityRecord);

    fn get(record: &records::AuthorityRecord) -> Self;
}

impl Stored for CaCertificate {
    const FAMILY: Family = Family::X509;

    fn put(&self, record: &mut records::AuthorityRecord) {
        record.certificate = self.certificate.to_vec().into();
        record.upstream_chain = self.upstream_chain.iter().map(|der| der.to_vec().into()).collect();
    }

    fn get(record: &records::AuthorityRecord) -> Self {
        Self {
            certificate: record.certificate.to_vec().into(),
            upstream_chain: record.upstream_chain.iter().map(|der| der.to_vec().into()).collect(),
        }
    }
}

impl<F: TokenFamily> Stored for TokenPublicKey<F> {
    const FAMILY: Family = F::FAMILY;

    fn put(&self, record: &mut records::AuthorityRecord) {
        record.public_key = self.spki_der.clone().into();
    }

    fn get(record: &records::AuthorityRecord) -> Self {
        Self::new(record.public_key.to_vec())
    }
}

/// The journal as a record; entries oldest first.
pub(super) fn encode<P: Stored>(entries: &[JournalEntry<P>]) -> records::JournalRecord {
    let authorities = entries
        .iter()
        .map(|entry| {
            let status = match (entry.status, entry.trust) {
                (_, AuthorityTrust::Revoked) => records::AuthorityStatus::Revoked,
                (AuthorityStatus::Prepared, _) => records::AuthorityStatus::Prepared,
                (AuthorityStatus::Active, _) => records::AuthorityStatus::Active,
                (AuthorityStatus::Old, _) => records::AuthorityStatus::Old,
            };
            let mut record = records::AuthorityRecord {
                slot_key_id: entry.slot.key_id(P::FAMILY).into(),
                issued_at: entry.issued_at.unix_secs(),
                not_before: entry.not_before.unix_secs(),
                not_after: entry.not_after.unix_secs(),
                status: status.into(),
                authority_id: entry.authority_id.clone(),
                tainted: entry.trust == AuthorityTrust::Tainted,
                ..Default::default()
            };
            entry.public.put(&mut record);
            record
        })
        .collect();
    records::JournalRecord { authorities }
}

/// The entries of a stored journal, oldest first; the error names the authority that is damaged.
pub(super) fn decode<P: Stored>(journal: &records::JournalRecord) -> Result<Vec<JournalEntry<P>>, String> {
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
            slot: Slot::of_key_id(P::FAMILY, &record.slot_key_id)
                .ok_or_else(|| format!("authority {id} has unknown slot {:?}", record.slot_key_id))?,
            public: P::get(record),
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
    use spindle_ca::{Jwt, Wit};

    use super::*;

    fn certificate() -> CaCertificate {
        CaCertificate { certificate: vec![1, 2, 3].into(), upstream_chain: Vec::new() }
    }

    fn entry<P>(public: P, status: AuthorityStatus, trust: AuthorityTrust) -> JournalEntry<P> {
        JournalEntry {
            slot: Slot::B,
            public,
            issued_at: Timestamp::from_unix_secs(5),
            not_before: Timestamp::from_unix_secs(4),
            not_after: Timestamp::from_unix_secs(9),
            status,
            trust,
            authority_id: "ab".into(),
        }
    }

    fn reads_back<P: Stored + Clone + PartialEq + std::fmt::Debug>(public: &P) {
        let entries = [
            (AuthorityStatus::Prepared, AuthorityTrust::Trusted),
            (AuthorityStatus::Active, AuthorityTrust::Trusted),
            (AuthorityStatus::Old, AuthorityTrust::Trusted),
            (AuthorityStatus::Old, AuthorityTrust::Tainted),
            (AuthorityStatus::Old, AuthorityTrust::Revoked),
        ]
        .map(|(status, trust)| entry(public.clone(), status, trust));
        assert_eq!(decode(&encode(&entries)), Ok(entries.to_vec()));
    }

    #[test]
    fn a_journal_reads_back_as_it_was_written() {
        reads_back(&certificate());
        reads_back(&TokenPublicKey::<Jwt>::new(vec![1, 2, 3]));
        reads_back(&TokenPublicKey::<Wit>::new(vec![1, 2, 3]));
    }

    #[test]
    fn a_journal_that_was_written_before_there_were_jwt_authorities_is_read() {
        let record = records::AuthorityRecord {
            slot_key_id: "x509-CA-A".into(),
            certificate: vec![1, 2, 3].into(),
            status: records::AuthorityStatus::Active.into(),
            ..Default::default()
        };
        let journal = records::JournalRecord { authorities: vec![record] };
        assert_eq!(decode::<CaCertificate>(&journal).unwrap()[0].public, certificate());
        assert!(decode::<TokenPublicKey<Jwt>>(&journal).is_err_and(|why| why.contains("x509-CA-A")));
    }

    #[test]
    fn an_authority_without_status_or_of_an_unknown_slot_is_named() {
        let mut journal = encode(&[entry(certificate(), AuthorityStatus::Active, AuthorityTrust::Trusted)]);
        let why = |journal: &records::JournalRecord| decode::<CaCertificate>(journal).unwrap_err();
        journal.authorities[0].slot_key_id = "x509-CA-C".into();
        assert!(why(&journal).contains("ab") && why(&journal).contains("x509-CA-C"));
        journal.authorities[0].status = records::AuthorityStatus::Unspecified.into();
        assert!(why(&journal).contains("no status"));
    }
}
