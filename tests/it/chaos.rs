//! Clients that never stop asking, and what became of everything that they were promised.

pub mod clients;
pub mod dice;
mod follower;
pub mod journal;
pub mod tally;
pub mod workload;
