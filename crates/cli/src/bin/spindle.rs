//! `spindle`: see `spindle_cli::spindle_cli`.

use std::process::ExitCode;

use spindle_cli::console::{Console, process_var};

fn main() -> ExitCode {
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let mut console = Console { out: &mut out, err: &mut err, vars: &process_var };
    ExitCode::from(spindle_cli::spindle_cli::main(std::env::args_os(), &mut console))
}
