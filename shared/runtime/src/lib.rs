//! The body that every service lives in: settings, telemetry, the bus, requests between services, the admin port,
//! supervised tasks and draining.
//!
//! Services call [`service::run`] once. This crate *never* knows what a service does, and no other crate (but examples)
//! speaks to NATS or reads the environment.

pub mod admin;
pub mod backoff;
pub mod bounds;
pub mod bus;
pub mod clock;
pub mod config;
pub mod consume;
pub mod dead_letters;
pub mod disk;
pub mod failpoint;
pub mod follow;
pub mod instruments;
pub mod limits;
pub mod presence;
pub mod processes;
pub mod rpc;
pub mod service;
pub mod stored;
pub mod tasks;
pub mod telemetry;
pub mod topology;

pub use bus::Bus;
pub use config::Config;
pub use service::Context;
