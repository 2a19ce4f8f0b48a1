//! `-data` files: SPIRE's JSON of relationships, `{"federationRelationships": [ … ]}`; flags take the same way.
//!
//! Unknown keys are refused: a relationship without what its author wrote down could make the server trust the wrong
//! endpoint. The bundle is that of the trust domain; SPIRE's tool takes it for one of the endpoint's trust domain, which its
//! server then refuses when the two differ.

use serde::Deserialize;
use spindle_proto::spire::api::types;
use spindle_proto::spire::api::types::federation_relationship::BundleEndpointProfile;
use spindle_spiffe_core::SpiffeId;

use crate::console::Console;
use crate::error::Failure;
use crate::input;
use crate::server_cli::bundle::form::{self, Format};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(rename = "federationRelationships")]
    relationships: Vec<Raw>,
}

/// A relationship as it is written down.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    #[serde(rename = "trustDomain")]
    pub(super) trust_domain: String,
    #[serde(rename = "bundleEndpointURL", alias = "bundleEndpointUrl")]
    pub(super) bundle_endpoint_url: String,
    #[serde(rename = "bundleEndpointProfile")]
    pub(super) bundle_endpoint_profile: String,
    #[serde(rename = "endpointSPIFFEID", alias = "endpointSpiffeID", alias = "endpointSpiffeId")]
    pub(super) endpoint_spiffe_id: String,
    /// PEM as a text, or a SPIFFE document as an object.
    #[serde(rename = "trustDomainBundle")]
    pub(super) trust_domain_bundle: Option<serde_json::Value>,
    #[serde(rename = "trustDomainBundleFormat")]
    pub(super) trust_domain_bundle_format: String,
}

/// The relationships of a file, or of standard input for `-`.
pub(super) fn read(
    path: &str,
    console: &mut Console<'_>,
) -> Result<Vec<types::FederationRelationship>, Failure> {
    parse(&input::read_data(path)?, console).map_err(|failure| failure.within(path))
}

/// The relationships of a text; a fault says which one and what.
pub(super) fn parse(
    text: &str,
    console: &mut Console<'_>,
) -> Result<Vec<types::FederationRelationship>, Failure> {
    let file: RawFile = serde_json::from_str(text).map_err(|error| {
        Failure::because("failed to parse JSON", &error).try_this(
            r#"write {"federationRelationships": [{"trustDomain": …, "bundleEndpointURL": …, "bundleEndpointProfile": …}]}"#,
        )
    })?;
    let one = |(at, raw): (usize, &Raw)| {
        whole(raw, console).map_err(|failure| failure.within(&format!("could not parse item {at}")))
    };
    file.relationships.iter().enumerate().map(one).collect()
}

fn whole(raw: &Raw, console: &mut Console<'_>) -> Result<types::FederationRelationship, Failure> {
    let mut relationship = relationship(raw)?;
    let Some(value) = &raw.trust_domain_bundle else { return Ok(relationship) };
    let format: Format = raw.trust_domain_bundle_format.parse().map_err(|what: String| {
        Failure::new(format!("bundle format {:?} is unsupported", raw.trust_domain_bundle_format))
            .try_this(what)
    })?;
    let text = match (format, value) {
        (Format::Pem, serde_json::Value::String(pem)) => pem.clone(),
        (Format::Spiffe, document) => document.to_string(),
        (Format::Pem, _) => {
            return Err(Failure::new("trustDomainBundle is no text, as the format pem needs it")
                .try_this("write the certificates as one text, or set trustDomainBundleFormat to spiffe"));
        }
    };
    relationship.trust_domain_bundle = Some(bundle(&text, format, &relationship, console)?);
    Ok(relationship)
}

/// The relationship without a bundle.
pub(super) fn relationship(raw: &Raw) -> Result<types::FederationRelationship, Failure> {
    let required = |what: &str, example: &str| Failure::new(what).try_this(format!("for example {example}"));
    if raw.trust_domain.is_empty() {
        return Err(required("trust domain is required", "-trustDomain other.example"));
    }
    if raw.bundle_endpoint_url.is_empty() {
        return Err(required(
            "bundle endpoint URL is required",
            "-bundleEndpointURL https://other.example/bundle",
        ));
    }
    Ok(types::FederationRelationship {
        trust_domain: form::trust_domain("trustDomain", &raw.trust_domain)?.to_string(),
        bundle_endpoint_url: raw.bundle_endpoint_url.clone(),
        bundle_endpoint_profile: Some(profile(raw)?),
        trust_domain_bundle: None,
    })
}

fn profile(raw: &Raw) -> Result<BundleEndpointProfile, Failure> {
    match raw.bundle_endpoint_profile.as_str() {
        "https_web" => Ok(BundleEndpointProfile::HttpsWeb(types::HttpsWebProfile {})),
        "https_spiffe" if raw.endpoint_spiffe_id.is_empty() => {
            Err(Failure::new("endpoint SPIFFE ID is required if 'https_spiffe' endpoint profile is set")
                .try_this("for example -endpointSpiffeID spiffe://other.example/spire/server"))
        }
        "https_spiffe" => {
            let id: SpiffeId = raw.endpoint_spiffe_id.parse().map_err(|error| {
                Failure::because("cannot parse bundle endpoint SPIFFE ID", &error)
                    .try_this(input::SPIFFE_ID_EXAMPLE)
            })?;
            let endpoint_spiffe_id = id.to_string();
            Ok(BundleEndpointProfile::HttpsSpiffe(types::HttpsspiffeProfile { endpoint_spiffe_id }))
        }
        other => Err(Failure::new(format!("unknown bundle endpoint profile type: {other:?}"))
            .try_this("set -bundleEndpointProfile to https_web or https_spiffe")),
    }
}

/// The bundle in a file, of the relationship's trust domain.
pub(super) fn bundle_in(
    path: &str,
    format: Format,
    relationship: &types::FederationRelationship,
    console: &mut Console<'_>,
) -> Result<types::Bundle, Failure> {
    let text = input::read_data(path).map_err(|failure| failure.within("cannot read bundle file"))?;
    bundle(&text, format, relationship, console).map_err(|failure| failure.within("cannot parse bundle file"))
}

fn bundle(
    text: &str,
    format: Format,
    relationship: &types::FederationRelationship,
    console: &mut Console<'_>,
) -> Result<types::Bundle, Failure> {
    let trust_domain = form::trust_domain("trustDomain", &relationship.trust_domain)?;
    let read = form::read(text, format, &trust_domain)?;
    form::warn_of_ignored(&read.ignored, console);
    Ok(read.bundle)
}
