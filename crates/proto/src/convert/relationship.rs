//! Federation relationships as they travel and as the server stores them.

use spindle_spiffe_core::{Bundle, EndpointProfile, FederationRelationship};

use super::bundle::{bundle_to_proto, given_bundle_from_proto};
use super::fault::{ConvertError, Fault, Field, InField};
use super::names::trust_domain_from_proto;
use crate::records::v1 as records;
use crate::spire::api::types;
use crate::spire::api::types::federation_relationship::BundleEndpointProfile as WireProfile;

/// The relationship with all its fields, and the bundle that is stored for its trust domain.
pub fn relationship_to_proto(
    relationship: &FederationRelationship,
    bundle: Option<&Bundle>,
) -> types::FederationRelationship {
    let profile = match &relationship.profile {
        EndpointProfile::HttpsWeb => WireProfile::HttpsWeb(types::HttpsWebProfile {}),
        EndpointProfile::HttpsSpiffe { endpoint_id } => WireProfile::HttpsSpiffe(types::HttpsspiffeProfile {
            endpoint_spiffe_id: endpoint_id.to_string(),
        }),
    };
    types::FederationRelationship {
        trust_domain: relationship.trust_domain.name().into(),
        bundle_endpoint_url: relationship.url.as_str().into(),
        bundle_endpoint_profile: Some(profile),
        trust_domain_bundle: bundle.map(bundle_to_proto),
    }
}

/// The relationship that somebody outside describes, and the bundle that comes with it.
///
/// # Errors
/// The first field that is malformed, or a bundle of another trust domain.
pub fn relationship_from_proto(
    wire: &types::FederationRelationship,
) -> Result<(FederationRelationship, Option<Bundle>), ConvertError> {
    let relationship = FederationRelationship {
        trust_domain: trust_domain_from_proto(&wire.trust_domain).field(Field::TrustDomain)?,
        url: wire.bundle_endpoint_url.parse().field(Field::EndpointUrl)?,
        profile: profile(wire.bundle_endpoint_profile.as_ref())?,
    };
    let bundle = wire.trust_domain_bundle.as_ref().map(given_bundle_from_proto).transpose()?;
    if let Some(bundle) = &bundle
        && bundle.trust_domain != relationship.trust_domain
    {
        let (bundle, wanted) = (bundle.trust_domain.clone(), relationship.trust_domain);
        return Err(Fault::OtherTrustDomain { bundle, wanted }).field(Field::TrustDomainBundle);
    }
    Ok((relationship, bundle))
}

fn profile(wire: Option<&WireProfile>) -> Result<EndpointProfile, ConvertError> {
    match wire {
        None => Err(Fault::Missing).field(Field::EndpointProfile),
        Some(WireProfile::HttpsWeb(_)) => Ok(EndpointProfile::HttpsWeb),
        Some(WireProfile::HttpsSpiffe(spiffe)) => {
            let endpoint_id = spiffe.endpoint_spiffe_id.parse().field(Field::EndpointSpiffeId)?;
            Ok(EndpointProfile::HttpsSpiffe { endpoint_id })
        }
    }
}

/// The relationship as a record.
pub fn relationship_to_record(relationship: &FederationRelationship) -> records::RelationshipRecord {
    let (profile, endpoint_spiffe_id) = match &relationship.profile {
        EndpointProfile::HttpsWeb => (records::EndpointProfile::HttpsWeb, String::new()),
        EndpointProfile::HttpsSpiffe { endpoint_id } => {
            (records::EndpointProfile::HttpsSpiffe, endpoint_id.to_string())
        }
    };
    records::RelationshipRecord {
        trust_domain: relationship.trust_domain.name().into(),
        bundle_endpoint_url: relationship.url.as_str().into(),
        profile: profile.into(),
        endpoint_spiffe_id,
    }
}

