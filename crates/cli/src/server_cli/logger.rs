//! `logger get|set|reset`: how much the server logs.

use spindle_proto::spire::api::server::logger::v1::logger_client::LoggerClient;
use spindle_proto::spire::api::server::logger::v1::{
    GetLoggerRequest, ResetLogLevelRequest, SetLogLevelRequest,
};
use tonic::transport::Channel;

use super::dial;
use crate::console::Console;
use crate::error::Failure;
use crate::log_levels::{self, Answer, LoggerCalls};

pub(super) use log_levels::Command;

impl LoggerCalls for LoggerClient<Channel> {
    async fn get(&mut self) -> Answer {
        self.get_logger(GetLoggerRequest {}).await
    }

    async fn set(&mut self, new_level: i32) -> Answer {
        self.set_log_level(SetLogLevelRequest { new_level }).await
    }

    async fn reset(&mut self) -> Answer {
        self.reset_log_level(ResetLogLevelRequest {}).await
    }
}

pub(super) fn run(command: &Command, console: &mut Console<'_>) -> Result<(), Failure> {
    log_levels::run(command, console, async |socket, console| {
        Ok(LoggerClient::new(dial(socket, console).await?))
    })
}
