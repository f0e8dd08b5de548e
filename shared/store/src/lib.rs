//! All SQL of the project: one module per owner of data, one implementation per engine, one conformance suite for both.
//!
//! Decisions are made by the callers; SQL only guards and applies. This crate *never* decides what becomes of a run,
//! and no code outside of the two engine modules asks which engine is at work.

pub mod audit;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod error;
pub mod metrics;
pub mod open;
pub mod read;
pub mod runs;

mod migrations;
mod postgres;
mod sqlite;

pub use error::Error;
pub use open::Store;
#[cfg(feature = "conformance")]
pub use postgres::checks as postgres_checks;

/// Result of every operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;
