//! The executable: a step's shim before anything else, else one of the subcommands.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    // The shim forks and must have one thread only, so nothing else may run before this line.
    if args.nth(1).is_some_and(|name| name == hopyard_executor::process::SHIM_COMMAND) {
        return hopyard_executor::process::shim_main(args);
    }
    hopyard::cli::main()
}
