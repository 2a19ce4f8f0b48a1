//! `api fetch wit` and `api watch wit`: answers of the WIT profile, each token checked against the bundle that vouches for it.
//!
//! A WIT-SVID is of use only together with its key, so the key is written to files and to JSON, and never shown to people.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use spindle_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use spindle_proto::workload::{WitBundlesRequest, WitBundlesResponse, WitsvidRequest, WitsvidResponse};
use spindle_runtime::SystemClock;
use spindle_spiffe_core::{
    Bundle, Clock, SpiffeId, Timestamp, TrustDomain, WitValidation, validate_wit_svid,
};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::api::{with_header, within};
use super::watch::{Updates, message};
use crate::args::{Output, Socket};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::endpoint::Endpoint;
use crate::error::Failure;
use crate::files::{Readable, write};
use crate::output::json::ToJson;
use crate::output::plural;
use crate::output::text::go_time;
use crate::{duration, input, output};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// The one identity to fetch; all when left out.
    #[arg(long = "spiffeID", value_name = "ID", default_value = "")]
    spiffe_id: String,
    /// How long to wait for the answer, like 5s.
    #[arg(long = "timeout", value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    timeout: Duration,
    /// Prints nothing about the SVIDs.
    #[arg(long = "silent")]
    silent: bool,
    /// Directory to write the tokens, keys and bundles to; with pretty output only.
    #[arg(long = "write", value_name = "DIR")]
    write: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Both answers of the profile, as one document.
#[derive(Default)]
struct Fetched {
    svids: WitsvidResponse,
    bundles: WitBundlesResponse,
}

impl ToJson for Fetched {
    fn to_json(&self) -> Value {
        let svids = self.svids.svids.iter().map(|svid| {
            json!({
                "hint": svid.hint,
                "spiffe_id": svid.spiffe_id,
                "wit_svid": svid.wit_svid,
                "wit_svid_key": svid.wit_svid_key,
            })
        });
        json!([{ "svids": svids.collect::<Vec<_>>() }, { "bundles": self.bundles.bundles }])
    }
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    if !args.spiffe_id.is_empty() {
        input::spiffe_id("spiffeID", &args.spiffe_id)?;
    }
    let endpoint = Endpoint::of(&args.socket, console.vars)?;
    let (fetched, took) = block_on(fetch(&endpoint, &args.spiffe_id, args.timeout))?;
    output::print(args.output.form, console, &fetched, |console| {
        let ends = verify(&fetched, SystemClock.now())?;
        if !args.silent {
            print(console, &fetched, &ends, took)?;
        }
        match args.write.as_deref().filter(|dir| !dir.as_os_str().is_empty()) {
            Some(dir) => write_files(&fetched, dir, console),
            None => Ok(()),
        }
    })
}

async fn fetch(
    endpoint: &Endpoint,
    spiffe_id: &str,
    timeout: Duration,
) -> Result<(Fetched, Duration), Failure> {
    let start = tokio::time::Instant::now();
    let both = async {
        let mut streams = Streams::open(endpoint.connect().await?, spiffe_id).await?;
        streams.next().await?;
        Ok(streams.last)
    };
    Ok((within(timeout, both).await?, start.elapsed()))
}

fn not_served(status: &Status) -> Failure {
    refused("cannot fetch WIT-SVIDs", status)
}

/// Both streams of the profile, with what they said last.
pub(super) struct Streams {
    svids: Streaming<WitsvidResponse>,
    bundles: Streaming<WitBundlesResponse>,
    last: Fetched,
    is_first: bool,
}

impl Streams {
    /// Opens both; a refusal of one is that of the profile.
    ///
    /// # Errors
    /// Why there are no WIT-SVIDs, or none for this caller.
    pub(super) async fn open(channel: Channel, spiffe_id: &str) -> Result<Self, Failure> {
        let mut client = SpiffeWorkloadApiClient::new(channel);
        let request = with_header(WitsvidRequest { spiffe_id: spiffe_id.into() });
        let svids = client.fetch_witsvid(request).await.map_err(|status| not_served(&status))?.into_inner();
        let request = with_header(WitBundlesRequest {});
        let bundles = client.fetch_wit_bundles(request).await.map_err(|status| not_served(&status))?;
        Ok(Self { svids, bundles: bundles.into_inner(), last: Fetched::default(), is_first: true })
    }
}

impl Updates for Streams {
    type Checked = Vec<Timestamp>;

    async fn next(&mut self) -> Result<(), Failure> {
        if self.is_first {
            self.last.svids = message(&mut self.svids, not_served).await?;
            self.last.bundles = message(&mut self.bundles, not_served).await?;
            self.is_first = false;
            return Ok(());
        }
        // Both arms are cancel-safe: a message that is not taken stays in its stream.
        tokio::select! {
            svids = message(&mut self.svids, not_served) => self.last.svids = svids?,
            bundles = message(&mut self.bundles, not_served) => self.last.bundles = bundles?,
        }
        Ok(())
    }

