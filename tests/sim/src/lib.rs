//! The simulator: the real decision and the real transaction in a world of simulated stores, buses, clocks and processes.
//!
//! It *never* sleeps, opens a socket or asks a clock: a seed is a whole history, and the same seed is the same history.

pub mod bugs;
pub mod store;
