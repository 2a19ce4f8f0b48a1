//! `spindle-agent`: see `spindle_cli::agent_cli`.

use std::process::ExitCode;

use spindle_cli::console::{Console, process_var};

/// Ten thousand workloads that leave give their memory back, which the system's allocator keeps (ADR 51).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let mut console = Console { out: &mut out, err: &mut err, vars: &process_var };
    ExitCode::from(spindle_cli::agent_cli::main(std::env::args_os(), &mut console))
}
