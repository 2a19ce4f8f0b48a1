//! What stands in the files: material and names into the content of one generation.
//!
//! Pure; the same material gives the same bytes, so that a caller sees whether anything changed. Start at
//! [`State::files`].

use std::collections::BTreeMap;

use serde_json::Value;
use spindle_keys::pem;
use spindle_spiffe_core::pem::certificates_to_pem;
use spindle_spiffe_core::{Timestamp, X509Bundle, X509Svid};
use zeroize::Zeroizing;

use super::folder::NamedFile;
use super::material::{JwtBundles, Token, X509BundleSet, X509Material};
use super::wanted::{BUNDLE_PREFIX, Names, Wanted, What};
use crate::error::Failure;
use crate::files::Readable;

/// Longer names of trust domains would not fit into a file's name with what is put around them.
const TRUST_DOMAIN_BYTES_MAX: usize = 200;

/// The newest of all that is followed.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) x509: Option<X509Material>,
    pub(crate) x509_bundles: Option<X509BundleSet>,
    pub(crate) jwt_bundles: Option<JwtBundles>,
    /// By the place of the wish.
    pub(crate) tokens: BTreeMap<usize, Token>,
}

/// The files of one generation. Tokens are left out of what a program has to be told of: it reads them for each use.
pub(crate) struct Files {
    pub(crate) all: Vec<NamedFile>,
    /// How many of `all`, from the start, make a program load them anew.
    pub(crate) told: usize,
    /// Whose certificate is among them; none when there are bundles alone.
    pub(crate) shown: Option<ShownSvid>,
}

/// A certificate in the files, for the log.
pub(crate) struct ShownSvid {
    pub(crate) spiffe_id: String,
    pub(crate) serial: String,
    pub(crate) expires_at: Timestamp,
}

impl State {
    /// The files, once all that is wanted has come.
    ///
    /// # Errors
    /// When no identity fits the choice.
    pub(crate) fn files(&self, wanted: &Wanted) -> Result<Option<Files>, Failure> {
        let is_whole = self.tokens.len() == wanted.tokens.len()
            && (wanted.names.jwt_bundles.is_none() || self.jwt_bundles.is_some());
        let (mut all, shown) = match (wanted.what, &self.x509, &self.x509_bundles) {
            (What::Identity, Some(x509), _) => {
                let identity = wanted.choice.of("X509-SVID", &x509.identities)?;
                (x509_files(&wanted.names, x509, &identity.svid), Some(ShownSvid::of(&identity.svid.svid)))
            }
            (What::Bundles, _, Some(bundles)) => (bundle_files(BUNDLE_PREFIX, &bundles.0).collect(), None),
            _ => return Ok(None),
        };
        if !is_whole {
            return Ok(None);
        }
        let told = all.len();
        if let (Some(name), Some(bundles)) = (&wanted.names.jwt_bundles, &self.jwt_bundles) {
            all.push(jwt_bundles_file(name, bundles));
        }
        for (wish, token) in wanted.tokens.iter().zip(self.tokens.values()) {
            all.push(file(&wish.file, token.text.as_bytes(), Readable::Private));
        }
        Ok(Some(Files { all, told, shown }))
    }
}

impl ShownSvid {
    fn of(svid: &X509Svid) -> Self {
        let (spiffe_id, serial) = (svid.spiffe_id().to_string(), svid.serial_decimal());
        Self { spiffe_id, serial, expires_at: svid.expires_at() }
    }
}

fn x509_files(
    names: &Names,
    material: &X509Material,
    chosen: &crate::agent_cli::FetchedSvid,
) -> Vec<NamedFile> {
    let chain = certificates_to_pem(chosen.svid.chain());
    let key = pem::private_key(&chosen.key);
    let both = Zeroizing::new(format!("{}{chain}", key.as_str()));
    let mut files = Vec::new();
    let mut add = |name: &Option<String>, text: &str, readable| {
        files.extend(name.as_ref().map(|name| file(name, text.as_bytes(), readable)));
    };
    add(&names.cert, &chain, Readable::Public);
    add(&names.key, &key, Readable::Private);
    add(&names.bundle, &chosen.bundle.to_pem(), Readable::Public);
    add(&names.combined, &both, Readable::Private);
    if names.federated {
        files.extend(bundle_files("federated.", &material.federated));
    }
    files
}

/// One file for each trust domain: who checks a certificate uses the bundle of its own trust domain and no other.
fn bundle_files(
    prefix: &'static str,
    bundles: &BTreeMap<String, X509Bundle>,
) -> impl Iterator<Item = NamedFile> {
    let fitting = bundles.iter().filter(|(name, _)| name.len() <= TRUST_DOMAIN_BYTES_MAX);
    fitting.map(move |(name, bundle)| {
        file(&format!("{prefix}{name}.pem"), bundle.to_pem().as_bytes(), Readable::Public)
    })
}

fn jwt_bundles_file(name: &str, bundles: &JwtBundles) -> NamedFile {
    let sets: serde_json::Map<String, Value> = bundles.0.clone().into_iter().collect();
    file(name, format!("{}\n", Value::Object(sets)).as_bytes(), Readable::Public)
}

fn file(name: &str, content: &[u8], readable: Readable) -> NamedFile {
    NamedFile { name: name.into(), content: Zeroizing::new(content.into()), readable }
}
