//! The two forms of a bundle outside of messages, PEM and SPIFFE's JSON document, in both directions.

use std::str::FromStr;

use rustls_pki_types::CertificateDer;
use spindle_proto::convert::{bundle_from_proto, bundle_to_proto};
use spindle_proto::spire::api::types;
use spindle_spiffe_core::bundle_document::{self, IgnoredKey};
use spindle_spiffe_core::certificate::split_der_certificates;
use spindle_spiffe_core::pem::{certificates_from_pem, certificates_to_pem};
use spindle_spiffe_core::{SpiffeId, TrustDomain};

use crate::console::Console;
use crate::error::Failure;

/// How a bundle is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::server_cli) enum Format {
    /// Certificates alone.
    #[default]
    Pem,
    /// The JSON document of the standard, with the keys of JWT-SVIDs, sequence number and refresh hint.
    Spiffe,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "" | "pem" => Ok(Self::Pem),
            "spiffe" => Ok(Self::Spiffe),
            _ => Err("write pem or spiffe".into()),
        }
    }
}

/// A trust domain from a flag (`flag` without dashes), by its name or by an ID in it.
pub(in crate::server_cli) fn trust_domain(flag: &str, text: &str) -> Result<TrustDomain, Failure> {
    let refused = |error: &dyn std::error::Error| {
        Failure::because(format!("-{flag} {text:?}"), error).try_this("write it like spiffe://example.org")
    };
    match text.contains(":/") {
        true => SpiffeId::from_str(text).map(|id| id.trust_domain()).map_err(|error| refused(&error)),
        false => text.parse().map_err(|error| refused(&error)),
    }
}

/// What was read, and which keys of it were passed over.
pub(in crate::server_cli) struct Read {
    pub(in crate::server_cli) bundle: types::Bundle,
    pub(in crate::server_cli) ignored: Vec<IgnoredKey>,
}

/// The bundle of `trust_domain` in a text. A text with keys of which none can be used is refused: to trust nobody, write a
/// document with no keys.
pub(in crate::server_cli) fn read(
    text: &str,
    format: Format,
    trust_domain: &TrustDomain,
) -> Result<Read, Failure> {
    match format {
        Format::Pem => {
            let certificates = certificates_from_pem(text.as_bytes()).map_err(|error| {
                Failure::because("unable to parse bundle data", &error)
                    .try_this("give certificates in PEM, or a SPIFFE document with the format spiffe")
            })?;
            let authority = |der: &CertificateDer<'_>| types::X509Certificate {
                asn1: der.to_vec().into(),
                tainted: false,
            };
            let bundle = types::Bundle {
                trust_domain: trust_domain.to_string(),
                x509_authorities: certificates.iter().map(authority).collect(),
                ..types::Bundle::default()
            };
            Ok(Read { bundle, ignored: Vec::new() })
        }
        Format::Spiffe => {
            let parsed = bundle_document::parse(trust_domain.clone(), text.as_bytes()).map_err(|error| {
                Failure::because("unable to parse to spiffe bundle", &error)
                    .try_this("give a SPIFFE bundle document, or certificates in PEM with the format pem")
            })?;
            let bundle = bundle_to_proto(&parsed.bundle);
            let has_tokens = !bundle.jwt_authorities.is_empty() || !bundle.wit_authorities.is_empty();
            match parsed.ignored.first() {
                Some(first) if bundle.x509_authorities.is_empty() && !has_tokens => {
                    let what = format!("no key of the bundle document can be used; key {}", first.index);
                    Err(Failure::because(what, &first.why)
                        .try_this("correct the document, or ask its publisher"))
                }
                _ => Ok(Read { bundle, ignored: parsed.ignored }),
            }
        }
    }
}

/// Says which keys were passed over, which SPIRE's tools refuse the whole document for.
pub(in crate::server_cli) fn warn_of_ignored(ignored: &[IgnoredKey], console: &mut Console<'_>) {
    for key in ignored {
        let _ = writeln!(
            console.err,
            "Warning: key {} of the bundle document is passed over: {}",
            key.index, key.why
        );
    }
}

/// Prints a bundle for people.
pub(super) fn print(
    console: &mut Console<'_>,
    bundle: &types::Bundle,
    format: Format,
) -> Result<(), Failure> {
    let malformed =
        |error: &dyn std::error::Error| Failure::because("the server sent a malformed bundle", error);
    match format {
        Format::Pem => {
            for authority in &bundle.x509_authorities {
                // A server of SPIRE may send several in one.
                let certificates =
                    split_der_certificates(&authority.asn1).map_err(|error| malformed(&error))?;
                write!(console.out, "{}", certificates_to_pem(&certificates))?;
            }
        }
        Format::Spiffe => {
            let bundle = bundle_from_proto(bundle).map_err(|error| malformed(&error))?;
            writeln!(console.out, "{}", bundle.to_json())?;
        }
    }
    Ok(())
}
