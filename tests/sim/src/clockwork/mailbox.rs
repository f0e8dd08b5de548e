//! A queue with one reader.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// The queue; clones are the same one.
pub(crate) struct Mailbox<T>(Rc<RefCell<Content<T>>>);

struct Content<T> {
    queue: VecDeque<T>,
    reader: Option<Waker>,
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self(Rc::new(RefCell::new(Content { queue: VecDeque::new(), reader: None })))
    }
}

impl<T> Mailbox<T> {
    /// Puts something in.
    pub(crate) fn send(&self, item: T) {
        let mut content = self.0.borrow_mut();
        content.queue.push_back(item);
        if let Some(reader) = content.reader.take() {
            reader.wake();
        }
    }

    /// Takes what is there.
    pub(crate) fn try_recv(&self) -> Option<T> {
        self.0.borrow_mut().queue.pop_front()
    }

    /// Waits for something.
    pub(crate) async fn recv(&self) -> T {
        poll_fn(|cx| {
            let mut content = self.0.borrow_mut();
            match content.queue.pop_front() {
                Some(item) => Poll::Ready(item),
                None => {
                    content.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Takes everything out.
    pub(crate) fn clear(&self) {
        self.0.borrow_mut().queue.clear();
    }
}
