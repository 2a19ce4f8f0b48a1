//! Flags that several commands share: the socket and the form of the output.

use std::path::PathBuf;
use std::str::FromStr;

/// How a command prints its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutputForm {
    /// For people, with SPIRE's labels.
    #[default]
    Pretty,
    /// One line of JSON.
    Json,
}

impl FromStr for OutputForm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            _ => Err("write pretty or json".into()),
        }
    }
}

/// The `-output` flag.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Output {
    /// How to print: pretty or json.
    #[arg(long = "output", value_name = "FORM", default_value = "pretty")]
    pub form: OutputForm,
}

/// Where the socket to call is.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Socket {
    /// Path of the Unix socket to call.
    #[arg(long = "socketPath", value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// Name put into the socket template of the environment, in the place of %i.
    #[arg(long = "instance", value_name = "NAME")]
    pub instance: Option<String>,
}

/// What is said of a call that has no words of its own.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Call {
    /// The socket.
    #[command(flatten)]
    pub socket: Socket,
    /// The form of the answer.
    #[command(flatten)]
    pub output: Output,
}

/// The text, or none when it is empty: SPIRE's tools take an empty value for an unset flag.
pub fn set(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}
