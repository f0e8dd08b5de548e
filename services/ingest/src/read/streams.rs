//! Places for open streams: as many as the process takes, each with a bound on what waits for its reader.

use std::sync::Arc;
use std::time::Duration;

use hopyard_runtime::bounds;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::{Answer, Refusal};

/// Name of the set on `/metrics`.
const QUEUE: &str = "streams";

/// The open streams of a process; cheap to clone.
#[derive(Clone, Debug)]
pub struct Streams {
    places: Arc<Semaphore>,
    patience: Duration,
}

/// The right to one open stream.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    /// A reader that takes nothing for this long is dropped; it resumes by id.
    pub(super) patience: Duration,
}

impl Streams {
    /// At most so many.
    pub fn new(most: usize, patience: Duration) -> Self {
        let streams = Self { places: Arc::new(Semaphore::new(most)), patience };
        let shown = streams.places.clone();
        bounds::show(QUEUE, most, move || most - shown.available_permits().min(most));
        streams
    }

    /// The right to one more.
    ///
    /// # Errors
    /// 429 `too_many_streams`.
    pub(crate) fn admit(&self) -> Answer<Place> {
        let Ok(permit) = self.places.clone().try_acquire_owned() else {
            bounds::overflow(QUEUE);
            let detail = "this process has as many open streams as it takes (HOPYARD_HTTP_STREAMS); try another replica or later";
            return Err(Refusal::new(429, "too_many_streams", detail));
        };
        Ok(Place { _permit: permit, patience: self.patience })
    }

    /// Places that are free.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.places.available_permits()
    }
}
