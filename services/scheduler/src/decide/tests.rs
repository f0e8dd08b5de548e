//! Facts about the decision, and properties that hold after every input in any order.

mod asking;
mod budgets;
mod choosing;
mod ending;
mod invariants;
mod killing;
mod losing;
mod pausing;
mod placing;
mod property;
mod replaying;
mod retrying;
mod saying;
mod spending;
mod starting;
mod waiting;
mod world;
