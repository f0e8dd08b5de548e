//! What is true in Hopyard without any I/O: identifiers, statuses, plans, messages, subjects, usage and problems.
//!
//! Every service, the clients and the generated schemas build on these types. This crate *never* reads a clock, a file,
//! a socket or the environment, and names no other crate of the project.

pub mod audit;
pub mod calls;
pub mod condition;
pub mod duration;
pub mod event;
pub mod id;
pub mod json;
pub mod log;
pub mod message;
pub mod money;
pub mod plan;
pub mod problem;
pub mod repository;
pub mod run;
pub mod schema;
pub mod status;
pub mod subject;
pub mod submit;
pub mod template;
pub mod time;
pub mod topology;
pub mod usage;
pub mod view;

pub use id::{AttemptId, Name, RunId};
pub use problem::{FieldError, Problem};
pub use usage::Usage;
