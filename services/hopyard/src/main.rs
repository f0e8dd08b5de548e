//! The executable: the nursery of an executor's steps before anything else, else one of the subcommands.

use std::process::ExitCode;

fn main() -> ExitCode {
    // The nursery forks and must have one thread only, so nothing else may run before this line.
    if std::env::args_os().nth(1).is_some_and(|name| name == hopyard_executor::process::NURSERY_COMMAND) {
        return hopyard_executor::process::nursery_main();
    }
    hopyard::cli::main()
}
