//! `wit mint`: a WIT-SVID and its key, outside of any entry.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};
use spindle_keys::{Key, KeyType};
use spindle_proto::spire::api::server::svid::v1::MintWitsvidRequest;
use spindle_proto::spire::api::server::svid::v1::svid_client::SvidClient;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::{SignatureAlgorithm, Timestamp};
use zeroize::Zeroizing;

use super::dial;
use super::minted::{no_part, ttl_secs, warn_capped};
use crate::args::{Output, Socket, set};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::files::{Readable, write};
use crate::output::json::ToJson;
use crate::{duration, input, output};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Mints a WIT-SVID, bound to a new key that is printed with it.
    Mint(Args),
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// SPIFFE ID of the WIT-SVID.
    #[arg(long = "spiffeID", value_name = "ID")]
    spiffe_id: Option<String>,
    /// Type of the new key: ec-p256, ec-p384, rsa-2048 or rsa-4096.
    #[arg(long = "keyType", value_name = "TYPE", default_value = "ec-p256")]
    key_type: String,
    /// The algorithm by which the new key signs proofs, like ES256 or PS256.
    #[arg(long = "signingAlgorithm", value_name = "NAME", default_value = "ES256")]
    signing_algorithm: String,
    /// How long the WIT-SVID is valid, like 30m; the server's default when 0.
    #[arg(long = "ttl", value_name = "DURATION", default_value = "0", value_parser = duration::parse)]
    ttl: Duration,
    /// Directory to write token and key to, instead of printing them.
    #[arg(long = "write", value_name = "DIR")]
    write: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// A minted SVID with its key as a JWK.
struct Minted {
    key: Zeroizing<String>,
    svid: types::Witsvid,
}

impl ToJson for Minted {
    fn to_json(&self) -> Value {
        json!({ "private_key": self.key.as_str(), "svid": self.svid.to_json() })
    }
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let (key, request) = request(args)?;
    let wanted_secs = request.ttl;
    let svid = block_on(async {
        let answer = SvidClient::new(dial(&args.socket, console).await?).mint_witsvid(request).await;
        let answer = answer.map_err(|status| refused("cannot mint the WIT-SVID", &status))?.into_inner();
        answer.svid.filter(|svid| !svid.token.is_empty()).ok_or_else(|| no_part("token"))
    })?;
    if svid.expires_at.saturating_sub(svid.issued_at) < i64::from(wanted_secs) {
        warn_capped("WIT-SVID", Timestamp::from_unix_secs(svid.expires_at), console);
    }
    let minted = Minted { key, svid };
    match args.write.as_deref().filter(|dir| !dir.as_os_str().is_empty()) {
        Some(dir) => write_files(&minted, dir, console),
        None => output::print(args.output.form, console, &minted, |console| pretty(console, &minted)),
    }
}

fn request(args: &Args) -> Result<(Zeroizing<String>, MintWitsvidRequest), Failure> {
    let text = set(&args.spiffe_id)
        .ok_or_else(|| Failure::new("a SPIFFE ID is required").try_this("set -spiffeID"))?;
    let id = Some(input::spiffe_id("spiffeID", text)?);
    let ttl = ttl_secs(args.ttl)?;
    let key_type: KeyType = args.key_type.parse().map_err(|error| {
        Failure::because("-keyType", &error).try_this("leave -keyType out to have a key on P-256")
    })?;
    let algorithm = algorithm(&args.signing_algorithm)?;
    let key = Key::generate(key_type).map_err(|error| Failure::because("cannot make a key", &error))?;
    let private = key.private_jwk(algorithm).ok_or_else(|| {
        let what = format!("unsupported key type {key_type} for signing algorithm {algorithm}");
        Failure::new(what).try_this(format!("{algorithm} is for {}", keys_of(algorithm)))
    })?;
    let public_key = key.spki_der().to_vec().into();
    Ok((private, MintWitsvidRequest { id, public_key, ttl, signing_algorithm: algorithm.name().into() }))
}

fn algorithm(name: &str) -> Result<SignatureAlgorithm, Failure> {
    SignatureAlgorithm::from_name(name).ok_or_else(|| {
        let known: Vec<_> = SignatureAlgorithm::ALL.iter().map(|algorithm| algorithm.name()).collect();
        Failure::new(format!("unsupported signing algorithm: {name}"))
            .try_this(format!("write one of {}", known.join(", ")))
    })
}

/// The types of key that sign by it, in words.
fn keys_of(algorithm: SignatureAlgorithm) -> &'static str {
    match algorithm {
        SignatureAlgorithm::Es256 => "-keyType ec-p256",
        SignatureAlgorithm::Es384 => "-keyType ec-p384",
        SignatureAlgorithm::Es512 => "keys on P-521, which this command does not make",
        _ => "-keyType rsa-2048 and -keyType rsa-4096",
    }
}

