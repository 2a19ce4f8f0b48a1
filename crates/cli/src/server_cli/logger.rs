//! `logger get|set|reset`: how much the server logs.

use clap::Subcommand;
use spindle_proto::spire::api::server::logger::v1::logger_client::LoggerClient;
use spindle_proto::spire::api::server::logger::v1::{
    GetLoggerRequest, ResetLogLevelRequest, SetLogLevelRequest,
};

use super::dial;
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::log_levels::{Args, SetArgs, level, print};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Shows the log level that holds now and the one of the configuration.
    Get(Args),
    /// Sets the log level until it is set again or the server ends.
    Set(SetArgs),
    /// Goes back to the log level of the configuration.
    Reset(Args),
}

pub(super) fn run(command: Command, console: &mut Console<'_>) -> Result<(), Failure> {
    let (output, logger) = match command {
        Command::Get(args) => {
            let answer = block_on(async {
                let mut client = LoggerClient::new(dial(&args.socket, console).await?);
                let answer = client.get_logger(GetLoggerRequest {}).await;
                answer.map_err(|status| refused("error fetching logger", &status))
            });
            (args.output, answer?.into_inner())
        }
        Command::Set(args) => {
            let new_level = level(&args)?.into();
            let answer = block_on(async {
                let mut client = LoggerClient::new(dial(&args.socket, console).await?);
                let answer = client.set_log_level(SetLogLevelRequest { new_level }).await;
                answer.map_err(|status| refused("failed to set log level", &status))
            });
            (args.output, answer?.into_inner())
        }
        Command::Reset(args) => {
            let answer = block_on(async {
                let mut client = LoggerClient::new(dial(&args.socket, console).await?);
                let answer = client.reset_log_level(ResetLogLevelRequest {}).await;
                answer.map_err(|status| refused("failed to reset logger", &status))
            });
            (args.output, answer?.into_inner())
        }
    };
    print(&output, console, &logger)
}
