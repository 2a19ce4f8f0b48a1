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
    LogLevel::from_number(wire).ok_or_else(|| {
        bad_request(match wire {
            0 => "newLevel value cannot be LogLevel_UNSPECIFIED",
            _ => "unsupported log level",
        })
    })
}

fn answer(levels: LogLevels) -> Result<Response<types::Logger>, Status> {
    Ok(Response::new(types::Logger {
        current_level: levels.current.number(),
        launch_level: levels.launch.number(),
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
    fn every_level_goes_over_the_wire_by_its_name() {
        for level in LogLevel::ALL {
            let wire = types::LogLevel::try_from(level.number()).unwrap();
            assert_eq!(wire.as_str_name().parse::<LogLevel>().unwrap(), level);
            assert_eq!(level_from_proto(wire.into()).unwrap(), level);
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
