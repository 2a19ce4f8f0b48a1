//! What the sockets of an agent offer, as ready values.

/// Names and forms of Envoy's SDS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SdsConfig {
    /// The resource that is the caller's first identity.
    pub default_svid_name: String,
    /// The resource that is the own trust domain's bundle.
    pub default_bundle_name: String,
    /// The resource that is the own bundle and those of federated trust domains. It has no effect when it is the same name as
    /// `default_bundle_name`.
    pub default_all_bundles_name: String,
    /// Whether bundles are given as plain CA files instead of to Envoy's SPIFFE validator. Envoy's own metadata wins.
    pub disable_spiffe_cert_validation: bool,
}

impl Default for SdsConfig {
    /// SPIRE's names.
    fn default() -> Self {
        Self {
            default_svid_name: "default".into(),
            default_bundle_name: "ROOTCA".into(),
            default_all_bundles_name: "ALL".into(),
            disable_spiffe_cert_validation: false,
        }
    }
}

/// How many calls, or openings of streams, a second are answered for each set of selectors. Zero is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// Openings of FetchX509SVID.
    pub fetch_x509_svid: u32,
    /// Calls of FetchJWTSVID.
    pub fetch_jwt_svid: u32,
    /// Openings of FetchX509Bundles.
    pub fetch_x509_bundles: u32,
    /// Openings of FetchJWTBundles.
    pub fetch_jwt_bundles: u32,
    /// Openings of SDS' StreamSecrets.
    pub stream_secrets: u32,
    /// Calls of SDS' FetchSecrets.
    pub fetch_secrets: u32,
}