fn pretty(console: &mut Console<'_>, minted: &Minted) -> Result<(), Failure> {
    writeln!(console.out, "{}", minted.svid.token)?;
    Ok(writeln!(console.out, "{}", *minted.key)?)
}

/// The key makes the token of use, so both are their owner's alone.
fn write_files(minted: &Minted, dir: &Path, console: &mut Console<'_>) -> Result<(), Failure> {
    let (token, key) = (dir.join("token"), dir.join("key"));
    write(&token, minted.svid.token.as_bytes(), Readable::Private)?;
    writeln!(console.out, "WIT-SVID written to {}", token.display())?;
    write(&key, minted.key.as_bytes(), Readable::Private)?;
    Ok(writeln!(console.out, "Private key written to {}", key.display())?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use spindle_spiffe_core::PublicKey;

    use super::*;
    use crate::testing::Screen;

    fn args(spiffe_id: &str, key_type: &str, signing_algorithm: &str) -> Args {
        Args {
            socket: Socket::default(),
            spiffe_id: Some(spiffe_id.into()),
            key_type: key_type.into(),
            signing_algorithm: signing_algorithm.into(),
            ttl: Duration::from_millis(1500),
            write: None,
            output: Output::default(),
        }
    }

    fn minted() -> Minted {
        let id = Some(types::Spiffeid { trust_domain: "a".into(), path: "/b".into() });
        let svid =
            types::Witsvid { token: "x.y.z".into(), id, expires_at: 300, issued_at: 0, hint: String::new() };
        Minted { key: Zeroizing::new("{\"d\":\"s\"}".into()), svid }
    }

    #[test]
    fn a_request_carries_every_flag_and_the_public_half_of_the_key() {
        let (private, request) = request(&args("spiffe://a/b", "ec-p256", "ES256")).unwrap();
        assert_eq!((request.ttl, request.signing_algorithm.as_str()), (2, "ES256"));
        assert_eq!(request.id, Some(types::Spiffeid { trust_domain: "a".into(), path: "/b".into() }));
        let private: Value = serde_json::from_str(&private).unwrap();
        let public = PublicKey::from_spki_der(&request.public_key).unwrap().to_jwk();
        assert_eq!(
            (private["x"].as_str(), private["y"].as_str()),
            (public.x.as_deref(), public.y.as_deref())
        );
        assert!(private["d"].is_string() && private["kid"].is_null());
    }

    #[test]
    fn missing_and_misfit_flags_are_refused_with_what_to_try() {
        let refused = |args: &Args, expected: &str| {
            let failure = request(args).map(drop).expect_err(expected);
            assert!(failure.what().starts_with(expected) && !failure.remedies().is_empty(), "{failure:?}");
        };
        refused(&args("", "ec-p256", "ES256"), "a SPIFFE ID is required");
        refused(&args("a/b", "ec-p256", "ES256"), "-spiffeID \"a/b\": ");
        refused(&args("spiffe://a/b", "ec-p521", "ES512"), "-keyType");
        refused(&args("spiffe://a/b", "ec-p256", "HS256"), "unsupported signing algorithm: HS256");
        refused(
            &args("spiffe://a/b", "ec-p256", "ES384"),
            "unsupported key type ec-p256 for signing algorithm ES384",
        );
        refused(&args("spiffe://a/b", "ec-p384", "PS256"), "unsupported key type ec-p384 for signing");
    }

    #[test]
    fn token_and_key_are_printed_line_by_line_and_the_json_form_is_spires() {
        assert_eq!(Screen::show(|console| pretty(console, &minted())).out, "x.y.z\n{\"d\":\"s\"}\n");
        assert_eq!(
            minted().to_json().to_string(),
            "{\"private_key\":\"{\\\"d\\\":\\\"s\\\"}\",\"svid\":{\"expires_at\":\"300\",\"hint\":\"\",\"id\":\
             {\"path\":\"/b\",\"trust_domain\":\"a\"},\"issued_at\":\"0\",\"token\":\"x.y.z\"}}"
        );
    }

    #[test]
    fn written_files_are_readable_by_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let screen = Screen::show(|console| write_files(&minted(), dir.path(), console));
        let (token, key) = (dir.path().join("token"), dir.path().join("key"));
        let expected =
            format!("WIT-SVID written to {}\nPrivate key written to {}\n", token.display(), key.display());
        assert_eq!(screen.out, expected);
        for (path, text) in [(token, "x.y.z"), (key, "{\"d\":\"s\"}")] {
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