    fn check(&self, now: Timestamp) -> Result<Vec<Timestamp>, Failure> {
        verify(&self.last, now)
    }

    fn print(&self, ends: &Vec<Timestamp>, took: Duration, console: &mut Console<'_>) -> Result<(), Failure> {
        print(console, &self.last, ends, took)
    }
}

/// Checks each token against the bundle of its own trust domain, and returns when each ends.
fn verify(fetched: &Fetched, now: Timestamp) -> Result<Vec<Timestamp>, Failure> {
    if fetched.svids.svids.is_empty() {
        return Err(Failure::new("the agent's answer has no SVID").try_this("look at the agent's log"));
    }
    let bundles = bundles(&fetched.bundles)?;
    let end = |svid: &spindle_proto::workload::Witsvid| {
        let id = svid.spiffe_id.parse::<SpiffeId>().map_err(|error| bad(&svid.spiffe_id, &error))?;
        let bundle = bundles.get(&id.trust_domain());
        let bundle =
            bundle.ok_or_else(|| Failure::new(format!("no bundle came for {}", id.trust_domain())))?;
        let valid = validate_wit_svid(&svid.wit_svid, bundle, &WitValidation::new(now));
        let valid = valid.map_err(|error| bad(&svid.spiffe_id, &error))?;
        if *valid.claimed_spiffe_id() == id {
            Ok(valid.expires_at())
        } else {
            Err(Failure::new(format!("the WIT-SVID {id} names {}", valid.claimed_spiffe_id())))
        }
    };
    fetched.svids.svids.iter().map(end).collect()
}

fn bad(spiffe_id: &str, error: &dyn std::error::Error) -> Failure {
    Failure::because(format!("the WIT-SVID {spiffe_id:?} is not valid"), error)
        .try_this("check the clock of this machine, and the agent's log")
}

/// Key sets say nothing of what their keys are for: all of them are for WIT-SVIDs (Workload API 7.2.2).
fn bundles(answer: &WitBundlesResponse) -> Result<BTreeMap<TrustDomain, Bundle>, Failure> {
    let bundle = |(id, keys): (&String, &String)| {
        let what = || format!("the bundle of {id}");
        let name = id.strip_prefix("spiffe://").unwrap_or(id).parse::<TrustDomain>();
        let name = name.map_err(|error| Failure::because(what(), &error))?;
        let bundle = Bundle::from_wit_key_set(name.clone(), keys.as_bytes());
        Ok((name, bundle.map_err(|error| Failure::because(what(), &error))?))
    };
    answer.bundles.iter().map(bundle).collect()
}

fn print(
    console: &mut Console<'_>,
    fetched: &Fetched,
    ends: &[Timestamp],
    took: Duration,
) -> Result<(), Failure> {
    let count = fetched.svids.svids.len();
    let what = plural(count, "WIT-SVID", "WIT-SVIDs");
    writeln!(console.out, "Received {count} {what} after {}\n", duration::print(took))?;
    for (svid, end) in fetched.svids.svids.iter().zip(ends) {
        writeln!(console.out, "SPIFFE ID:\t\t{}", svid.spiffe_id)?;
        if !svid.hint.is_empty() {
            writeln!(console.out, "Hint:\t\t\t{}", svid.hint)?;
        }
        writeln!(console.out, "SVID Valid Until:\t{}", go_time(end.unix_secs()))?;
        writeln!(console.out, "Token:\t\t\t{}\n", svid.wit_svid)?;
    }
    for (id, keys) in &fetched.bundles.bundles {
        writeln!(console.out, "bundle({id}):\n\t{keys}")?;
    }
    Ok(())
}

