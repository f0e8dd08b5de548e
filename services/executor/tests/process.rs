//! Real step processes under a real shim; this executable is its own nursery, so it has its own `main`.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "process/bench.rs"]
mod bench;
#[path = "process/ending.rs"]
mod ending;
#[path = "process/freezing.rs"]
mod freezing;
#[path = "process/output.rs"]
mod output;
#[path = "process/starting.rs"]
mod starting;

use std::ffi::OsString;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Instant;

use hopyard_executor::process::{NURSERY_COMMAND, nursery_main};

type Case = (&'static str, fn() -> Pin<Box<dyn Future<Output = ()>>>);

macro_rules! cases {
    ($($module:ident :: $case:ident),* $(,)?) => {
        &[$((concat!(stringify!($module), "::", stringify!($case)), || Box::pin($module::$case()))),*]
    };
}

const CASES: &[Case] = cases![
    starting::an_exit_code_is_told,
    starting::a_signal_is_told,
    starting::the_environment_is_exactly_the_built_one,
    starting::no_signal_is_blocked,
    starting::standard_input_is_empty,
    starting::a_missing_program_names_the_searched_path,
    starting::a_missing_interpreter_and_directory_are_named,
    starting::a_kill_that_comes_first_starts_nothing,
    starting::a_kill_right_after_the_spawn_ends_as_killed,
    starting::an_executor_that_vanishes_first_starts_nothing,
    starting::a_script_that_is_held_open_for_a_moment_starts_all_the_same,
    starting::a_cgroup_is_used_or_its_refusal_is_said,
    output::ten_megabytes_on_both_streams_lose_nothing,
    output::any_byte_is_kept,
    output::output_is_seen_while_the_step_runs,
    output::a_flood_is_cut_and_does_not_stop_the_step,
    output::a_pipe_kept_open_from_outside_is_let_go,
    ending::a_timeout_ends_the_whole_tree,
    ending::silence_ends_a_step_and_output_keeps_it_alive,
    ending::a_daemon_that_ignores_everything_dies_with_the_step,
    ending::what_a_finished_command_leaves_behind_is_ended,
    ending::a_polite_command_may_clean_up,
    ending::a_stopped_command_takes_its_sigterm,
    ending::force_does_not_wait_for_the_grace,
    ending::a_tree_that_forks_all_the_time_is_caught,
    ending::a_lost_lease_ends_the_step_before_it_expires,
    freezing::a_tree_is_held_still_until_its_lease_is_renewed,
    freezing::time_that_is_held_counts_for_no_limit,
    freezing::a_lease_that_stays_away_ends_the_step_at_the_limit,
    freezing::a_forking_tree_does_not_slip_through,
    freezing::a_held_step_may_clean_up_while_its_lease_lasts,
    freezing::a_held_step_does_not_outlive_its_executor,
    freezing::what_had_stopped_itself_stays_stopped,
    freezing::a_shell_with_job_control_notices_nothing,
    ending::renewals_keep_a_step_alive,
    ending::dropping_the_supervision_ends_the_tree,
    ending::dropping_the_last_handle_ends_the_tree,
    ending::a_killed_executor_leaves_no_process,
    ending::a_killed_shim_leaves_no_process,
    ending::a_killed_nursery_costs_no_step_and_is_replaced,
];

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.peek().is_some_and(|arg| arg == NURSERY_COMMAND) {
        return nursery_main();
    }
    let args: Vec<OsString> = args.collect();
    if args.first().is_some_and(|arg| arg == bench::STAND_IN) {
        return bench::stand_in(&args[1..]);
    }
    let args: Vec<_> = args.iter().filter_map(|arg| arg.to_str()).collect();
    let filters: Vec<_> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let chosen = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(**filter));
    if args.contains(&"--list") {
        CASES.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime starts");
    let (mut passed, mut failed) = (0, 0);
    for (name, case) in CASES.iter().filter(|(name, _)| chosen(name)) {
        let start = Instant::now();
        let held = catch_unwind(AssertUnwindSafe(|| runtime.block_on(case()))).is_ok();
        *(if held { &mut passed } else { &mut failed }) += 1;
        println!("test {name} ... {} ({} ms)", if held { "ok" } else { "FAILED" }, start.elapsed().as_millis());
    }
    let out = CASES.len() - passed - failed;
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {out} filtered out");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
