//! The local log of an attempt: both output streams in one append-only file of framed records, in arrival order.
//!
//! An *offset* is a position in the merged log: payload bytes only, frames not counted. The file is written by the shim
//! alone and read by the executor while it grows.

mod reader;
mod writer;

pub use reader::{Records, SpoolReader};
pub use writer::{SpoolWriter, TAIL_BYTES, Totals};

#[cfg(test)]
mod tests;
