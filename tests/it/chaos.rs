//! Clients that never stop asking, and what became of everything that they were promised.

pub mod clients;
mod faults;
mod follower;
pub mod journal;
mod measure;
mod storm;
pub mod tally;
pub mod workload;
