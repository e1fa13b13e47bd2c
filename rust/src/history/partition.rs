//! Reliable events by user, as 8 bytes each.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rayon::prelude::*;

use super::columns::{Block, Log, Stretch, BLOCK};
use crate::error::Error;

const BEHAVIOR_BITS: u32 = 5;
const ENTRY_BITS: u32 = 27;
pub const MAX_BEHAVIORS: usize = 1 << BEHAVIOR_BITS;
pub const MAX_ENTRIES: usize = 1 << ENTRY_BITS;

/// One event: when, about what, which behavior. Its order as a number is the order of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record(pub u64);

impl Record {
    pub fn new(moment: u32, entry: u32, behavior: u32) -> Self {
        Self(
            u64::from(moment) << (ENTRY_BITS + BEHAVIOR_BITS)
                | u64::from(entry) << BEHAVIOR_BITS
                | u64::from(behavior),
        )
    }

    /// Seconds since the clock's origin, or a rank.
    pub fn moment(self) -> u32 {
        (self.0 >> (ENTRY_BITS + BEHAVIOR_BITS)) as u32
    }

    pub fn entry(self) -> u32 {
        (self.0 >> BEHAVIOR_BITS) as u32 & (MAX_ENTRIES as u32 - 1)
    }

    pub fn behavior(self) -> u32 {
        self.0 as u32 & (MAX_BEHAVIORS as u32 - 1)
    }
}

/// The first microsecond of the year 10000.
const END: i64 = 253_402_300_800_000_000;

/// What the column of moments holds.
#[derive(Debug, Clone, Copy)]
pub enum Clock {
    /// UTC microseconds; those at or after `now` are not seen. `origin` is a second, at most 2^32 - 1 before now.
    Times { now: i64, origin: i64 },
    /// The rank of each event; for logs with positions or events without a time.
    Ranks,
}

impl Clock {
    /// Seconds after the origin or the rank; `None`: not seen yet.
    #[inline]
    fn read(self, moment: i64, position: usize) -> Result<Option<u32>, Error> {
        let outside = |expected| Error::Moment {
            came: moment,
            expected,
            position,
        };
        match self {
            Self::Times { now, .. } if moment >= now => {
                if moment < END {
                    Ok(None)
                } else {
                    Err(outside("in the years 1970 to 9999"))
                }
            }
            Self::Times { .. } if moment < 0 => Err(outside("in the years 1970 to 9999")),
            Self::Times { origin, .. } => {
                // The division of a non-negative number by a constant is one multiplication.
                let second = (moment as u64 / 1_000_000) as i64;
                u32::try_from(second - origin)
                    .map(Some)
                    .map_err(|_| outside("at most 136 years before now"))
            }
            // The largest number ends the last stretch of `Dates`.
            Self::Ranks => match u32::try_from(moment) {
                Ok(rank) if rank < u32::MAX => Ok(Some(rank)),
                _ => Err(outside("below 2^32 - 1 where it is a rank")),
            },
        }
    }
}

/// Records by user; those of user `u` are `offsets[u]..offsets[u + 1]`, in the order of the log.
pub struct Partition {
    pub offsets: Vec<usize>,
    records: Vec<AtomicU64>,
}

impl Partition {
    /// Counts, then places. Two threads never write to the same place; relaxed atomics say so without `unsafe` and
    /// compile to plain stores.
    pub fn new(log: &Log<'_>, clock: Clock, threads: usize) -> Result<Self, Error> {
        let parts = log.split(threads.max(1));
        let mut cursors = parts
            .par_iter()
            .map(|part| count(log, part))
            .collect::<Result<Vec<_>, _>>()?;
        let users = log.users.size;
        let mut offsets = Vec::with_capacity(users + 1);
        let mut total = 0usize;
        for user in 0..users {
            offsets.push(total);
            for cursors in &mut cursors {
                let count = cursors[user] as usize;
                cursors[user] = u32::try_from(total).map_err(|_| Error::Value {
                    argument: "events",
                    expected: format!("at most {} reliable ones at once", u32::MAX),
                    came: total.to_string(),
                    position: user,
                })?;
                total += count;
            }
        }
        offsets.push(total);
        let starts = cursors.clone();
        let records = bytemuck::zeroed_vec::<AtomicU64>(total);
        let late = parts
            .par_iter()
            .zip(&mut cursors)
            .map(|(part, cursors)| place(log, clock, part, cursors, &records))
            .collect::<Result<Vec<_>, _>>()?;
        let mut partition = Self { offsets, records };
        if late.into_iter().any(|late| late) {
            partition.close_gaps(&starts, &cursors);
        }
        Ok(partition)
    }

