//! `entry create|update|delete|show|count|apply|lint`.

mod apply;
pub(super) mod batch;
mod create;
mod data;
mod delete;
mod filter;
mod lint;
pub(super) mod show;
mod update;

use clap::Subcommand;
use spindle_proto::refusal::Refusal;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::Reason;
use tonic::Code;

use crate::args::{OutputForm, set};
use crate::client::{code_name, item_remedy};
use crate::console::Console;
use crate::error::Failure;
use crate::output::json::ToJson;
use crate::output::text;
use crate::{input, output};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Creates registration entries.
    Create(create::Args),
    /// Updates registration entries.
    Update(update::Args),
    /// Deletes registration entries.
    Delete(delete::Args),
    /// Displays registration entries.
    Show(show::Args),
    /// Counts registration entries.
    Count(show::CountArgs),
    /// Makes the entries those that files declare.
    Apply(apply::Args),
    /// Looks for entries that do nothing or not what they say.
    Lint(lint::Args),
}

pub(super) fn run(command: Command, console: &mut Console<'_>) -> Result<(), Failure> {
    match command {
        Command::Create(args) => create::run(&args, console),
        Command::Update(args) => update::run(&args, console),
        Command::Delete(args) => delete::run(&args, console),
        Command::Show(args) => show::run(&args, console),
        Command::Count(args) => show::run_count(&args, console),
        Command::Apply(args) => apply::run(&args, console),
        Command::Lint(args) => lint::run(&args, console),
    }
}

/// The flags of an entry that `create` and `update` share.
#[derive(Debug, Clone, Default, clap::Args)]
struct EntryFlags {
    /// Entry ID; for a new entry one is made when it is not set. Of a workload's identities the one with the smallest is the
    /// default.
    #[arg(long = "entryID", value_name = "ID")]
    entry_id: Option<String>,
    /// SPIFFE ID of the entry's parent, which is a node or a workload.
    #[arg(long = "parentID", value_name = "ID")]
    parent_id: Option<String>,
    /// SPIFFE ID that the entry gives.
    #[arg(long = "spiffeID", value_name = "ID")]
    spiffe_id: Option<String>,
    /// Lifetime of X509-SVIDs in seconds; the server's default when 0.
    #[arg(long = "x509SVIDTTL", value_name = "SECONDS", default_value_t = 0)]
    x509_svid_ttl: i32,
    /// Lifetime of JWT-SVIDs in seconds; the server's default when 0.
    #[arg(long = "jwtSVIDTTL", value_name = "SECONDS", default_value_t = 0)]
    jwt_svid_ttl: i32,
    /// File with entries in JSON, - for standard input; other flags are not looked at then.
    #[arg(long = "data", value_name = "FILE")]
    data: Option<String>,
    /// A selector in the form type:value; can be repeated.
    #[arg(long = "selector", value_name = "SELECTOR")]
    selectors: Vec<String>,
    /// A trust domain to federate with, as its SPIFFE ID; can be repeated. Its bundle has to be there, see `bundle set`.
    #[arg(long = "federatesWith", value_name = "ID")]
    federates_with: Vec<String>,
    /// Gives the identity access to the server's management calls.
    #[arg(long = "admin")]
    admin: bool,
    /// The identity is that of a downstream server.
    #[arg(long = "downstream")]
    downstream: bool,
    /// The SVID is put into a secret store by an agent.
    #[arg(long = "storeSVID")]
    store_svid: bool,
    /// When the entry ends, in seconds since 1970; never when 0.
    #[arg(long = "entryExpiry", value_name = "TIME", default_value_t = 0)]
    entry_expiry: i64,
    /// A DNS name for the SVIDs; can be repeated.
    #[arg(long = "dns", value_name = "NAME")]
    dns_names: Vec<String>,
    /// Helps a workload to choose when it has several identities.
    #[arg(long = "hint", value_name = "TEXT")]
    hint: Option<String>,
    /// Agents make the X509-SVID only when it is asked for.
    #[arg(long = "disableX509SVIDPrefetch")]
    disable_x509_svid_prefetch: bool,
    /// JWT-SVIDs get a unique jti claim.
    #[arg(long = "jwtSVIDIncludeJTI")]
    jwt_svid_include_jti: bool,
}

impl EntryFlags {
    /// The entry that the flags describe, below `parent`.
    fn entry(&self, parent: types::Spiffeid, spiffe_id: types::Spiffeid) -> Result<types::Entry, Failure> {
        self.check()?;
        let attributes = types::entry::AdditionalAttributes {
            disable_x509_svid_prefetch: self.disable_x509_svid_prefetch,
            jwt_svid_include_jti: self.jwt_svid_include_jti,
        };
        let has_attributes = self.disable_x509_svid_prefetch || self.jwt_svid_include_jti;
        Ok(types::Entry {
            id: self.entry_id.clone().unwrap_or_default(),
            spiffe_id: Some(spiffe_id),
            parent_id: Some(parent),
            selectors: input::selectors(&self.selectors)?,
            x509_svid_ttl: self.x509_svid_ttl,
            jwt_svid_ttl: self.jwt_svid_ttl,
            federates_with: self.federates_with.clone(),
            admin: self.admin,
            downstream: self.downstream,
            expires_at: self.entry_expiry,
            dns_names: self.dns_names.clone(),
            store_svid: self.store_svid,
            hint: self.hint.clone().unwrap_or_default(),
            additional_attributes: has_attributes.then_some(attributes),
            ..types::Entry::default()
        })
    }

