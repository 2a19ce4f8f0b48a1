//! `import`: takes over the bundles of other trust domains, the relationships with them and the entries, with their IDs, of a
//! running server, SPIRE's or ours, or of a file.
//!
//! Nothing that is here is changed unless `-update` asks for it. What cannot be taken over is named, one by one, and the
//! rest is. A second run finds nothing to do.

use std::collections::HashMap;
use std::path::PathBuf;

use spindle_proto::spire::api::types;
use spindle_spiffe_core::{Reason, TrustDomain};
use tonic::transport::Channel;

use super::carry_out::{Outcome, carry_out, carry_out_federation};
use super::dial;
use super::held::{self, Held, without_bundle};
use super::report::{FederationReport, Report};
use crate::args::{Output, Socket, set};
use crate::client::{block_on, connect_by};
use crate::console::Console;
use crate::entry_file::{self, Declared, EntryFile};
use crate::entry_plan::{Conflict, Likeness, Plan, Rules, Step};
use crate::error::Failure;
use crate::federation_plan::FederationPlan;
use crate::socket::unix_path;

#[derive(Debug, Default, clap::Args)]
#[command(
    after_help = "Exit status: 0 when all is here, 1 when something is not, 2 when -dryRun found something to do."
)]
pub(super) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// Admin socket of the running server to read, such as unix:///tmp/spire-server/private/api.sock.
    #[arg(long = "from", value_name = "ADDRESS")]
    from: Option<String>,
    /// A file that `export` wrote, or a directory of such files, instead of a running server; - for standard input.
    #[arg(long = "file", value_name = "FILE")]
    file: Option<String>,
    /// Changes entries that are here with the same ID and differ; without it they are conflicts.
    #[arg(long = "update")]
    update: bool,
    /// Says what would be done, and does nothing.
    #[arg(long = "dryRun")]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let source = source(args)?;
    let done = block_on(async {
        let theirs = source.read().await?;
        let channel = dial(&args.socket, console).await?;
        take_over(args, theirs, &channel).await
    })?;
    let dry_run = args.dry_run;
    let federation =
        FederationReport { plan: &done.federation, outcomes: &done.federation_outcomes, dry_run };
    let report = Report {
        plan: &done.plan,
        outcomes: &done.outcomes,
        dry_run,
        wanted: "as at the source",
        federation: Some(federation),
    };
    let told = report.print(args.output.form, console);
    // The call that failed is the graver fault; its steps stand above it on the screen.
    done.ended.and(told)
}

enum Source<'a> {
    Server(PathBuf),
    File(&'a str),
}

fn source(args: &Args) -> Result<Source<'_>, Failure> {
    match (set(&args.from), set(&args.file)) {
        (Some(address), None) => Ok(Source::Server(unix_path(address)?)),
        (None, Some(path)) => Ok(Source::File(path)),
        (None, None) => Err(Failure::new("a source is required")
            .try_this("set -from to the other server's socket, or -file to what `export` wrote")),
        (Some(_), Some(_)) => {
            Err(Failure::new("there can be one source").try_this("leave out -from or -file"))
        }
    }
}

impl Source<'_> {
    async fn read(&self) -> Result<EntryFile, Failure> {
        match self {
            Self::File(path) => entry_file::read(path),
            Self::Server(path) => {
                let channel = connect_by("-from", path, "server to import from").await?;
                let held = Held::by(&channel).await.map_err(|failure| failure.within("of the source"))?;
                let declared = |entry: types::Entry| {
                    let place = format!("entry {} of the source", entry.id);
                    Declared { entry, name: None, place }
                };
                let entries = held.entries.into_iter().map(declared).collect();
                let federation = held::federation(&channel).await;
                let federation = federation.map_err(|failure| failure.within("of the source"))?;
                Ok(EntryFile { trust_domain: Some(held.trust_domain), entries, federation })
            }
        }
    }
}

/// Both plans and how they ended.
struct Taken {
    federation: FederationPlan,
    federation_outcomes: Vec<Outcome>,
    plan: Plan,
    outcomes: Vec<Outcome>,
    /// A call that failed.
    ended: Result<(), Failure>,
}

async fn take_over(args: &Args, theirs: EntryFile, channel: &Channel) -> Result<Taken, Failure> {
    let here = Held::by(channel).await?;
    here.expect(theirs.trust_domain.as_ref(), "the entries of the source")?;
    let federation = FederationPlan::make(theirs.federation, &held::federation(channel).await?, args.update);
    let (entries, twins) = apart(theirs.entries);
    let rules = Rules { set: None, prune: false, change: args.update };
    let mut plan = Plan::make(&entries, &here.entries, rules)
        .map_err(|fault| Failure::new(fault).try_this("keep one of the two; nothing was changed"))?;
    plan.conflicts.extend(twins);
    // Bundles first: an entry cannot federate with a trust domain that has none.
    let (federation_outcomes, mut ended) = match args.dry_run {
        true => (Vec::new(), Ok(())),
        false => carry_out_federation(channel, &federation.steps).await,
    };
    let mut missing = without_bundle(channel, plan.steps.iter().map(Step::entry)).await?;
    if args.dry_run {
        missing = &missing - &federation.new_bundles();
    }
    plan.set_aside(|entry| unfit(entry, &here.trust_domain, &missing));
    let mut outcomes = Vec::new();
    if !args.dry_run && ended.is_ok() {
        (outcomes, ended) = carry_out(&mut held::entries(channel), &plan.steps).await;
    }
    Ok(Taken { federation, federation_outcomes, plan, outcomes, ended })
}

/// The entries from the oldest to the newest, as the order among those of one hint goes by age. SPIRE's updates can make
/// two entries alike, of which a server takes the first.
fn apart(mut entries: Vec<Declared>) -> (Vec<Declared>, Vec<Conflict>) {
    entries.sort_by(|a, b| {
        let age = |one: &Declared| (one.entry.created_at, one.entry.id.clone());
        age(a).cmp(&age(b))
    });
    let (mut first, mut twins) = (HashMap::new(), Vec::new());
    entries.retain(|one| match first.get(&Likeness::of(&one.entry)) {
        None => {
            first.insert(Likeness::of(&one.entry), one.place.clone());
            true
        }
        Some(other) => {
            twins.push(Conflict {
                entry: one.entry.clone(),
                what: format!("it has the parent, SPIFFE ID and selectors of {other}"),
                remedy: "delete one of the two at the source".into(),
            });
            false
        }
    });
    (entries, twins)
}

/// Why the server would refuse an entry, and what to try.
fn unfit(
    entry: &types::Entry,
    trust_domain: &TrustDomain,
    without_bundle: &std::collections::BTreeSet<String>,
) -> Option<(String, String)> {
    if let Some(fault) = entry_file::fault(entry, Some(trust_domain)) {
        return Some((format!("this server cannot have it: {fault}"), "correct it at the source".into()));
    }
    let names = entry.federates_with.iter().map(|name| name.strip_prefix("spiffe://").unwrap_or(name));
    let missing = names.filter(|name| without_bundle.contains(*name)).collect::<Vec<_>>();
    let names = missing.join(", ");
    (!missing.is_empty()).then(|| {
        let what = format!("it federates with {names}, of which there is no bundle here");
        (what, Reason::BundleNotFound.remedy().into())
    })
}

#[cfg(test)]
mod tests;
