//! `federation create` and `federation update`: from flags, or many from a file.

use spindle_proto::refusal::Refusal;
use spindle_proto::spire::api::server::trustdomain::v1::trust_domain_client::TrustDomainClient;
use spindle_proto::spire::api::server::trustdomain::v1::{
    BatchCreateFederationRelationshipRequest, BatchCreateFederationRelationshipResponse,
    BatchUpdateFederationRelationshipRequest,
    batch_create_federation_relationship_response::Result as Changed,
};
use spindle_proto::spire::api::types;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::data::{self, Raw};
use super::{client, write};
use crate::args::{Output, Socket, set};
use crate::client::{block_on, code_name, item_remedy, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::output;
use crate::output::json::ToJson;
use crate::server_cli::bundle::form::Format;
use crate::server_cli::entry::batch;

#[derive(Debug, Default, clap::Args)]
pub(in crate::server_cli) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// The trust domain to federate with, by its name.
    #[arg(long = "trustDomain", value_name = "NAME")]
    pub(super) trust_domain: Option<String>,
    /// Address of its bundle endpoint, over https.
    #[arg(long = "bundleEndpointURL", value_name = "URL")]
    pub(super) url: Option<String>,
    /// How the endpoint is recognised: https_web or https_spiffe.
    #[arg(long = "bundleEndpointProfile", value_name = "PROFILE")]
    pub(super) profile: Option<String>,
    /// SPIFFE ID of the endpoint; only for https_spiffe.
    #[arg(long = "endpointSpiffeID", value_name = "ID")]
    pub(super) endpoint_id: Option<String>,
    /// File with the bundle of the trust domain, which is set together with the relationship.
    #[arg(long = "trustDomainBundlePath", value_name = "FILE")]
    pub(super) bundle_path: Option<String>,
    /// Form of that bundle: pem or spiffe.
    #[arg(long = "trustDomainBundleFormat", default_value = "pem")]
    pub(super) bundle_format: Format,
    /// File with relationships in JSON, - for standard input; cannot be combined with the other flags.
    #[arg(long = "data", value_name = "FILE")]
    pub(super) data: Option<String>,
    #[command(flatten)]
    output: Output,
}

impl Args {
    /// The relationships that flags or file describe.
    pub(super) fn relationships(
        &self,
        console: &mut Console<'_>,
    ) -> Result<Vec<types::FederationRelationship>, Failure> {
        let texts = [&self.trust_domain, &self.url, &self.profile, &self.endpoint_id, &self.bundle_path];
        let has_others =
            texts.into_iter().any(|text| set(text).is_some()) || self.bundle_format != Format::Pem;
        match set(&self.data) {
            Some(_) if has_others => {
                let what = "cannot use other flags to specify relationship fields when 'data' flag is set";
                Err(Failure::new(what).try_this("take out -data, or the flags that name fields"))
            }
            Some(path) => data::read(path, console),
            None => {
                let owned = |text: &Option<String>| set(text).unwrap_or_default().to_owned();
                let raw = Raw {
                    trust_domain: owned(&self.trust_domain),
                    bundle_endpoint_url: owned(&self.url),
                    bundle_endpoint_profile: owned(&self.profile),
                    endpoint_spiffe_id: owned(&self.endpoint_id),
                    ..Raw::default()
                };
                let mut relationship = data::relationship(&raw)?;
                if let Some(path) = set(&self.bundle_path) {
                    let bundle = data::bundle_in(path, self.bundle_format, &relationship, console)?;
                    relationship.trust_domain_bundle = Some(bundle);
                }
                Ok(vec![relationship])
            }
        }
    }
}