    fn check(&self) -> Result<(), Failure> {
        if self.selectors.is_empty() {
            return Err(required("at least one selector is required", "-selector unix:uid:1000"));
        }
        if self.x509_svid_ttl < 0 {
            return Err(required("a positive x509-SVID TTL is required", "-x509SVIDTTL 3600"));
        }
        if self.jwt_svid_ttl < 0 {
            return Err(required("a positive JWT-SVID TTL is required", "-jwtSVIDTTL 300"));
        }
        Ok(())
    }

    fn spiffe_id(&self) -> Result<types::Spiffeid, Failure> {
        match set(&self.spiffe_id) {
            Some(text) => input::spiffe_id("spiffeID", text),
            None => Err(required("a SPIFFE ID is required", "-spiffeID spiffe://example.org/web")),
        }
    }
}

fn required(what: &str, example: &str) -> Failure {
    Failure::new(what).try_this(format!("for example {example}"))
}

/// One result of a batch, ready to be shown.
struct Item<'a> {
    status: &'a types::Status,
    /// What was made or changed, or what was asked for and refused.
    entry: &'a types::Entry,
    /// ID of the entry that stands in the way.
    existing: Option<&'a str>,
}

/// Shows what was done, then what failed with its reason. `verb` is `create` or `update`.
fn print_results<'a>(
    console: &mut Console<'_>,
    verb: &str,
    results: impl Iterator<Item = Item<'a>> + Clone,
) -> Result<(), Failure> {
    for item in results.clone().filter(|item| item.status.code == 0) {
        text::entry(console.out, item.entry)?;
    }
    let mut refused = Refused::default();
    for Item { status, entry, existing } in results.filter(|item| item.status.code != 0) {
        let code = code_name(Code::from_i32(status.code));
        writeln!(
            console.err,
            "Failed to {verb} the following entry (code: {code}, msg: {:?}):",
            status.message
        )?;
        text::entry(console.err, entry)?;
        refused.tell(console, status, existing)?;
    }
    refused.outcome(verb)
}

/// What is to be said about the refused items of a batch beside SPIRE's lines.
#[derive(Default)]
struct Refused {
    any: bool,
    remedies: Vec<&'static str>,
}

impl Refused {
    /// Says why an item was refused; what to try comes at the end, once for all items.
    fn tell(
        &mut self,
        console: &mut Console<'_>,
        status: &types::Status,
        existing: Option<&str>,
    ) -> Result<(), Failure> {
        self.any = true;
        if let Some(refusal) = Refusal::of_item(status) {
            writeln!(console.err, "reason: {}", refusal.code)?;
        }
        if let Some(id) = existing {
            writeln!(console.err, "existing entry: {id}")?;
        }
        let remedy = remedy(status, existing.is_some());
        self.remedies.extend(remedy.filter(|remedy| !self.remedies.contains(remedy)));
        Ok(())
    }

    fn outcome(self, verb: &str) -> Result<(), Failure> {
        if !self.any {
            return Ok(());
        }
        let failure = Failure::new(format!("failed to {verb} one or more entries"));
        Err(self.remedies.into_iter().fold(failure, |failure, remedy| failure.try_this(remedy)))
    }
}

/// A server of SPIRE sends no reason; where its code has one meaning for entries, that stands for it.
fn remedy(status: &types::Status, has_existing: bool) -> Option<&'static str> {
    let guess = match Code::from_i32(status.code) {
        _ if Refusal::of_item(status).is_some() => None,
        Code::AlreadyExists if has_existing => Some(Reason::EntryExists),
        Code::AlreadyExists => Some(Reason::AlreadyExists),
        Code::NotFound => Some(Reason::EntryNotFound),
        _ => None,
    };
    guess.map(Reason::remedy).or_else(|| item_remedy(status))
}

/// Prints what was answered, then why the rest was not. A fault of a single item fails the command only in pretty form.
fn finish<T: ToJson>(
    form: OutputForm,
    console: &mut Console<'_>,
    response: &T,
    answered: usize,
    outcome: Result<(), Failure>,
    pretty: impl FnOnce(&mut Console<'_>, &T) -> Result<(), Failure>,
) -> Result<(), Failure> {
    match outcome {
        Ok(()) => output::print(form, console, response, |console| pretty(console, response)),
        Err(failure) if answered == 0 => Err(failure),
        Err(failure) => {
            // The call that failed is the graver fault; those of single items stand above it on the screen.
            let _ = output::print(form, console, response, |console| pretty(console, response));
            Err(batch::part_done(failure, answered))
        }
    }
}

/// Puts the refused entry where the server leaves it out, or shows the one that stands in its way; returns that one's ID.
fn fill_refused(
    status: &mut Option<types::Status>,
    entry: &mut Option<types::Entry>,
    asked: Option<&types::Entry>,
) -> Option<String> {
    let status = status.get_or_insert_default();
    if status.code == 0 {
        return None;
    }
    let present = std::mem::replace(entry, asked.cloned());
    present.map(|present| present.id).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests;
