//! Which events are counted: everything before a floor, and above it by run and number.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use hopyard_contract::RunId;
use hopyard_contract::event::Event;
use serde::{Deserialize, Serialize, Serializer};

/// How long after its time a transaction may still become visible in the database.
const LAG: TimeDelta = TimeDelta::seconds(120);

/// Memory of counted events. Its size is bounded by the events since the floor, whatever the number of runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    floor: Option<DateTime<Utc>>,
    runs: HashMap<RunId, Counted>,
}

#[derive(Clone, Debug, PartialEq)]
struct Counted {
    /// Time of the newest counted event.
    newest: DateTime<Utc>,
    /// Counted numbers as ranges, both ends included, in order and not touching each other.
    ranges: Vec<(u64, u64)>,
}

/// Run, time of its newest event in microseconds, ranges.
type Row = (RunId, i64, Vec<(u64, u64)>);

/// The memory as it was saved.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct Rows {
    #[serde(with = "hopyard_contract::time::maybe", default)]
    floor: Option<DateTime<Utc>>,
    runs: Vec<Row>,
}

/// The same, written from where it is: a copy would be as large as the memory itself.
#[derive(Serialize)]
pub(crate) struct Saving<'a> {
    #[serde(with = "hopyard_contract::time::maybe")]
    floor: Option<DateTime<Utc>>,
    #[serde(serialize_with = "rows")]
    runs: &'a HashMap<RunId, Counted>,
}

fn rows<S: Serializer>(runs: &HashMap<RunId, Counted>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(runs.iter().map(|(run, counted)| (run, counted.newest.timestamp_micros(), &counted.ranges)))
}

impl Seen {
    /// Everything committed before this instant is counted; `None` before the database was read for the first time.
    pub(crate) fn floor(&self) -> Option<DateTime<Utc>> {
        self.floor
    }

    /// Notes an event; false if it was counted before.
    pub(crate) fn note(&mut self, event: &Event) -> bool {
        if self.floor.is_some_and(|floor| event.at < floor) {
            return false;
        }
        // Most runs have their numbers in order: one range.
        let counted = self.runs.entry(event.run_id).or_insert_with(|| Counted { newest: event.at, ranges: Vec::with_capacity(1) });
        counted.newest = counted.newest.max(event.at);
        insert(&mut counted.ranges, event.seq)
    }

    /// The database was read up to `read`, in the order of time: the floor follows at a distance, and runs below it are
    /// forgotten.
    pub(crate) fn read_up_to(&mut self, read: DateTime<Utc>) {
        let floor = self.floor.map_or(read - LAG, |floor| floor.max(read - LAG));
        self.floor = Some(floor);
        self.runs.retain(|_, counted| counted.newest >= floor);
    }

    /// As it is saved.
    pub(crate) fn save(&self) -> Saving<'_> {
        Saving { floor: self.floor, runs: &self.runs }
    }

    /// From what was saved.
    pub(crate) fn from_rows(rows: Rows) -> Self {
        let runs = rows.runs.into_iter().map(|(run, newest, ranges)| {
            let newest = DateTime::from_timestamp_micros(newest).unwrap_or_default();
            (run, Counted { newest, ranges })
        });
        Self { floor: rows.floor, runs: runs.collect() }
    }

    /// How many runs are remembered.
    pub(crate) fn len(&self) -> usize {
        self.runs.len()
    }
}

/// Adds a number; false if it was in.
fn insert(ranges: &mut Vec<(u64, u64)>, number: u64) -> bool {
    // The first range that ends at the number before or later.
    let at = ranges.partition_point(|(_, end)| end.saturating_add(1) < number);
    match ranges.get_mut(at) {
        Some((start, end)) if (*start..=*end).contains(&number) => return false,
        Some((_, end)) if end.saturating_add(1) == number => {
            *end = number;
            if let Some(&(next, last)) = ranges.get(at + 1)
                && next == number + 1
            {
                ranges[at].1 = last;
                ranges.remove(at + 1);
            }
        }
        Some((start, _)) if number.saturating_add(1) == *start => *start = number,
        _ => ranges.insert(at, (number, number)),
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_any_order_are_taken_once_and_end_as_one_range() {
        for order in [[1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1], [2, 4, 6, 1, 3, 5], [1, 6, 3, 4, 2, 5]] {
            let mut ranges = Vec::new();
            for number in order {
                assert!(insert(&mut ranges, number), "{number} of {order:?}");
                assert!(!insert(&mut ranges, number), "{number} of {order:?}");
                assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{ranges:?}");
            }
            assert_eq!(ranges, [(1, 6)], "{order:?}");
        }
    }
}