/// What is done with the relationships.
#[derive(Clone, Copy)]
pub(super) enum Verb {
    Create,
    Update,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
        }
    }

    /// One call. The results of both methods have the same fields, so those of an update stand in for a creation's.
    async fn call(
        self,
        client: &mut TrustDomainClient<Channel>,
        federation_relationships: Vec<types::FederationRelationship>,
    ) -> Result<Vec<Changed>, Status> {
        match self {
            Self::Create => {
                let request =
                    BatchCreateFederationRelationshipRequest { federation_relationships, output_mask: None };
                Ok(client.batch_create_federation_relationship(request).await?.into_inner().results)
            }
            Self::Update => {
                let request = BatchUpdateFederationRelationshipRequest {
                    federation_relationships,
                    ..Default::default()
                };
                let answer = client.batch_update_federation_relationship(request).await?;
                let results = answer.into_inner().results.into_iter();
                Ok(results
                    .map(|result| Changed {
                        status: result.status,
                        federation_relationship: result.federation_relationship,
                    })
                    .collect())
            }
        }
    }
}

pub(super) fn run(args: &Args, console: &mut Console<'_>, verb: Verb) -> Result<(), Failure> {
    let asked = args.relationships(console)?;
    let mut response = BatchCreateFederationRelationshipResponse::default();
    let outcome = block_on(async {
        let mut client = client(&args.socket, console).await?;
        for relationships in batch::split(asked.clone()) {
            let results = verb.call(&mut client, relationships).await;
            let failed = |status| refused(&format!("cannot {} relationships", verb.word()), &status);
            response.results.extend(results.map_err(failed)?);
        }
        Ok(())
    });
    let results: Vec<_> = response
        .results
        .iter()
        .map(|result| (result.status.as_ref(), result.federation_relationship.as_ref()))
        .collect();
    finish(args, console, verb.word(), &response, &results, &asked, outcome)
}

/// One result: how it went, and the relationship when all went well.
pub(super) type Item<'a> = (Option<&'a types::Status>, Option<&'a types::FederationRelationship>);

/// Prints what was answered, then why the rest was not.
fn finish(
    args: &Args,
    console: &mut Console<'_>,
    verb: &str,
    response: &impl ToJson,
    results: &[Item<'_>],
    asked: &[types::FederationRelationship],
    outcome: Result<(), Failure>,
) -> Result<(), Failure> {
    match outcome {
        Err(failure) if results.is_empty() => Err(failure),
        outcome => {
            let form = args.output.form;
            let printed =
                output::print(form, console, response, |console| pretty(console, verb, results, asked));
            // The call that failed is the graver fault; those of single items stand above it on the screen.
            outcome.map_err(|failure| batch::part_done(failure, results.len())).and(printed)
        }
    }
}

/// First what was done, then what was refused, as it was asked for.
pub(super) fn pretty(
    console: &mut Console<'_>,
    verb: &str,
    results: &[Item<'_>],
    asked: &[types::FederationRelationship],
) -> Result<(), Failure> {
    for (status, relationship) in results {
        if let (Some(types::Status { code: 0, .. }), Some(relationship)) = (status, relationship) {
            writeln!(console.out)?;
            write(console.out, relationship)?;
        }
    }
    let mut failed = None;
    for ((status, _), asked) in results.iter().zip(asked) {
        let unknown = types::Status::default();
        let status = status.unwrap_or(&unknown);
        if status.code == 0 {
            continue;
        }
        writeln!(console.out)?;
        let (code, message) = (code_name(Code::from_i32(status.code)), &status.message);
        let what = "following federation relationship";
        writeln!(console.err, "Failed to {verb} the {what} (code: {code}, msg: {message:?}):")?;
        write(console.err, asked)?;
        if let Some(refusal) = Refusal::of_item(status) {
            writeln!(console.err, "reason: {}", refusal.code)?;
        }
        let failure: Failure = failed.take().unwrap_or_else(|| {
            Failure::new(format!("failed to {verb} one or more federation relationships"))
        });
        failed = Some(match item_remedy(status) {
            Some(remedy) if !failure.remedies().iter().any(|known| known == remedy) => {
                failure.try_this(remedy)
            }
            _ => failure,
        });
    }
    failed.map_or(Ok(()), Err)
}
