//! `logger get|set|reset`: how much the server logs.

use clap::Subcommand;
use spindle_proto::spire::api::server::logger::v1::logger_client::LoggerClient;
use spindle_proto::spire::api::server::logger::v1::{
    GetLoggerRequest, ResetLogLevelRequest, SetLogLevelRequest,
};
use spindle_proto::spire::api::types;
use spindle_runtime::LogLevel;

use super::dial;
use crate::args::{Output, Socket, set};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::output;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Shows the log level that holds now and the one of the configuration.
    Get(Args),
    /// Sets the log level until it is set again or the server ends.
    Set(SetArgs),
    /// Goes back to the log level of the configuration.
    Reset(Args),
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    socket: Socket,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub(super) struct SetArgs {
    #[command(flatten)]
    socket: Socket,
    /// The new level: panic, fatal, error, warn, info, debug or trace.
    #[arg(long = "level", value_name = "LEVEL")]
    level: Option<String>,
    #[command(flatten)]
    output: Output,
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
            let new_level = level(set(&args.level))?.into();
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
    output::print(output.form, console, &logger, |console| pretty(console, &logger))
}

const LEVELS: &str = "write panic, fatal, error, warn, info, debug or trace";

/// The level on the wire, from the flag.
fn level(text: Option<&str>) -> Result<types::LogLevel, Failure> {
    let text = text.ok_or_else(|| Failure::new("a value (-level) must be set").try_this(LEVELS))?;
    let level = text
        .parse::<LogLevel>()
        .map_err(|_| Failure::new(format!("the value {text:?} is not a valid setting")).try_this(LEVELS))?;
    Ok(match level {
        LogLevel::Panic => types::LogLevel::Panic,
        LogLevel::Fatal => types::LogLevel::Fatal,
        LogLevel::Error => types::LogLevel::Error,
        LogLevel::Warn => types::LogLevel::Warn,
        LogLevel::Info => types::LogLevel::Info,
        LogLevel::Debug => types::LogLevel::Debug,
        LogLevel::Trace => types::LogLevel::Trace,
    })
}

fn pretty(console: &mut Console<'_>, logger: &types::Logger) -> Result<(), Failure> {
    let current = name(logger.current_level())?;
    let launch = name(logger.launch_level())?;
    Ok(writeln!(console.out, "Logger Level : {current}\nLaunch Level : {launch}\n")?)
}

/// SPIRE's spelling for people.
fn name(level: types::LogLevel) -> Result<&'static str, Failure> {
    Ok(match level {
        types::LogLevel::Panic => "panic",
        types::LogLevel::Fatal => "fatal",
        types::LogLevel::Error => "error",
        types::LogLevel::Warn => "warning",
        types::LogLevel::Info => "info",
        types::LogLevel::Debug => "debug",
        types::LogLevel::Trace => "trace",
        types::LogLevel::Unspecified => {
            return Err(Failure::new("the server sent no log level that this tool knows")
                .try_this("use a tool of the server's version"));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::json::ToJson;
    use crate::testing::Screen;

    fn logger(current: types::LogLevel, launch: types::LogLevel) -> types::Logger {
        types::Logger { current_level: current.into(), launch_level: launch.into() }
    }

    #[test]
    fn levels_are_printed_as_spire_prints_them() {
        let logger = logger(types::LogLevel::Warn, types::LogLevel::Debug);
        let screen = Screen::show(|console| pretty(console, &logger));
        assert_eq!(screen.out, "Logger Level : warning\nLaunch Level : debug\n\n");
        assert_eq!(logger.to_json().to_string(), r#"{"current_level":"WARN","launch_level":"DEBUG"}"#);
    }

    #[test]
    fn an_answer_without_a_level_is_an_error() {
        let screen = Screen::show(|console| pretty(console, &types::Logger::default()));
        assert!(screen.result.is_err() && screen.out.is_empty());
    }

    #[test]
    fn the_level_is_one_of_seven_in_any_case() {
        assert_eq!(level(Some("WARNING")).unwrap(), types::LogLevel::Warn);
        assert_eq!(level(Some("warn")).unwrap(), types::LogLevel::Warn);
        assert_eq!(level(None).expect_err("none").what(), "a value (-level) must be set");
        let never = level(Some("never")).expect_err("no level");
        assert_eq!(never.what(), "the value \"never\" is not a valid setting");
    }
}