fn write_files(fetched: &Fetched, dir: &Path, console: &mut Console<'_>) -> Result<(), Failure> {
    for (at, svid) in fetched.svids.svids.iter().enumerate() {
        for (what, name, text) in [
            ("WIT-SVID", format!("wit_svid.{at}.token"), &svid.wit_svid),
            ("key", format!("wit_svid.{at}.key"), &svid.wit_svid_key),
        ] {
            let path = dir.join(name);
            writeln!(console.out, "Writing {what} #{at} to file {}.", path.display())?;
            write(&path, text.as_bytes(), Readable::Private)?;
        }
    }
    for (at, (id, keys)) in fetched.bundles.bundles.iter().enumerate() {
        let path = dir.join(format!("wit_bundle.{at}.json"));
        writeln!(console.out, "Writing bundle #{at} for {id} to file {}.", path.display())?;
        write(&path, keys.as_bytes(), Readable::Public)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use spindle_keys::{Key, KeyType};
    use spindle_proto::workload::Witsvid;
    use spindle_spiffe_core::{SignatureAlgorithm, Validity};
    use spindle_testkit::{NOW, TestWitAuthority};

    use super::*;
    use crate::testing::Screen;

    /// An answer with one token, vouched for by `kid`.
    fn fetched(hint: &str) -> Fetched {
        let authority = TestWitAuthority::new("example.org", "w1", NOW);
        let key = Key::generate(KeyType::EcP256).unwrap();
        let id = "spiffe://example.org/web";
        let validity = Validity { not_before: NOW, not_after: NOW + 60 };
        let token = authority.sign(&id.parse().unwrap(), key.spki_der(), "ES256", validity, 1).token;
        let mut bundle = Bundle::new("example.org".parse().unwrap());
        bundle.wit_authorities = vec![authority.authority()];
        let svid = Witsvid {
            spiffe_id: id.into(),
            wit_svid: token,
            wit_svid_key: key.private_jwk(SignatureAlgorithm::Es256).unwrap().to_string(),
            hint: hint.into(),
        };
        let bundles = [("spiffe://example.org".to_owned(), bundle.wit_key_set())].into();
        Fetched { svids: WitsvidResponse { svids: vec![svid] }, bundles: WitBundlesResponse { bundles } }
    }

    #[test]
    fn a_token_is_checked_against_its_bundle() {
        let mut answer = fetched("");
        assert_eq!(verify(&answer, NOW).unwrap(), [NOW + 60]);
        assert!(verify(&answer, NOW + 1000).unwrap_err().what().contains("is not valid"), "it has ended");
        answer.svids.svids[0].spiffe_id = "spiffe://example.org/db".into();
        assert!(verify(&answer, NOW).unwrap_err().what().contains("names spiffe://example.org/web"));
        let other = fetched("");
        let mixed = Fetched { svids: fetched("").svids, bundles: other.bundles };
        assert!(verify(&mixed, NOW).is_err(), "another authority");
        let none = Fetched { svids: WitsvidResponse::default(), bundles: mixed.bundles };
        assert!(verify(&none, NOW).unwrap_err().what().contains("has no SVID"));
    }

    #[test]
    fn wap_78_a_token_whose_bundle_is_gone_is_not_shown() {
        let mut answer = fetched("");
        answer.bundles.bundles.clear();
        assert!(verify(&answer, NOW).unwrap_err().what().contains("no bundle came for"));
        answer.bundles.bundles.insert("spiffe://example.org".into(), "{\"keys\":[]}".into());
        assert!(verify(&answer, NOW).unwrap_err().what().contains("is not valid"), "its key is gone");
    }

    #[test]
    fn wit_38_people_see_tokens_and_bundles_and_the_key_is_not_shown() {
        let answer = fetched("web");
        let screen = Screen::show(|console| print(console, &answer, &[NOW + 60], Duration::from_millis(3)));
        screen.result.unwrap();
        let lines: Vec<_> = screen.out.lines().collect();
        assert_eq!(lines[0], "Received 1 WIT-SVID after 3ms");
        assert_eq!(lines[2..4], ["SPIFFE ID:\t\tspiffe://example.org/web", "Hint:\t\t\tweb"]);
        assert!(screen.out.contains(&answer.svids.svids[0].wit_svid));
        assert!(screen.out.contains("bundle(spiffe://example.org):\n\t{"));
        let key: Value = serde_json::from_str(&answer.svids.svids[0].wit_svid_key).unwrap();
        assert!(!screen.out.contains(key["d"].as_str().unwrap()));
    }

    #[test]
    fn the_json_form_is_a_list_of_both_answers() {
        let value = fetched("web").to_json();
        assert_eq!(value[0]["svids"][0]["hint"], "web");
        assert!(value[0]["svids"][0]["wit_svid_key"].as_str().unwrap().starts_with("{\"kty\":\"EC\""));
        assert!(value[1]["bundles"]["spiffe://example.org"].as_str().unwrap().contains("\"w1\""));
    }

    #[test]
    fn tokens_and_keys_are_written_for_their_owner_alone() {
        let (dir, answer) = (tempfile::tempdir().unwrap(), fetched(""));
        Screen::show(|console| write_files(&answer, dir.path(), console)).result.unwrap();
        let mode =
            |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("wit_svid.0.token"), mode("wit_svid.0.key")), (0o600, 0o600));
        let keys = std::fs::read_to_string(dir.path().join("wit_bundle.0.json")).unwrap();
        assert_eq!(keys, answer.bundles.bundles["spiffe://example.org"]);
    }
}
