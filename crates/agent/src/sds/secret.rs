//! The secrets as Envoy takes them. Every piece of memory that holds a private key is wiped when it is let go.

use bytes::Bytes;
use prost::Message;
use spindle_keys::pem;
use spindle_proto::any::Any;
use spindle_proto::envoy::config::core::v3::data_source::Specifier;
use spindle_proto::envoy::config::core::v3::{DataSource, TypedExtensionConfig};
use spindle_proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use spindle_proto::envoy::extensions::transport_sockets::tls::v3::spiffe_cert_validator_config::TrustDomain;
use spindle_proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, SpiffeCertValidatorConfig, TlsCertificate,
};
use spindle_spiffe_core::X509Bundle;
use spindle_spiffe_core::pem::certificates_to_pem;
use zeroize::Zeroizing;

use crate::cache::HeldSvid;

/// The one type of resource there is.
pub(super) const SECRET_TYPE: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

const VALIDATOR_NAME: &str = "envoy.tls.cert_validator.spiffe";
const VALIDATOR_TYPE: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";

/// The chain of an SVID and its key.
pub(super) fn certificate(name: &str, held: &HeldSvid) -> Any {
    let certificate = TlsCertificate {
        certificate_chain: Some(inline(certificates_to_pem(held.svid.chain()).into())),
        private_key: Some(inline(Bytes::from_owner(pem::private_key(&held.key_pkcs8)))),
    };
    packed(name, Type::TlsCertificate(certificate))
}

/// One bundle or several for Envoy's SPIFFE validator.
pub(super) fn spiffe_validation<'a>(name: &str, bundles: impl Iterator<Item = &'a X509Bundle>) -> Any {
    let trust_domains = bundles.map(|bundle| TrustDomain {
        name: bundle.trust_domain().name().to_owned(),
        trust_bundle: Some(inline(bundle.to_pem().into())),
    });
    let config = SpiffeCertValidatorConfig { trust_domains: trust_domains.collect() };
    let typed_config = Any { type_url: VALIDATOR_TYPE.to_owned(), value: config.encode_to_vec().into() };
    let validator =
        TypedExtensionConfig { name: VALIDATOR_NAME.to_owned(), typed_config: Some(typed_config) };
    let context = CertificateValidationContext { custom_validator_config: Some(validator), trusted_ca: None };
    packed(name, Type::ValidationContext(context))
}

/// A bundle as plain authorities.
pub(super) fn plain_validation(name: &str, bundle: &X509Bundle) -> Any {
    let trusted_ca = Some(inline(bundle.to_pem().into()));
    packed(
        name,
        Type::ValidationContext(CertificateValidationContext { trusted_ca, custom_validator_config: None }),
    )
}

/// Encodes into memory that is wiped. It is of the right size from the start: growing would leave copies behind.
pub(super) fn encode_wiped(message: &impl Message, before: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut encoded = Zeroizing::new(Vec::with_capacity(before.len() + message.encoded_len()));
    encoded.extend_from_slice(before);
    message.encode_raw(&mut *encoded);
    encoded
}

fn packed(name: &str, content: Type) -> Any {
    let secret = Secret { name: name.to_owned(), r#type: Some(content) };
    Any { type_url: SECRET_TYPE.to_owned(), value: Bytes::from_owner(encode_wiped(&secret, &[])) }
}

fn inline(bytes: Bytes) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineBytes(bytes)) }
}
