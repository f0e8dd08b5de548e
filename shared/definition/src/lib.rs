//! Workflow definitions and prompt files. A definition, YAML 1.2 or JSON text, becomes a plan, or the list of everything that is wrong with it.
//!
//! Each problem has a stable code, a JSON pointer into the definition and, when it came as text, file, line and column.
//! The door and the command line link this crate for definitions; everything behind them works on plans. Prompt files are read
//! where they lie: by the command line, and by executors in the workspace of a run.
//!
//! This crate *never* reads a file, a clock, a socket or the environment, never loads a schema from elsewhere, never
//! expands an anchor and never turns money or a large integer into a float.

mod agent;
mod approval;
mod best_of;
mod definition;
mod document;
mod inputs;
mod llm;
mod presets;
mod prompt;
mod prompt_file;
mod published;
mod reader;
mod retry;
mod roles;
mod step;
mod suggest;
mod workflow;

#[cfg(test)]
mod tests;

pub use definition::{Definition, MAX_PROBLEMS, MAX_SOURCE, from_json, parse};
pub use inputs::bind_inputs;
pub use presets::preset;
pub use prompt::{Loader, MAX_PROMPT, Prompt, PromptTest, parse_prompt};
pub use published::schema;
