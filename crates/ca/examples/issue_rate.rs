//! How fast SVIDs are issued on one thread, beside the raw operations that bound it.
//!
//! Run with `cargo run --release -p spindle-ca --example issue_rate [seconds]`. The three are measured in turns within one
//! run, so that a machine shared with others slows all of them alike; only the ratio is worth quoting. With an argument
//! `--write DIRECTORY` it writes sample certificates there instead, for other validators to judge.
#![allow(clippy::print_stdout, reason = "a benchmark prints its result")]

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use rcgen::SigningKey;
use spindle_ca::{CaSubject, CheckedCsr, SvidRequest, SvidSubject, X509Ca};
use spindle_keys::{Key, KeyType, certificate_request};
use spindle_spiffe_core::pem::certificates_to_pem;
use spindle_spiffe_core::{DnsName, SpiffeId, Timestamp, TrustDomain, Validity};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// 2026-09-21T14:13:20Z.
const NOW: i64 = 1_790_000_000;

/// Turns that each of the three operations gets.
const TURNS: u32 = 10;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--write", directory] => write_samples(Path::new(directory)),
        [seconds] => measure(Duration::from_secs(seconds.parse()?)),
        _ => measure(Duration::from_secs(3)),
    }
}

/// Lets each of the three operations run for `each` in all, in turns.
fn measure(each: Duration) -> Outcome {
    let key = Key::generate(KeyType::EcP256)?;
    let ca = authority(KeyType::EcP256)?;
    let csr = certificate_request(&key, Some(&"spiffe://prod.example/web".parse()?), &[])?;
    let (message, signature) = (&csr[..200], key.sign(&csr[..200])?);
    let point = &key.spki_der()[26..];
    let verifier =
        aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1, point);

    let (mut verify, mut sign, mut issue) = (Rate::default(), Rate::default(), Rate::default());
    for _ in 0..TURNS {
        verify.run(each / TURNS, || verifier.verify(message, &signature).map_err(|_| "verify".into()))?;
        sign.run(each / TURNS, || {
            black_box(key.sign(message)?);
            Ok(())
        })?;
        issue.run(each / TURNS, || issue_one(&ca, &csr))?;
    }
    let bound = verify.secs_each() + sign.secs_each();
    println!("raw P-256 verify               {:>9.0} /s", 1.0 / verify.secs_each());
    println!("raw P-256 sign                 {:>9.0} /s", 1.0 / sign.secs_each());
    println!("CSR parse and verify, and sign {:>9.0} /s", 1.0 / issue.secs_each());
    println!("ratio to raw verify + sign     {:>9.2}", issue.secs_each() / bound);
    Ok(())
}

fn issue_one(ca: &X509Ca, csr: &[u8]) -> Outcome {
    let csr = CheckedCsr::parse(black_box(csr))?;
    let request = SvidRequest {
        spiffe_id: "spiffe://prod.example/web".parse()?,
        spki_der: csr.spki_der(),
        subject: SvidSubject::default(),
        dns_names: &[],
        validity: Validity { not_before: at(NOW - 10), not_after: at(NOW + 3600) },
        serial: [9; 16],
    };
    black_box(ca.sign_x509_svid(&request)?);
    Ok(())
}

fn authority(kind: KeyType) -> Result<X509Ca, Box<dyn std::error::Error>> {
    let trust_domain: TrustDomain = "prod.example".parse()?;
    let validity = Validity { not_before: at(NOW - 10), not_after: at(NOW + 86_400) };
    Ok(X509Ca::self_signed(&trust_domain, Key::generate(kind)?, &CaSubject::default(), validity, [7; 16])?)
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_unix_secs(secs)
}

/// How often something ran, and for how long.
#[derive(Default)]
struct Rate {
    runs: f64,
    secs: f64,
}

impl Rate {
    #[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    fn run(&mut self, for_about: Duration, mut work: impl FnMut() -> Outcome) -> Outcome {
        let start = std::time::Instant::now();
        while start.elapsed() < for_about {
            for _ in 0..20 {
                work()?;
            }
            self.runs += 20.0;
        }
        self.secs += start.elapsed().as_secs_f64();
        Ok(())
    }

    fn secs_each(&self) -> f64 {
        self.secs / self.runs
    }
}

/// One authority of each kind, and below it one leaf of each kind, with and without DNS names.
fn write_samples(directory: &Path) -> Outcome {
    std::fs::create_dir_all(directory)?;
    let names: [DnsName; 2] = ["web.example.org".parse()?, "*.web.example.org".parse()?];
    for ca_kind in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let ca = authority(ca_kind)?;
        std::fs::write(directory.join(format!("{ca_kind}-ca.pem")), certificates_to_pem([ca.certificate()]))?;
        for kind in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
            for (label, dns_names) in [("plain", &names[..0]), ("dns", &names[..])] {
                let spiffe_id: SpiffeId = "spiffe://prod.example/ns/web/sa/front".parse()?;
                let key = Key::generate(kind)?;
                let svid = ca.sign_x509_svid(&SvidRequest {
                    spiffe_id,
                    spki_der: key.spki_der(),
                    subject: SvidSubject::default(),
                    dns_names,
                    validity: Validity { not_before: at(NOW - 10), not_after: at(NOW + 3600) },
                    serial: [9; 16],
                })?;
                let file = format!("{ca_kind}-leaf-{kind}-{label}.pem");
                std::fs::write(directory.join(file), certificates_to_pem(&svid.chain))?;
            }
        }
    }
    println!("wrote sample certificates to {}", directory.display());
    Ok(())
}
