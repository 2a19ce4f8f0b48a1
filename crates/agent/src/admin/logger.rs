//! The Logger service: how much the agent logs, changed while it runs.

use spindle_proto::refusal::refusal;
use spindle_proto::spire::api::agent::logger::v1 as wire;
use spindle_proto::spire::api::types;
use spindle_runtime::{LogLevel, LogLevels, Logs};
use spindle_spiffe_core::Reason;
use tonic::{Code, Request, Response, Status};
use tracing::info;

pub(super) struct LoggerService {
    pub(super) logs: Logs,
}

/// The level on the wire as ours, or SPIRE's refusal.
fn level_from_proto(wire: i32) -> Result<LogLevel, Status> {
    LogLevel::from_number(wire).ok_or_else(|| {
        let text = match wire {
            0 => "newLevel value cannot be LogLevel_UNSPECIFIED",
            _ => "unsupported log level",
        };
        refusal(Code::InvalidArgument, Reason::BadRequest, text)
    })
}

fn answer(levels: LogLevels) -> Response<types::Logger> {
    let (current_level, launch_level) = (levels.current.number(), levels.launch.number());
    Response::new(types::Logger { current_level, launch_level })
}

#[tonic::async_trait]
impl wire::logger_server::Logger for LoggerService {
    async fn get_logger(
        &self,
        _: Request<wire::GetLoggerRequest>,
    ) -> Result<Response<types::Logger>, Status> {
        Ok(answer(self.logs.levels()))
    }

    async fn set_log_level(
        &self,
        request: Request<wire::SetLogLevelRequest>,
    ) -> Result<Response<types::Logger>, Status> {
        let level = level_from_proto(request.into_inner().new_level)?;
        // Before the change: it may be one to a level that would not show this line.
        info!(new_log_level = %level, "log level is set");
        Ok(answer(self.logs.set_level(level)))
    }

    async fn reset_log_level(
        &self,
        _: Request<wire::ResetLogLevelRequest>,
    ) -> Result<Response<types::Logger>, Status> {
        let levels = self.logs.reset_level();
        info!(launch_log_level = %levels.launch, "log level is reset");
        Ok(answer(levels))
    }
}
