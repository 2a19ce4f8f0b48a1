//! `entry apply`: makes a server's entries those that files declare, and says what it does.

use spindle_runtime::SystemEntropy;
use spindle_spiffe_core::Entropy;

use crate::args::{Output, Socket, set};
use crate::client::block_on;
use crate::console::Console;
use crate::entry_file::{self, EntryFile};
use crate::entry_plan::{Plan, Rules, SetName};
use crate::error::Failure;
use crate::federation_plan::Federation;
use crate::server_cli::carry_out::carry_out;
use crate::server_cli::dial;
use crate::server_cli::held::{self, Held};
use crate::server_cli::report::Report;

/// The set of those who name none.
const SET: &str = "apply";

// Paragraphs are one line each: they are wrapped to the width of the screen.
const EXAMPLE: &str = r#"A file in HCL, or the same keys in JSON; SPIRE's {"entries": [ … ]} is read, too:

    entry "web" {
        spiffe_id = "spiffe://example.org/web"
        parent_id = "spiffe://example.org/node"
        selectors = ["unix:uid:1000"]
        x509_svid_ttl = "1h"
    }

An entry gets the ID SET.NAME and is found again by it, so that all its fields can be changed in place. In a list (entries = [{ … }]) it has no name and is found again by its parent, SPIFFE ID and selectors, or by entry_id. With -prune, entries of the set that the files do not name are deleted; entries that were made by hand have other IDs and stay.

Exit status: 0 when all is as declared, 1 when something failed, 2 when -dryRun found something to do."#;

#[derive(Debug, Default, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(in crate::server_cli) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// File of entries, - for standard input, or a directory of such files.
    #[arg(long = "file", value_name = "FILE")]
    file: Option<String>,
    /// Name of the set of entries that these files look after; it stands in front of the IDs of new entries. It is `apply`
    /// when not set, and then -prune is not allowed.
    #[arg(long = "set", value_name = "NAME")]
    set: Option<SetName>,
    /// Deletes entries of the set that the files do not name; needs -set.
    #[arg(long = "prune")]
    prune: bool,
    /// Says what would be done, and does nothing.
    #[arg(long = "dryRun")]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let (file, name) = input(args, console)?;
    let (plan, outcomes, ended) = block_on(async {
        let channel = dial(&args.socket, console).await?;
        let held = Held::by(&channel).await?;
        let mut plan = plan(&file, &held, &name, args.prune)?;
        if args.dry_run {
            return Ok((plan, Vec::new(), Ok(())));
        }
        plan.name_new(&name, || SystemEntropy.uuid());
        let (outcomes, ended) = carry_out(&mut held::entries(&channel), &plan.steps).await;
        Ok((plan, outcomes, ended))
    })?;
    let report = Report {
        plan: &plan,
        outcomes: &outcomes,
        dry_run: args.dry_run,
        wanted: "as declared",
        federation: None,
    };
    let told = report.print(args.output.form, console);
    // The call that failed is the graver fault; its steps stand above it on the screen.
    ended.and(told)
}

fn input(args: &Args, console: &mut Console<'_>) -> Result<(EntryFile, SetName), Failure> {
    let Some(path) = set(&args.file) else {
        return Err(Failure::new("a file of entries is required")
            .try_this("for example -file entries.hcl; -h shows one"));
    };
    let name = match (&args.set, args.prune) {
        (Some(name), _) => name.clone(),
        (None, true) => {
            return Err(Failure::new("-prune deletes entries of a set, and -set names none")
                .try_this(format!("add -set NAME (entries made without -set are in the set `{SET}`)")));
        }
        (None, false) => SET.parse().map_err(Failure::new)?,
    };
    let file = entry_file::read(path)?;
    if file.federation != Federation::default() {
        let what = "Note: bundles and relationships of the files are left alone; `import -file` sets them.";
        writeln!(console.err, "{what}")?;
    }
    Ok((file, name))
}

/// What has to be done on the server, once every entry of the files is one that it can have.
fn plan(file: &EntryFile, held: &Held, set: &SetName, prune: bool) -> Result<Plan, Failure> {
    held.expect(file.trust_domain.as_ref(), "the files")?;
    for declared in &file.entries {
        declared
            .check(&held.trust_domain)
            .map_err(|fault| Failure::new(fault).try_this("correct the file; nothing was changed"))?;
    }
    let rules = Rules { set: Some(set), prune, change: true };
    Plan::make(&file.entries, &held.entries, rules)
        .map_err(|fault| Failure::new(fault).try_this("keep one of the two; nothing was changed"))
}
