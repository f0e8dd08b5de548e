//! The `hopyard` executable as a library: its subcommands, the client of the API, the launcher and its private servers.
//!
//! It *never* holds state of a run, never uses, stops or reconfigures a server it did not start, and its private servers never
//! listen beyond the loopback interface.

pub mod audit;
pub mod cli;
pub mod client;
pub mod demo;
pub mod dev;
pub mod evidence;
pub mod exit;
pub mod fake_agent;
pub mod fake_provider;
pub mod operate;
pub mod prompts;
pub mod prune;
pub mod servers;
pub mod service;
