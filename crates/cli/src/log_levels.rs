//! `logger get|set|reset` of server and agent: how much a process logs. Start at [`run`].

use clap::Subcommand;
use spindle_proto::spire::api::types;
use spindle_runtime::LogLevel;
use tonic::{Response, Status};

use crate::args::{Call, Output, Socket, set};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::output;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows the log level that holds now and the one of the configuration.
    Get(Call),
    /// Sets the log level until it is set again or the process ends.
    Set(SetArgs),
    /// Goes back to the log level of the configuration.
    Reset(Call),
}

#[derive(Debug, clap::Args)]
pub(crate) struct SetArgs {
    #[command(flatten)]
    socket: Socket,
    /// The new level: panic, fatal, error, warn, info, debug or trace.
    #[arg(long = "level", value_name = "LEVEL")]
    level: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// What a logger service answers.
pub(crate) type Answer = Result<Response<types::Logger>, Status>;

/// A logger service: the server's or the agent's, which have messages of the same names and parts.
pub(crate) trait LoggerCalls {
    /// The levels.
    async fn get(&mut self) -> Answer;
    /// Sets the level with this number.
    async fn set(&mut self, new_level: i32) -> Answer;
    /// Sets the level of the configuration.
    async fn reset(&mut self) -> Answer;
}

/// Runs one command over the client that `dial` makes.
///
/// # Errors
/// When the level is none, nobody answers, or the call is refused.
pub(crate) fn run<C: LoggerCalls>(
    command: &Command,
    console: &mut Console<'_>,
    dial: impl AsyncFnOnce(&Socket, &Console<'_>) -> Result<C, Failure>,
) -> Result<(), Failure> {
    let (socket, output, new_level) = match command {
        Command::Get(Call { socket, output }) | Command::Reset(Call { socket, output }) => {
            (socket, output, None)
        }
        Command::Set(args) => (&args.socket, &args.output, Some(parse(set(&args.level))?.into())),
    };
    let logger = block_on(async {
        let mut client = dial(socket, &*console).await?;
        let (answer, what) = match (command, new_level) {
            (Command::Reset(_), _) => (client.reset().await, "failed to reset logger"),
            (_, Some(level)) => (client.set(level).await, "failed to set log level"),
            (_, None) => (client.get().await, "error fetching logger"),
        };
        Ok(answer.map_err(|status| refused(what, &status))?.into_inner())
    })?;
    output::print(output.form, console, &logger, |console| pretty(console, &logger))
}

const LEVELS: &str = "write panic, fatal, error, warn, info, debug or trace";

fn parse(text: Option<&str>) -> Result<types::LogLevel, Failure> {
    let text = text.ok_or_else(|| Failure::new("a value (-level) must be set").try_this(LEVELS))?;
    let level = text
        .parse::<LogLevel>()
        .map_err(|_| Failure::new(format!("the value {text:?} is not a valid setting")).try_this(LEVELS))?;
    types::LogLevel::try_from(level.number())
        .map_err(|_| Failure::new(format!("the level {level} has no number")).try_this(LEVELS))
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
            return Err(Failure::new("no log level that this tool knows came back")
                .try_this("use a tool of the same version"));
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
        assert_eq!(parse(Some("WARNING")).unwrap(), types::LogLevel::Warn);
        assert_eq!(parse(Some("warn")).unwrap(), types::LogLevel::Warn);
        assert_eq!(parse(None).expect_err("none").what(), "a value (-level) must be set");
        let never = parse(Some("never")).expect_err("no level");
        assert_eq!(never.what(), "the value \"never\" is not a valid setting");
    }
}
