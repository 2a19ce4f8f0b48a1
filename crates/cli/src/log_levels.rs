//! What `logger get|set|reset` of server and agent share: flags, levels and how they are printed.

use spindle_proto::spire::api::types;
use spindle_runtime::LogLevel;

use crate::args::{Output, Socket, set};
use crate::console::Console;
use crate::error::Failure;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) socket: Socket,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SetArgs {
    #[command(flatten)]
    pub(crate) socket: Socket,
    /// The new level: panic, fatal, error, warn, info, debug or trace.
    #[arg(long = "level", value_name = "LEVEL")]
    level: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

const LEVELS: &str = "write panic, fatal, error, warn, info, debug or trace";

/// The level on the wire, from the flag.
pub(crate) fn level(args: &SetArgs) -> Result<types::LogLevel, Failure> {
    parse(set(&args.level))
}

fn parse(text: Option<&str>) -> Result<types::LogLevel, Failure> {
    let text = text.ok_or_else(|| Failure::new("a value (-level) must be set").try_this(LEVELS))?;
    let level = text
        .parse::<LogLevel>()
        .map_err(|_| Failure::new(format!("the value {text:?} is not a valid setting")).try_this(LEVELS))?;
    types::LogLevel::try_from(level.number())
        .map_err(|_| Failure::new(format!("the level {level} has no number")).try_this(LEVELS))
}

/// Prints the answer of any of the three commands.
pub(crate) fn print(
    output: &Output,
    console: &mut Console<'_>,
    logger: &types::Logger,
) -> Result<(), Failure> {
    output::print(output.form, console, logger, |console| pretty(console, logger))
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
