//! Bounded waiting: a condition is asked again until it holds, and the text of a failure says what was waited for.

use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};

/// Longest wait for anything that should come by itself; shorter than the time after which a lost acknowledgement heals.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Time between two questions.
const AGAIN: Duration = Duration::from_millis(25);

/// Asks `question` until it gives a value; panics with its last objection when [`PATIENCE`] is over.
pub async fn eventually<T, E, F, Fut>(what: &str, question: F) -> T
where
    E: Debug,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    within(PATIENCE, what, question).await
}

/// As [`eventually`], with a limit of its own.
pub async fn within<T, E, F, Fut>(limit: Duration, what: &str, mut question: F) -> T
where
    E: Debug,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let deadline = Instant::now() + limit;
    loop {
        match question().await {
            Ok(value) => return value,
            Err(objection) if Instant::now() >= deadline => panic!("{what}: not within {} s: {objection:?}", limit.as_secs()),
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

/// A condition as an answer for [`eventually`].
pub fn holds(condition: bool, objection: impl Into<String>) -> Result<(), String> {
    if condition { Ok(()) } else { Err(objection.into()) }
}
