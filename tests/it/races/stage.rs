//! Where a transaction can be held, and whether it is held, works, waits for its turn or is over.

use std::sync::Mutex;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;

/// A place between two calls of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The first runs were locked or found.
    Locked,
    /// The time has been read.
    Timed,
    /// Everything is decided, nothing is written.
    Writing,
    /// Everything is written.
    Committing,
    /// The commit has happened, and its answer gets lost on the way.
    Answering,
}

/// What a contestant is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Nothing yet.
    Nothing,
    /// It has asked for a transaction.
    Beginning,
    /// It is at work, or waits for a lock.
    Working,
    /// It is held.
    Held,
    /// It has its answer.
    Done,
}

#[derive(Clone, Copy, Debug)]
struct Now {
    doing: Doing,
    hold_at: Option<Point>,
    was_held: bool,
    open: bool,
}

/// One contestant's place to be held at; it is held once at most.
#[derive(Debug)]
pub struct Stage(watch::Sender<Now>);

impl Stage {
    pub fn new(hold_at: Option<Point>) -> Self {
        Self(watch::Sender::new(Now { doing: Doing::Nothing, hold_at, was_held: false, open: false }))
    }

    /// Waits here if this is the point, until it is let go.
    pub async fn reach(&self, point: Point) {
        if self.holds_at(point) {
            self.0.send_modify(|now| *now = Now { doing: Doing::Held, hold_at: None, was_held: true, ..*now });
            self.leaves(Doing::Held).await;
        }
    }

    /// Lets it go on, to the end.
    pub fn let_go(&self) {
        self.0.send_modify(|now| {
            now.hold_at = None;
            if now.doing == Doing::Held {
                now.doing = Doing::Working;
            }
        });
    }

    pub fn now_doing(&self, doing: Doing) {
        self.0.send_modify(|now| now.doing = doing);
    }

    pub fn doing(&self) -> Doing {
        self.0.borrow().doing
    }

    /// Waits until it does something else.
    pub async fn leaves(&self, doing: Doing) {
        self.0.subscribe().wait_for(|now| now.doing != doing).await.expect("the stage is there");
    }

    /// Whether it came to its point.
    pub fn was_held(&self) -> bool {
        self.0.borrow().was_held
    }

    /// Says whether it has a transaction open.
    pub fn set_open(&self, open: bool) {
        self.0.send_modify(|now| now.open = open);
    }

    pub fn is_open(&self) -> bool {
        self.0.borrow().open
    }

    /// Whether this is where it is to be held.
    pub fn holds_at(&self, point: Point) -> bool {
        self.0.borrow().hold_at == Some(point)
    }
}

/// The time that both schedulers are told by the store: a millisecond passes with every look.
#[derive(Debug)]
pub struct Clock(Mutex<DateTime<Utc>>);

impl Clock {
    /// Starts ahead of the servers' own clocks, at a whole second: pokes carry those.
    pub fn new() -> Self {
        Self(Mutex::new(DateTime::from_timestamp(Utc::now().timestamp() + 3600, 0).unwrap()))
    }

    pub fn look(&self) -> DateTime<Utc> {
        let mut now = self.0.lock().unwrap();
        *now += TimeDelta::milliseconds(1);
        *now
    }

    /// Goes on to a whole second this many ahead, and says which.
    pub fn pass(&self, seconds: i64) -> DateTime<Utc> {
        let mut now = self.0.lock().unwrap();
        *now = DateTime::from_timestamp(now.timestamp() + seconds, 0).unwrap();
        *now
    }
}
