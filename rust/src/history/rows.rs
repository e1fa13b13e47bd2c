//! Histories as numbers, without any text: what happened to which item in which bucket.

use super::cells::Seen;
use super::columns::Log;
use super::dates::Dates;
use super::partition::{Clock, Partition, Record};
use super::tasks::{self, Task};
use super::{check, dates, TASK};
use crate::error::Error;

/// The cells of some neighbouring users, as flat columns.
#[derive(Default)]
pub struct Rows {
    /// User codes.
    pub users: Vec<i64>,
    pub offsets: Vec<i64>,
    /// Rows of the labels.
    pub buckets: Vec<u16>,
    /// One bit a behavior.
    pub behaviors: Vec<u32>,
    pub items: Vec<i32>,
}

/// Which entries are items, what day it is, and how many threads may work.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub items: usize,
    /// All entries that the log may name.
    pub entries: usize,
    pub behaviors: usize,
    pub today: i32,
    pub stable: bool,
    pub threads: usize,
}

/// The label of each bucket, oldest first, and each user's cells by bucket, in one in the order of their first events.
/// Entries that are no items are left out, and so are users without one.
pub fn rows(
    log: &Log<'_>,
    clock: Clock,
    days: &[(i64, i64)],
    request: Request,
) -> Result<(Vec<String>, Vec<Rows>), Error> {
    check(log, request.entries, request.behaviors, request.threads)?;
    let dates = dates(clock, days, request.today, request.stable)?;
    let labels = dates.buckets.iter().map(|bucket| bucket.label(true));
    let found = tasks::pool(request.threads, || {
        let mut partition = Partition::new(log, clock, rayon::current_num_threads())?;
        tasks::work(partition.tasks(TASK), Reader::default, |task, reader| {
            reader.read(task, &dates, request.items)
        })
    })?;
    let some = found.into_iter().filter(|rows| !rows.users.is_empty());
    Ok((labels.collect(), some.collect()))
}

/// What one thread works with.
#[derive(Default)]
struct Reader {
    seen: Seen,
    /// The newest cell of each thing.
    last: Vec<usize>,
}

impl Reader {
    fn read(&mut self, task: Task<'_>, dates: &Dates, items: usize) -> Result<Rows, Error> {
        let mut rows = Rows {
            offsets: vec![0],
            ..Rows::default()
        };
        let bucket = |record: &Record| dates.bucket_of[dates.stretch(record.moment()).0];
        task.each(|user, records| {
            if !records.is_sorted_by_key(bucket) {
                // Days that a clock set back makes come twice, and undated events where they count as open.
                records.sort_by_cached_key(|record| (bucket(record), record.0));
            }
            self.seen.clear(records.len());
            self.last.clear();
            let mut start = rows.items.len();
            for same in records.chunk_by(|left, right| bucket(left) == bucket(right)) {
                for record in same
                    .iter()
                    .filter(|record| (record.entry() as usize) < items)
                {
                    let thing = self.seen.place(record.entry()) as usize;
                    let mask = 1 << record.behavior();
                    match self.last.get_mut(thing) {
                        Some(last) if *last >= start => {
                            rows.behaviors[*last] |= mask;
                            continue;
                        }
                        Some(last) => *last = rows.items.len(),
                        None => self.last.push(rows.items.len()),
                    }
                    rows.buckets.push(bucket(record));
                    rows.behaviors.push(mask);
                    rows.items.push(record.entry() as i32);
                }
                start = rows.items.len();
            }
            let end = rows.items.len() as i64;
            if rows.offsets.last() != Some(&end) {
                rows.users.push(user as i64);
                rows.offsets.push(end);
            }
            Ok(())
        })?;
        Ok(rows)
    }
}
