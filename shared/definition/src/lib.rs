//! Workflow definitions: YAML 1.2 or JSON text becomes a plan, or the list of everything that is wrong with it.
//!
//! Each problem has a stable code, a JSON pointer into the definition and, when it came as text, file, line and column.
//! Only the door and the command line link this crate; everything behind them works on plans.
//!
//! This crate *never* reads a file, a clock, a socket or the environment, never loads a schema from elsewhere, never
//! expands an anchor and never turns money or a large integer into a float.

mod agent;
mod approval;
mod definition;
mod document;
mod inputs;
mod llm;
mod presets;
mod published;
mod reader;
mod retry;
mod step;
mod suggest;
mod workflow;

#[cfg(test)]
mod tests;

pub use definition::{Definition, MAX_PROBLEMS, MAX_SOURCE, from_json, parse};
pub use inputs::bind_inputs;
pub use presets::preset;
pub use published::schema;