    /// Events at or after `now` were counted but not placed: moves the others together.
    fn close_gaps(&mut self, starts: &[Vec<u32>], ends: &[Vec<u32>]) {
        let mut to = 0;
        for user in 0..self.offsets.len() - 1 {
            self.offsets[user] = to;
            for (starts, ends) in starts.iter().zip(ends) {
                for from in starts[user]..ends[user] {
                    let record = self.records[from as usize].load(Relaxed);
                    self.records[to].store(record, Relaxed);
                    to += 1;
                }
            }
        }
        if let Some(last) = self.offsets.last_mut() {
            *last = to;
        }
    }

    /// Copies one user's records, in order.
    pub fn read(&self, user: usize, out: &mut Vec<Record>) {
        out.clear();
        out.extend(
            self.records[self.offsets[user]..self.offsets[user + 1]]
                .iter()
                .map(|record| Record(record.load(Relaxed))),
        );
        sort(out);
    }
}

/// Logs mostly come in the order of time, so a record out of place has a few steps to go; if it has not, sort all.
fn sort(records: &mut [Record]) {
    const FEW: usize = 16;
    for place in 1..records.len() {
        let record = records[place];
        if records[place - 1] <= record {
            continue;
        }
        let start = place.saturating_sub(FEW);
        let to = start + records[start..place].partition_point(|&before| before <= record);
        if to == start && start > 0 && records[start - 1] > record {
            records.sort_unstable();
            return;
        }
        records.copy_within(to..place, to + 1);
        records[to] = record;
    }
}

fn blocks(part: &[Stretch]) -> impl Iterator<Item = Stretch> + '_ {
    part.iter().flat_map(|&stretch| {
        (stretch.start..stretch.end)
            .step_by(BLOCK)
            .map(move |start| Stretch {
                start,
                end: stretch.end.min(start + BLOCK),
                row: stretch.row + start - stretch.start,
                ..stretch
            })
    })
}

fn count(log: &Log<'_>, part: &[Stretch]) -> Result<Vec<u32>, Error> {
    let mut counts = vec![0u32; log.users.size];
    let mut block = Block::default();
    for stretch in blocks(part) {
        let batch = &log.batches[stretch.batch];
        block.read(
            log,
            batch,
            stretch.start,
            stretch.end - stretch.start,
            stretch.row,
        )?;
        // Runs are summed up in a register: in a log by user, adding to memory would wait for the store before.
        let mut run = (block.users[0] as usize, 0);
        for &user in &block.users[..block.kept] {
            if user as usize != run.0 {
                counts[run.0] += run.1;
                run = (user as usize, 0);
            }
            run.1 += 1;
        }
        if run.1 > 0 {
            counts[run.0] += run.1;
        }
    }
    Ok(counts)
}

/// Writes the records of one part; tells whether some were at or after `now`.
fn place(
    log: &Log<'_>,
    clock: Clock,
    part: &[Stretch],
    cursors: &mut [u32],
    records: &[AtomicU64],
) -> Result<bool, Error> {
    let mut late = false;
    let mut block = Block::default();
    let mut made = [0u64; BLOCK];
    for stretch in blocks(part) {
        let batch = &log.batches[stretch.batch];
        let rows = stretch.end - stretch.start;
        block.read(log, batch, stretch.start, rows, stretch.row)?;
        let moments = &batch.moments[stretch.start..stretch.end];
        block.entries(log, batch, stretch.start, stretch.row)?;
        for place in 0..block.kept {
            let row = block.rows[place] as usize;
            let moment = clock.read(moments[row], stretch.row + row)?;
            late |= moment.is_none();
            made[place] = moment.map_or(u64::MAX, |moment| {
                Record::new(
                    moment,
                    block.entry(place),
                    u32::from(block.behaviors[place]),
                )
                .0
            });
        }
        let Some(&first) = block.users[..block.kept].first() else {
            continue;
        };
        let mut run = (first as usize, cursors[first as usize]);
        for (&record, &user) in made[..block.kept].iter().zip(&block.users) {
            if user as usize != run.0 {
                cursors[run.0] = run.1;
                run = (user as usize, cursors[user as usize]);
            }
            if record != u64::MAX {
                records[run.1 as usize].store(record, Relaxed);
                run.1 += 1;
            }
        }
        cursors[run.0] = run.1;
    }
    Ok(late)
}
