//! Trust bundles as stored records, and back.

use prost::Message;
use spindle_proto::records::v1 as records;
use spindle_spiffe_core::{Bundle, JwtAuthority, Timestamp, X509Authority};

/// The bundle as it is stored.
pub(crate) fn encode(bundle: &Bundle) -> Vec<u8> {
    let authorities = bundle.x509_authorities.iter().map(|authority| records::X509AuthorityRecord {
        der: authority.der().to_vec().into(),
        tainted: authority.is_tainted(),
    });
    let jwt_authorities = bundle.jwt_authorities.iter().map(|jwt| records::JwtAuthorityRecord {
        public_key: jwt.spki_der().to_vec().into(),
        kid: jwt.kid().to_owned(),
        expires_at: jwt.expires_at().map_or(0, Timestamp::unix_secs),
        tainted: jwt.is_tainted(),
    });
    records::BundleRecord {
        trust_domain: bundle.trust_domain.to_string(),
        authorities: authorities.collect(),
        jwt_authorities: jwt_authorities.collect(),
        sequence_number: bundle.sequence,
        refresh_hint: bundle.refresh_hint_secs.unwrap_or(0),
    }
    .encode_to_vec()
}

pub(crate) fn from_record(record: records::BundleRecord) -> Result<Bundle, String> {
    let trust_domain = record.trust_domain.parse().map_err(|error| format!("bad trust domain: {error}"))?;
    let mut bundle = Bundle::new(trust_domain);
    for authority in record.authorities {
        let parsed =
            X509Authority::parse(authority.der.to_vec().into()).map_err(|error| error.to_string())?;
        bundle.x509_authorities.push(parsed.with_taint(authority.tainted));
    }
    for jwt in record.jwt_authorities {
        let expires_at = (jwt.expires_at != 0).then(|| Timestamp::from_unix_secs(jwt.expires_at));
        let parsed = JwtAuthority::new(&jwt.kid, &jwt.public_key, expires_at, jwt.tainted)
            .map_err(|error| error.to_string())?;
        bundle.jwt_authorities.push(parsed);
    }
    bundle.sequence = record.sequence_number;
    bundle.refresh_hint_secs = (record.refresh_hint != 0).then_some(record.refresh_hint);
    Ok(bundle)
}
