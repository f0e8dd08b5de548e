//! Waiting for time, and for the first of two things.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use super::{Clockwork, Micros};

/// A wait until an instant.
pub(crate) struct Sleep {
    clock: Clockwork,
    at: Micros,
    asked: bool,
}

impl Sleep {
    pub(super) fn until(clock: Clockwork, at: Micros) -> Self {
        Self { clock, at, asked: false }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.clock.now() >= self.at {
            return Poll::Ready(());
        }
        if !std::mem::replace(&mut self.asked, true) {
            self.clock.wake_at(self.at, cx.waker());
        }
        Poll::Pending
    }
}

/// What came first.
pub(crate) enum First<A, B> {
    /// The one that is asked first.
    Left(A),
    /// The other.
    Right(B),
}

/// Waits for the first of two; the left one is asked first.
pub(crate) async fn either<A: Future, B: Future>(left: A, right: B) -> First<A::Output, B::Output> {
    let (mut left, mut right) = (pin!(left), pin!(right));
    poll_fn(|cx| {
        if let Poll::Ready(value) = left.as_mut().poll(cx) {
            return Poll::Ready(First::Left(value));
        }
        right.as_mut().poll(cx).map(First::Right)
    })
    .await
}

/// Waits no longer than `limit`.
pub(crate) async fn within<F: Future>(clock: &Clockwork, limit: Micros, future: F) -> Option<F::Output> {
    match either(future, clock.sleep(limit)).await {
        First::Left(value) => Some(value),
        First::Right(()) => None,
    }
}
