//! Integration tests: each starts a stack of its own from the real executable and ends with the proof that nothing is left.

#![expect(unreachable_pub, reason = "an executable exports nothing; `pub` marks what a module of it offers to the others")]
#![expect(clippy::unwrap_used, reason = "the parts that tests share may fail a test as the tests themselves may")]
#![cfg_attr(not(feature = "chaos"), allow(dead_code, reason = "some of the harness is for `make chaos` alone"))]

mod harness;

#[path = "../../fuzz/decoders.rs"]
mod decoders;
#[path = "../../fuzz/doors.rs"]
mod decoders_of_the_door;

mod agents;
mod asking;
mod audit;
mod bad_input;
mod bench;
mod best_of;
mod budgets;
mod bus;
#[cfg(feature = "chaos")]
mod chaos;
mod cli;
mod corpus;
#[cfg(debug_assertions)]
#[cfg(feature = "chaos")]
mod crash_points;
mod crashes;
mod crowd;
mod doors;
mod draining;
mod evidence;
mod examples;
mod freezing;
mod golden;
mod kills;
mod llm;
mod logs;
mod operating;
mod overload;
mod presets;
mod prompts;
mod races;
#[cfg(feature = "agents")]
mod real_agents;
mod replay;
mod runs;
mod store;
mod surfaces;
mod tidy;
mod time;
mod workspaces;
