//! Readers under rotation as fast as it goes, and under kills: none ever sees a key, certificate and bundle that do not belong
//! together.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use spindle_keys::Key;
use spindle_proto::workload::X509svidResponse;
use spindle_runtime::SystemClock;
use spindle_spiffe_core::pem::certificates_from_pem;
use spindle_spiffe_core::{Clock, X509Bundle, verify_x509_svid};

use crate::fake::{Fake, Script, authority, message};
use crate::program::{Program, files, generation, scratch, wait_for};

/// How many generations; CI asks for more.
fn rotations() -> u64 {
    std::env::var("SPINDLE_ROTATIONS").map_or(1_000, |text| text.parse().unwrap())
}

/// What a reader found.
#[derive(Default)]
struct Found {
    whole: AtomicU64,
    /// The generation went while it was read: its grace was over.
    gone: AtomicU64,
    mixed: AtomicU64,
}

/// Whether these belong together: the key is the certificate's, and the bundle vouches for it.
fn belong_together(cert: &[u8], key: &[u8], bundle: &[u8]) -> bool {
    let chain = certificates_from_pem(cert).unwrap();
    let key =
        Key::from_pkcs8_der(PrivatePkcs8KeyDer::from_pem_slice(key).unwrap().secret_pkcs8_der()).unwrap();
    let bundle = X509Bundle::from_pem("example.org".parse().unwrap(), bundle).unwrap();
    let verified = verify_x509_svid(&chain, &bundle.into(), SystemClock.now());
    verified.is_ok_and(|svid| svid.spki_der() == key.spki_der())
}

/// Opens the directory once, and reads all three there.
fn by_open_directory(dir: &Path) -> Option<[Vec<u8>; 3]> {
    let opened = File::open(dir.join("current")).ok()?;
    let read = |name: &str| {
        let file = openat(&opened, name, OFlag::O_RDONLY, Mode::empty()).ok()?;
        let mut content = Vec::new();
        File::from(file).read_to_end(&mut content).unwrap();
        Some(content)
    };
    Some([read("tls.crt")?, read("tls.key")?, read("ca.crt")?])
}

/// Resolves the link once, and reads all three below what it named.
fn by_resolved_link(dir: &Path) -> Option<[Vec<u8>; 3]> {
    let resolved = fs::canonicalize(dir.join("current")).ok()?;
    let read = |name: &str| fs::read(resolved.join(name)).ok();
    Some([read("tls.crt")?, read("tls.key")?, read("ca.crt")?])
}

/// Reads the plain names, and looks whether the link is still the same: numbers never come again.
fn by_plain_names(dir: &Path) -> Option<[Vec<u8>; 3]> {
    let before = generation(dir)?;
    let read = |name: &str| fs::read(dir.join(name)).ok();
    let all = [read("tls.crt")?, read("tls.key")?, read("ca.crt")?];
    (generation(dir)? == before).then_some(all)
}

/// Reads the one file that has both; the bundle is left to the other readers.
fn by_one_file(dir: &Path) -> Option<[Vec<u8>; 3]> {
    let both = fs::read(dir.join("tls.pem")).ok()?;
    let own = certificates_from_pem(&both).ok();
    assert!(own.is_some_and(|chain| !chain.is_empty()), "half a file");
    Some([both.clone(), both, Vec::new()])
}

fn key_fits(both: &[u8]) -> bool {
    let chain = certificates_from_pem(both).unwrap();
    let key =
        Key::from_pkcs8_der(PrivatePkcs8KeyDer::from_pem_slice(both).unwrap().secret_pkcs8_der()).unwrap();
    spindle_spiffe_core::X509Svid::parse(chain).unwrap().spki_der() == key.spki_der()
}

type Reader = fn(&Path) -> Option<[Vec<u8>; 3]>;

const READERS: [(&str, Reader); 4] = [
    ("an open directory", by_open_directory),
    ("a resolved link", by_resolved_link),
    ("plain names", by_plain_names),
    ("one file", by_one_file),
];

fn read_on(reader: Reader, dir: &Path, found: &Found, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let count = match reader(dir) {
            None => &found.gone,
            Some([both, _, bundle]) if bundle.is_empty() && key_fits(&both) => &found.whole,
            Some([cert, key, bundle]) if !bundle.is_empty() && belong_together(&cert, &key, &bundle) => {
                &found.whole
            }
            Some(_) => &found.mixed,
        };
        count.fetch_add(1, Ordering::Relaxed);
        thread::yield_now();
    }
}

/// Four authorities take turns, so that no two generations in a row have the same bundle.
fn pool() -> Vec<X509svidResponse> {
    let authorities: Vec<_> = (0..4).map(|_| authority()).collect();
    (0..64).map(|at| message(&authorities[at % authorities.len()])).collect()
}

#[test]
fn no_reader_ever_sees_a_mixed_generation_however_fast_they_change_and_however_often_the_writer_is_killed() {
    let (wanted, temp) = (rotations(), scratch());
    let (dir, log) = (temp.path().join("svid"), temp.path().join("log"));
    let pool = Arc::new(pool());
    let script = Script::x509(move |call| {
        let pool = pool.clone();
        Ok(Box::pin(tokio_stream::iter((call * 7..).map(move |at| Ok(pool[at % pool.len()].clone())))))
    });
    let fake = Fake::start(&temp.path().join("sock"), script);
    let start = || Program::start(files(&fake.socket, &dir, &["-logLevel", "error"]), &log);
    let mut writer = start();
    wait_for("the first generation", || generation(&dir));

    let found: [Found; 4] = Default::default();
    let stop = AtomicBool::new(false);
    let mut kills = 0;
    thread::scope(|scope| {
        for ((_, reader), found) in READERS.iter().zip(&found) {
            scope.spawn(|| read_on(*reader, &dir, found, &stop));
        }
        // Twenty kills, each after another number of generations and at another point of the next one.
        let (mut next_kill, mut random) = (0, 88_172_645_463_325_252_u64);
        while let Some(number) = generation(&dir).filter(|number| *number < wanted) {
            if number >= next_kill {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                next_kill = number + wanted / 40 + random % (wanted / 20);
                (0..random % 5_000).for_each(|_| std::hint::spin_loop());
                if number > 1 {
                    writer.kill();
                    kills += 1;
                    writer = start();
                    wait_for("a writer that goes on", || generation(&dir).filter(|next| *next > number + 1));
                }
            }
            assert!(!writer.has_ended(), "{}", writer.log());
            thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(generation(&dir).unwrap() >= wanted && kills >= 10, "{kills} kills");
    for ((name, _), found) in READERS.iter().zip(&found) {
        let [whole, gone, mixed] =
            [&found.whole, &found.gone, &found.mixed].map(|count| count.load(Ordering::Relaxed));
        println!("{name}: {whole} whole, {gone} gone meanwhile, {mixed} mixed, {kills} kills");
        assert!(mixed == 0 && whole > 0, "{name}: {whole} whole, {mixed} mixed");
    }
    let generations = fs::read_dir(&dir)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with("gen-"));
    assert!(generations.count() <= 67, "past generations have a bound");
}
