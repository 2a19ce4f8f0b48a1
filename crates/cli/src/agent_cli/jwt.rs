//! `api fetch jwt` and `api validate jwt`: the JWT profile of the Workload API, as this process.

use std::time::Duration;

use clap::Subcommand;
use serde_json::Value;
use spindle_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use spindle_proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse,
};
use tonic::Code;
use tonic::transport::Channel;

use super::api::{no_answer, with_header, within};
use crate::args::{Output, OutputForm, Socket, set};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::endpoint::Endpoint;
use crate::error::Failure;
use crate::output::json::ToJson;
use crate::{duration, output};

#[derive(Debug, clap::Args)]
pub(super) struct FetchArgs {
    #[command(flatten)]
    socket: Socket,
    #[command(flatten)]
    form: JwtForm,
}

/// Which JWT-SVIDs are wanted, and how they are waited for and shown.
#[derive(Debug, clap::Args)]
pub(super) struct JwtForm {
    /// How long to wait for each answer, like 5s.
    #[arg(long = "timeout", value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    pub(super) timeout: Duration,
    /// Services that the JWT-SVID is for, with commas between them; one for one service alone is the safest.
    #[arg(long = "audience", value_name = "SERVICES", value_delimiter = ',')]
    audience: Vec<String>,
    /// SPIFFE ID of the identity wanted; all of them without it.
    #[arg(long = "spiffeID", value_name = "ID")]
    spiffe_id: Option<String>,
    #[command(flatten)]
    output: Output,
    /// Old name of -output.
    #[arg(long = "format", value_name = "FORM", hide = true)]
    format: Option<OutputForm>,
}

#[derive(Debug, Subcommand)]
pub(super) enum ValidateCommand {
    /// Validates a JWT-SVID.
    Jwt(ValidateArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct ValidateArgs {
    #[command(flatten)]
    socket: Socket,
    /// How long to wait for the answer, like 5s.
    #[arg(long = "timeout", value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    timeout: Duration,
    /// The audience that the JWT-SVID has to be for.
    #[arg(long = "audience", value_name = "SERVICE")]
    audience: Option<String>,
    /// The JWT-SVID.
    #[arg(long = "svid", value_name = "TOKEN")]
    svid: Option<String>,
    #[command(flatten)]
    output: Output,
}

pub(super) fn fetch(args: &FetchArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let request = args.form.request()?;
    let endpoint = Endpoint::of(&args.socket, console.vars)?;
    show(&args.form, &block_on(fetch_both(&endpoint, args.form.timeout, request))?, console)
}

impl JwtForm {
    /// What is asked for.
    ///
    /// # Errors
    /// When it is not said for whom the tokens are.
    pub(super) fn request(&self) -> Result<JwtsvidRequest, Failure> {
        let audience: Vec<String> = self.audience.iter().filter(|one| !one.is_empty()).cloned().collect();
        if audience.is_empty() {
            return Err(Failure::new("audience must be specified")
                .try_this("set -audience to the name of the service that is to accept the token"));
        }
        Ok(JwtsvidRequest { audience, spiffe_id: set(&self.spiffe_id).unwrap_or_default().to_owned() })
    }
}

/// Prints both answers.
pub(super) fn show(form: &JwtForm, fetched: &Fetched, console: &mut Console<'_>) -> Result<(), Failure> {
    let old = form.format.filter(|_| form.output.form == OutputForm::default());
    output::print(old.unwrap_or(form.output.form), console, fetched, |console| {
        for svid in &fetched.svids.svids {
            writeln!(console.out, "token({}):\n\t{}", svid.spiffe_id, svid.svid)?;
            if !svid.hint.is_empty() {
                writeln!(console.out, "hint({}):\n\t{}", svid.spiffe_id, svid.hint)?;
            }
        }
        for (id, key_set) in &fetched.bundles.bundles {
            writeln!(console.out, "bundle({id}):\n\t{}", String::from_utf8_lossy(key_set))?;
        }
        Ok(())
    })
}

/// Tokens, and the keys to check them with.
pub(super) struct Fetched {
    pub(super) svids: JwtsvidResponse,
    pub(super) bundles: JwtBundlesResponse,
}

impl ToJson for Fetched {
    fn to_json(&self) -> Value {
        Value::Array(vec![self.svids.to_json(), self.bundles.to_json()])
    }
}

async fn fetch_both(
    endpoint: &Endpoint,
    timeout: Duration,
    request: JwtsvidRequest,
) -> Result<Fetched, Failure> {
    let channel = endpoint.connect().await?;
    let bundles = within(timeout, first_bundles(channel.clone())).await?;
    let svids = async {
        let answer = SpiffeWorkloadApiClient::new(channel).fetch_jwtsvid(with_header(request)).await;
        Ok(answer.map_err(|status| refused("cannot fetch JWT-SVIDs", &status))?.into_inner())
    };
    Ok(Fetched { svids: within(timeout, svids).await?, bundles })
}

async fn first_bundles(channel: Channel) -> Result<JwtBundlesResponse, Failure> {
    let mut client = SpiffeWorkloadApiClient::new(channel);
    let first = async {
        client.fetch_jwt_bundles(with_header(JwtBundlesRequest {})).await?.into_inner().message().await
    };
    first.await.map_err(|status| refused("cannot fetch JWT bundles", &status))?.ok_or_else(no_answer)
}

pub(super) fn validate(
    ValidateCommand::Jwt(args): &ValidateCommand,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let given = |value: &Option<String>, name: &str| match set(value) {
        Some(text) => Ok(text.to_owned()),
        None => Err(Failure::new(format!("{name} must be specified")).try_this(format!("set -{name}"))),
    };
    let request = ValidateJwtsvidRequest {
        audience: given(&args.audience, "audience")?,
        svid: given(&args.svid, "svid")?,
    };
    let endpoint = Endpoint::of(&args.socket, console.vars)?;
    let response = block_on(async {
        let channel = endpoint.connect().await?;
        within(args.timeout, ask(channel, request)).await
    })?;
    output::print(args.output.form, console, &response, |console| {
        let claims = output::json::structure(response.claims.as_ref());
        writeln!(console.out, "SVID is valid.")?;
        writeln!(console.out, "SPIFFE ID : {}", response.spiffe_id)?;
        Ok(writeln!(console.out, "Claims    : {claims}")?)
    })
}

async fn ask(channel: Channel, request: ValidateJwtsvidRequest) -> Result<ValidateJwtsvidResponse, Failure> {
    let answer = SpiffeWorkloadApiClient::new(channel).validate_jwtsvid(with_header(request)).await;
    answer.map(tonic::Response::into_inner).map_err(|status| match status.code() {
        Code::InvalidArgument => Failure::new(format!("SVID is not valid: {}", status.message())),
        _ => refused("unable to validate JWT SVID", &status),
    })
}