/// The relationship of a record.
///
/// # Errors
/// The first field that is missing or malformed.
pub fn relationship_from_record(
    record: &records::RelationshipRecord,
) -> Result<FederationRelationship, ConvertError> {
    let profile = match records::EndpointProfile::try_from(record.profile) {
        Ok(records::EndpointProfile::HttpsWeb) => EndpointProfile::HttpsWeb,
        Ok(records::EndpointProfile::HttpsSpiffe) => EndpointProfile::HttpsSpiffe {
            endpoint_id: record.endpoint_spiffe_id.parse().field(Field::EndpointSpiffeId)?,
        },
        Ok(records::EndpointProfile::Unspecified) | Err(_) => {
            return Err(Fault::Unknown(record.profile)).field(Field::EndpointProfile);
        }
    };
    Ok(FederationRelationship {
        trust_domain: record.trust_domain.parse().field(Field::TrustDomain)?,
        url: record.bundle_endpoint_url.parse().field(Field::EndpointUrl)?,
        profile,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> types::FederationRelationship {
        types::FederationRelationship {
            trust_domain: "other.example".into(),
            bundle_endpoint_url: "https://other.example/bundle".into(),
            bundle_endpoint_profile: Some(WireProfile::HttpsWeb(types::HttpsWebProfile {})),
            trust_domain_bundle: None,
        }
    }

    fn spiffe(endpoint: &str) -> Option<WireProfile> {
        Some(WireProfile::HttpsSpiffe(types::HttpsspiffeProfile { endpoint_spiffe_id: endpoint.into() }))
    }

    fn bundle(trust_domain: &str) -> Option<types::Bundle> {
        Some(types::Bundle { trust_domain: trust_domain.into(), sequence_number: 3, ..Default::default() })
    }

    #[test]
    fn a_relationship_survives_the_wire_and_the_store() {
        let with_spiffe = types::FederationRelationship {
            bundle_endpoint_profile: spiffe("spiffe://endpoint.example/server"),
            trust_domain_bundle: bundle("other.example"),
            ..web()
        };
        for wire in [web(), with_spiffe] {
            let (relationship, bundle) = relationship_from_proto(&wire).unwrap();
            assert_eq!(relationship_to_proto(&relationship, bundle.as_ref()), wire);
            let record = relationship_to_record(&relationship);
            assert_eq!(relationship_from_record(&record), Ok(relationship));
        }
    }

    #[test]
    fn the_trust_domain_may_be_given_as_an_id() {
        let wire = types::FederationRelationship { trust_domain: "spiffe://other.example".into(), ..web() };
        assert_eq!(relationship_from_proto(&wire).unwrap().0.trust_domain.name(), "other.example");
    }

    #[test]
    fn each_field_is_refused_by_its_name() {
        let check = |field: Field, spoil: &dyn Fn(&mut types::FederationRelationship)| {
            let mut wire = web();
            spoil(&mut wire);
            let error = relationship_from_proto(&wire).expect_err("refused");
            assert_eq!(error.field, field, "{error}");
        };
        check(Field::TrustDomain, &|wire| wire.trust_domain.clear());
        check(Field::TrustDomain, &|wire| wire.trust_domain = "Other".into());
        check(Field::EndpointUrl, &|wire| wire.bundle_endpoint_url.clear());
        check(Field::EndpointUrl, &|wire| wire.bundle_endpoint_url = "http://other.example".into());
        check(Field::EndpointUrl, &|wire| wire.bundle_endpoint_url = "https://a@other.example".into());
        check(Field::EndpointProfile, &|wire| wire.bundle_endpoint_profile = None);
        check(Field::EndpointSpiffeId, &|wire| wire.bundle_endpoint_profile = spiffe(""));
        check(Field::EndpointSpiffeId, &|wire| wire.bundle_endpoint_profile = spiffe("other.example/server"));
        check(Field::TrustDomainBundle, &|wire| wire.trust_domain_bundle = bundle("third.example"));
        check(Field::TrustDomain, &|wire| wire.trust_domain_bundle = bundle("Third"));
    }

    #[test]
    fn a_damaged_record_is_refused() {
        let good = relationship_to_record(&relationship_from_proto(&web()).unwrap().0);
        let spiffe = records::EndpointProfile::HttpsSpiffe.into();
        for bad in [
            records::RelationshipRecord { profile: 0, ..good.clone() },
            records::RelationshipRecord { profile: 9, ..good.clone() },
            records::RelationshipRecord { profile: spiffe, ..good.clone() },
            records::RelationshipRecord { trust_domain: String::new(), ..good.clone() },
            records::RelationshipRecord { bundle_endpoint_url: String::new(), ..good },
        ] {
            assert!(relationship_from_record(&bad).is_err(), "{bad:?}");
        }
    }
}
