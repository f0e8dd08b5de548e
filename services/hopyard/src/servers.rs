//! Private servers (nats-server, PostgreSQL) on loopback, owned by the process that starts them.
//!
//! Every server lives in its own data folder and process group, is ready when its `start` returns, and dies with its
//! value, with `stop` or `kill`, or (Linux with `setpriv`) with the whole process, however that one ends.

mod family;
mod holder;
mod nats;
mod postgres;
mod programs;
mod spawner;
#[cfg(test)]
mod tests;

pub use holder::port_holder;
pub use nats::{NatsOptions, NatsServer};
pub use postgres::{PgOptions, PostgresServer};
pub use programs::{find_postgres, find_program, process_env};
pub use spawner::{Account, Launch, Spawner, Streams, end};
