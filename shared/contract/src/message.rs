//! Messages between the services; readers ignore unknown fields, so that versions may differ by one.

mod accept;
mod answer;
mod claim;
mod clean;
mod envelope;
mod lease;
mod presence;
mod recording;
mod report;
mod tickets;

pub use accept::*;
pub use answer::*;
pub use claim::*;
pub use clean::*;
pub use envelope::*;
pub use lease::*;
pub use presence::*;
pub use recording::*;
pub use report::*;
pub use tickets::*;

/// Version of every message of this module.
pub const MESSAGE_VERSION: u32 = 1;
