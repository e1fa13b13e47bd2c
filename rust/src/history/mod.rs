//! Stage 3: one compressed text per user within a token budget (paper section 2.1.1).
//!
//! The way of an event: `columns` (as the log has it) -> `partition` (8 bytes, by user) -> `cells` (what happened to a
//! thing in a bucket) -> `readings` (lines) -> `write` (text and tokens). `ladder` cuts what does not fit.

mod block;
pub mod catalogue;
mod cells;
pub mod columns;
mod dates;
mod descent;
mod floor;
mod ladder;
mod lines;
mod partition;
mod pieces;
mod places;
mod readings;
pub mod rows;
mod sets;
mod spare;
mod tasks;
mod user;
mod write;

use crate::error::Error;
use crate::tokenizer::Tokenizer;
use catalogue::Entries;
use columns::Log;
use dates::Dates;
use partition::{Partition, MAX_BEHAVIORS, MAX_ENTRIES};
use pieces::Pieces;
use tasks::Task;
use user::{Receipt, Worker};
use write::Buffer;

pub use partition::Clock;
pub use readings::Layout;
pub use spare::Spare;

// Switches of one call, not states of a machine.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone)]
pub struct Options {
    /// Local day number of `now`.
    pub today: i32,
    pub budget: Option<u64>,
    /// `None`: the cheapest for each user; with `stable` for each bucket, so that texts only grow.
    pub layout: Option<Layout>,
    pub counts: bool,
    pub long_labels: bool,
    pub stable: bool,
    pub row_ids: bool,
    /// 0: one a core.
    pub threads: usize,
    /// Always, but where the bench asks what counting costs: without it all tokens are 0.
    pub count: bool,
}

/// The histories of some neighbouring users, as flat columns.
#[derive(Default)]
pub struct Chunk {
    /// User codes.
    pub users: Vec<i64>,
    pub offsets: Vec<i64>,
    pub bytes: Spare<u8>,
    pub tokens: Vec<u32>,
    /// Seven numbers a user: tokens in, tokens out, events, full, coarsened, folded, dropped.
    pub receipts: Vec<i64>,
    /// Rows of `Layout::ALL`.
    pub layouts: Vec<u8>,
}

/// Records that one thread takes at a time: enough to hide the taking, few enough to end together.
const TASK: usize = 1 << 15;

/// More threads than any machine of today has cores; a pool takes what it is told and would start them all.
const MAX_THREADS: usize = 1024;

/// Compresses every user's events; users without one before now are absent. `behaviors` ends with the name that rare
/// ones are folded into. `days` tell where days begin: by times, from each of these UTC seconds on local time is ahead by
/// so many seconds, and the first one holds from ever; by ranks, from each of these ranks on it is this local day, which
/// is `calendar::UNDATED` where the log gives no time.
pub fn compress(
    log: &Log<'_>,
    clock: Clock,
    days: &[(i64, i64)],
    entries: &Entries<'_>,
    behaviors: &[String],
    tokenizer: &Tokenizer,
    options: &Options,
) -> Result<Vec<Chunk>, Error> {
    check(log, entries.count(), behaviors.len(), options.threads)?;
    let dates = dates(clock, days, options.today, options.stable)?;
    let worker = || {
        let pieces = Pieces::new(tokenizer, &dates, behaviors, options);
        Worker::new(&dates, entries, options, pieces, behaviors.len() as u32 - 1)
    };
    let chunks = tasks::pool(options.threads, || {
        let mut partition = Partition::new(log, clock, rayon::current_num_threads())?;
        tasks::work(partition.tasks(TASK), worker, chunk)
    })?;
    let some = chunks.into_iter().filter(|chunk| !chunk.users.is_empty());
    Ok(some.collect())
}

fn dates(clock: Clock, days: &[(i64, i64)], today: i32, stable: bool) -> Result<Dates, Error> {
    match clock {
        Clock::Times { now, origin } => {
            let end = now.div_euclid(1_000_000) + 1;
            Dates::of_times(days, origin, end, today, stable)
        }
        Clock::Ranks => {
            let (starts, days) = dates::stretches(days)?;
            Dates::of_stretches(starts, days, today, stable)
        }
    }
}

/// Bytes for the text of some records, by what a record of the users before came to: growing by doubling would copy and
/// touch everything twice. Users before with long texts say little about a giant after them, hence the most.
fn room(records: usize, bytes_a_record: f64) -> usize {
    const MOST: usize = 16 << 20;
    const STEP: usize = 1 << 16;
    // Whole steps, so that room of one call fits the next.
    ((records as f64 * bytes_a_record * 1.1) as usize)
        .min(MOST)
        .next_multiple_of(STEP)
}

fn chunk(task: Task<'_>, worker: &mut Worker<'_>) -> Result<Chunk, Error> {
    let mut chunk = Chunk {
        offsets: vec![0],
        ..Chunk::default()
    };
    let all = task.len();
    let mut text = Buffer::with_room(room(all, worker.bytes_a_record));
    task.each(|user, records| {
        let Receipt {
            tokens_in,
            tokens,
            events,
            fate,
            layout,
        } = worker.compress(records, &mut text);
        chunk.users.push(user as i64);
        chunk.offsets.push(text.len() as i64);
        chunk
            .tokens
            .push(u32::try_from(tokens).map_err(|_| Error::Value {
                argument: "tokens",
                expected: format!("at most {} a user; set a budget", u32::MAX),
                came: tokens.to_string(),
                position: user,
            })?);
        let numbers = [
            tokens_in,
            tokens,
            events,
            fate.full,
            fate.coarsened,
            fate.folded,
            fate.dropped,
        ];
        chunk.receipts.extend(numbers.map(|number| number as i64));
        chunk.layouts.push(layout as u8);
        Ok(())
    })?;
    worker.bytes_a_record = text.len() as f64 / all.max(1) as f64;
    chunk.bytes = text.into_bytes();
    Ok(chunk)
}

fn check(log: &Log<'_>, entries: usize, behaviors: usize, threads: usize) -> Result<(), Error> {
    log.check()?;
    let missing = (behaviors == 0).then_some(Error::Value {
        argument: "behaviors",
        expected: "at least the one that rare ones are folded into".to_owned(),
        came: "none".to_owned(),
        position: 0,
    });
    missing.map_or(Ok(()), Err)?;
    // Users are counted by code, so codes far beyond the rows would only cost memory.
    let users = 4 * log.rows() + 65_536 + log.users.map.map_or(0, <[i32]>::len);
    for (argument, most, came) in [
        ("rows", u32::MAX as usize, log.rows()),
        ("users", users, log.users.size),
        ("threads", MAX_THREADS, threads),
        ("entries", MAX_ENTRIES - 1, entries),
        ("behaviors", MAX_BEHAVIORS, behaviors),
    ] {
        if came > most {
            return Err(Error::Value {
                argument,
                expected: format!("at most {most}"),
                came: came.to_string(),
                position: most,
            });
        }
    }
    for (argument, size, most) in [
        ("items", log.items.size, entries),
        ("queries", log.queries.size, entries),
        ("nothing", log.nothing as usize + 1, entries),
        ("behaviors", log.behaviors.size, behaviors),
    ] {
        if size > most {
            return Err(Error::Value {
                argument,
                expected: format!("codes up to {most}"),
                came: size.to_string(),
                position: 0,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
