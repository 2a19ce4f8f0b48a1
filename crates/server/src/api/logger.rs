//! The Logger service: how much the server logs, changed while it runs.

use std::sync::Arc;

use spindle_proto::spire::api::server::logger::v1 as wire;
use spindle_proto::spire::api::types;
use spindle_runtime::{LogLevel, LogLevels};
use tonic::{Request, Response, Status};
use tracing::info;

use super::filter::bad_request;
use crate::context::Context;

pub(crate) struct LoggerService {
    pub(crate) context: Arc<Context>,
}

/// The level on the wire as ours, or SPIRE's refusal.
fn level_from_proto(wire: i32) -> Result<LogLevel, Status> {
    Ok(match types::LogLevel::try_from(wire) {
        Ok(types::LogLevel::Panic) => LogLevel::Panic,
        Ok(types::LogLevel::Fatal) => LogLevel::Fatal,
        Ok(types::LogLevel::Error) => LogLevel::Error,
        Ok(types::LogLevel::Warn) => LogLevel::Warn,
        Ok(types::LogLevel::Info) => LogLevel::Info,
        Ok(types::LogLevel::Debug) => LogLevel::Debug,
        Ok(types::LogLevel::Trace) => LogLevel::Trace,
        Ok(types::LogLevel::Unspecified) => {
            return Err(bad_request("newLevel value cannot be LogLevel_UNSPECIFIED"));
        }
        Err(_) => return Err(bad_request("unsupported log level")),
    })
}

fn level_to_proto(level: LogLevel) -> i32 {
    let wire = match level {
        LogLevel::Panic => types::LogLevel::Panic,
        LogLevel::Fatal => types::LogLevel::Fatal,
        LogLevel::Error => types::LogLevel::Error,
        LogLevel::Warn => types::LogLevel::Warn,
        LogLevel::Info => types::LogLevel::Info,
        LogLevel::Debug => types::LogLevel::Debug,
        LogLevel::Trace => types::LogLevel::Trace,
    };
    wire.into()
}

fn answer(levels: LogLevels) -> Result<Response<types::Logger>, Status> {
    Ok(Response::new(types::Logger {
        current_level: level_to_proto(levels.current),
        launch_level: level_to_proto(levels.launch),
    }))
}

#[tonic::async_trait]
impl wire::logger_server::Logger for LoggerService {
    async fn get_logger(
        &self,
        _: Request<wire::GetLoggerRequest>,
    ) -> Result<Response<types::Logger>, Status> {
        answer(self.context.operations.logs.levels())
    }

    async fn set_log_level(
        &self,
        request: Request<wire::SetLogLevelRequest>,
    ) -> Result<Response<types::Logger>, Status> {
        let level = level_from_proto(request.into_inner().new_level)?;
        // Before the change: it may be one to a level that would not show this line.
        info!(new_log_level = %level, "log level is set");
        answer(self.context.operations.logs.set_level(level))
    }

    async fn reset_log_level(
        &self,
        _: Request<wire::ResetLogLevelRequest>,
    ) -> Result<Response<types::Logger>, Status> {
        let levels = self.context.operations.logs.reset_level();
        info!(launch_log_level = %levels.launch, "log level is reset");
        answer(levels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_goes_over_the_wire_and_back() {
        for level in LogLevel::ALL {
            assert_eq!(level_from_proto(level_to_proto(level)).unwrap(), level);
        }
    }

    #[test]
    fn what_is_no_level_is_refused() {
        for (wire, expected) in
            [(0, "UNSPECIFIED"), (8, "unsupported"), (-1, "unsupported"), (i32::MAX, "unsupported")]
        {
            let status = level_from_proto(wire).expect_err("not a level");
            assert!(status.message().contains(expected), "{wire}: {status:?}");
        }
    }
}
