//! Raw P-256 on this machine in this run: what no server that checks a CSR and signs a certificate can be cheaper than.
//!
//! One operation is a verification with a key in wire form, as it stands in a CSR, and a signature. Both come from the
//! library that the server uses. Machines get slower and faster while they run, so [`Yardstick::cost`] measures in turns.

use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use nix::time::ClockId;

use crate::process::Process;
use crate::report::{line, millis};

/// How often yardstick and work take turns.
const TURNS: u32 = 10;

/// Operations of the yardstick in a turn: about a fifth of a second.
const OPERATIONS: u32 = 2000;

/// Bytes signed, about those of a CSR.
const MESSAGE: [u8; 200] = [7; 200];

/// The operation and its key.
pub(crate) struct Yardstick {
    key: EcdsaKeyPair,
    signature: Vec<u8>,
}

/// CPU time that a process spends on one piece of work, and the yardstick's at the same time.
pub(crate) struct Cost {
    each: Duration,
    yardstick: Duration,
}

impl Yardstick {
    /// Makes the key.
    pub(crate) fn new() -> Result<Self> {
        let failed = |_| anyhow!("P-256 failed");
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?;
        let signature = key.sign(&SystemRandom::new(), &MESSAGE).map_err(failed)?.as_ref().to_vec();
        Ok(Self { key, signature })
    }

    /// Measures the yardstick alone and prints it.
    pub(crate) fn measure(&self) -> Result<()> {
        let all = (0..TURNS).map(|_| self.turn()).sum::<Result<Duration>>()?;
        line("raw P-256 verify + sign, aws-lc-rs, CPU (the yardstick)", &millis(all / TURNS), "");
        Ok(())
    }

    /// What one piece of work costs `process`, by all the CPU time it spends meanwhile in user and kernel mode. `work` tells
    /// how many pieces it did.
    pub(crate) async fn cost(
        &self,
        process: &Process,
        mut work: impl AsyncFnMut() -> Result<u32>,
    ) -> Result<Cost> {
        // The first round fills caches, pools and the heap.
        work().await?;
        let (mut yardstick, mut spent, mut pieces) = (Duration::ZERO, Duration::ZERO, 0);
        for _ in 0..TURNS {
            yardstick += self.turn()?;
            let before = process.cpu_time()?;
            pieces += work().await?;
            spent += process.cpu_time()? - before;
        }
        ensure!(pieces > 0, "no work was done");
        Ok(Cost { each: spent / pieces, yardstick: yardstick / TURNS })
    }

    /// CPU time of one operation.
    fn turn(&self) -> Result<Duration> {
        let (key, random) = (self.key.public_key().as_ref(), SystemRandom::new());
        let before = thread_cpu_time()?;
        for _ in 0..OPERATIONS {
            let verified =
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).verify(&MESSAGE, &self.signature);
            let signed = self.key.sign(&random, &MESSAGE);
            ensure!(verified.is_ok() && signed.is_ok(), "P-256 failed");
        }
        Ok((thread_cpu_time()? - before) / OPERATIONS)
    }
}

impl Cost {
    /// Prints it as `what`.
    pub(crate) fn print(&self, what: &str) {
        line(what, &millis(self.each), &format!("{:.2} x raw verify + sign", self.ratio()));
    }

    /// Prints it as `what`, and how it compares with the same work on less data.
    pub(crate) fn print_beside(&self, what: &str, less: &Self) {
        // Each by the yardstick of its own time: the machine may have got slower or faster in between.
        let growth = self.ratio() / less.ratio();
        line(
            what,
            &millis(self.each),
            &format!("{:.3} x raw verify + sign, {growth:.2} x of {}", self.ratio(), millis(less.each)),
        );
    }

    fn ratio(&self) -> f64 {
        self.each.as_secs_f64() / self.yardstick.as_secs_f64()
    }
}

fn thread_cpu_time() -> Result<Duration> {
    Ok(ClockId::CLOCK_THREAD_CPUTIME_ID.now()?.into())
}
