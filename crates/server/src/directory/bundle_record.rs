//! Trust bundles as stored records, and back.

use prost::Message;
use spindle_proto::records::v1 as records;
use spindle_spiffe_core::{Bundle, Timestamp, TokenAuthority, X509Authority};

/// The bundle as it is stored.
pub(crate) fn encode(bundle: &Bundle) -> Vec<u8> {
    let authorities = bundle.x509_authorities.iter().map(|authority| records::X509AuthorityRecord {
        der: authority.der().to_vec().into(),
        tainted: authority.is_tainted(),
    });
    records::BundleRecord {
        trust_domain: bundle.trust_domain.to_string(),
        authorities: authorities.collect(),
        jwt_authorities: bundle.jwt_authorities.iter().map(token_record).collect(),
        sequence_number: bundle.sequence,
        refresh_hint: bundle.refresh_hint_secs.unwrap_or(0),
        wit_authorities: bundle.wit_authorities.iter().map(token_record).collect(),
    }
    .encode_to_vec()
}

fn token_record(authority: &TokenAuthority) -> records::TokenAuthorityRecord {
    records::TokenAuthorityRecord {
        public_key: authority.spki_der().to_vec().into(),
        kid: authority.kid().to_owned(),
        expires_at: authority.expires_at().map_or(0, Timestamp::unix_secs),
        tainted: authority.is_tainted(),
    }
}

fn tokens(records: &[records::TokenAuthorityRecord]) -> Result<Vec<TokenAuthority>, String> {
    let token = |record: &records::TokenAuthorityRecord| {
        let expires_at = (record.expires_at != 0).then(|| Timestamp::from_unix_secs(record.expires_at));
        TokenAuthority::new(&record.kid, &record.public_key, expires_at, record.tainted)
    };
    records.iter().map(token).collect::<Result<_, _>>().map_err(|error| error.to_string())
}

pub(crate) fn from_record(record: records::BundleRecord) -> Result<Bundle, String> {
    let trust_domain = record.trust_domain.parse().map_err(|error| format!("bad trust domain: {error}"))?;
    let mut bundle = Bundle::new(trust_domain);
    for authority in record.authorities {
        let parsed =
            X509Authority::parse(authority.der.to_vec().into()).map_err(|error| error.to_string())?;
        bundle.x509_authorities.push(parsed.with_taint(authority.tainted));
    }
    bundle.jwt_authorities = tokens(&record.jwt_authorities)?;
    bundle.wit_authorities = tokens(&record.wit_authorities)?;
    bundle.sequence = record.sequence_number;
    bundle.refresh_hint_secs = (record.refresh_hint != 0).then_some(record.refresh_hint);
    Ok(bundle)
}
