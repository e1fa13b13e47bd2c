//! One user's records as cells: what happened to each thing in each bucket.
//!
//! A third of it was waiting for memory. A hint when a thing is first seen took a call of 5 million records on one thread
//! from 149 to 128 ms by user and from 177 to 134 by time; for a user of 10 million, places asked for ahead 370 to 233.

use super::catalogue::Entries;
use super::dates::Dates;
use super::partition::Record;
use super::pieces::Pieces;
use super::readings::Cell;
use super::write::{Mark, Things};
use crate::near::near;

/// The user's things and cells before anything is given up.
#[derive(Default)]
pub struct Cells {
    pub things: Things,
    pub all: Vec<Cell>,
    /// Tokens of one line an event.
    pub tokens_in: u64,
    seen: Seen,
    /// The newest cell of each thing, and how many events it has.
    last: Vec<(u32, u32)>,
    /// Classes of equal texts, and things.
    shared: Vec<(u32, u32)>,
}

impl Cells {
    /// Reads a user's records, which are put into the order of buckets if they are not.
    pub fn read(
        &mut self,
        records: &mut [Record],
        dates: &Dates,
        entries: &Entries<'_>,
        pieces: &mut Pieces<'_>,
    ) {
        let far = records.len() > FAR;
        if !self.try_read(records, far, dates, entries, pieces) {
            // Days that a clock set back makes come twice, and undated events where they count as open.
            records.sort_by_cached_key(|record| {
                (dates.bucket_of[dates.stretch(record.moment()).0], record.0)
            });
            let sorted = self.try_read(records, far, dates, entries, pieces);
            debug_assert!(sorted, "buckets ascend after sorting by bucket");
        }
        self.number();
    }

    /// `false` if a bucket is older than the one before.
    fn try_read(
        &mut self,
        records: &[Record],
        far: bool,
        dates: &Dates,
        entries: &Entries<'_>,
        pieces: &mut Pieces<'_>,
    ) -> bool {
        self.things.clear();
        self.all.clear();
        self.last.clear();
        self.seen.clear(records.len());
        if far {
            // Memory that nobody writes to is not taken, and growing leaves holes of as many bytes.
            self.all.reserve(records.len());
        }
        let mut tokens_in = 0u64;
        let (mut same, mut bucket, mut day) = (0..0, 0, 0);
        let mut begin = 0;
        for (place, &record) in records.iter().enumerate() {
            if far {
                self.ask(&records[place..]);
            }
            // The same day goes on for most events, so the tables are asked only when it ends.
            let moment = record.moment();
            if !same.contains(&moment) {
                let stretch;
                (stretch, same) = dates.stretch(moment);
                let now = dates.bucket_of[stretch];
                if now < bucket {
                    return false;
                }
                if now > bucket {
                    begin = self.all.len() as u32;
                }
                bucket = now;
                day = pieces.day(stretch);
            }
            let (entry, behavior) = (record.entry(), record.behavior());
            if pieces.counting {
                tokens_in += u64::from(day + pieces.events[behavior as usize]);
            }
            let thing = self.seen.place(entry) as usize;
            if thing == self.last.len() {
                near(entries.slot(entry));
                self.things.rows.push(entry);
                self.last.push((self.all.len() as u32, 1));
                self.push(thing, bucket, behavior);
            } else {
                let last = &mut self.last[thing];
                last.1 += 1;
                // Cells come by bucket, so its place tells whether the cell is of this one; to ask the cell itself
                // waited for memory at nearly every record of a user with millions.
                if last.0 >= begin {
                    self.all[last.0 as usize].mask |= 1 << behavior;
                } else {
                    last.0 = self.all.len() as u32;
                    self.push(thing, bucket, behavior);
                }
            }
        }
        self.things.fetch(entries);
        if !pieces.counting {
            return true;
        }
        let lines = self.things.slots.iter().zip(&self.last);
        tokens_in += lines
            .map(|(slot, last)| u64::from(slot.line) * u64::from(last.1))
            .sum::<u64>();
        if let Some(first) = records.first() {
            let (stretch, _) = dates.stretch(first.moment());
            tokens_in += u64::from(pieces.day_prefix(stretch));
        }
        if let Some(last) = records.last() {
            let last = entries.slot(last.entry());
            tokens_in = tokens_in - u64::from(last.line) + u64::from(last.text);
        }
        self.tokens_in = tokens_in;
        true
    }

    /// Asks for what the next records will need: a place in the table, from there the newest cell's number, from there the
    /// cell, each early enough for the next one.
    #[inline]
    fn ask(&self, records: &[Record]) {
        let home = |ahead: usize| {
            records
                .get(ahead)
                .map(|record| self.seen.home(record.entry()))
        };
        let last = |home: &(u32, u32)| self.last.get(home.1 as usize);
        if let Some(home) = home(3 * AHEAD) {
            near(home);
        }
        if let Some(last) = home(2 * AHEAD).and_then(last) {
            near(last);
        }
        if let Some(last) = home(AHEAD).and_then(last) {
            near(&self.all[last.0 as usize]);
        }
    }

    #[inline]
    fn push(&mut self, thing: usize, bucket: u16, behavior: u32) {
        self.all.push(Cell {
            thing: thing as u32,
            bucket,
            mask: 1 << behavior,
        });
    }

    /// The row of an entry among the things.
    pub fn thing(&mut self, entry: u32) -> u32 {
        self.seen.place(entry)
    }

    /// Things that share their text are numbered in the order of their first events, so that with `stable` no new thing
    /// changes the number of one that stands in a closed line.
    fn number(&mut self) {
        self.shared.clear();
        for (thing, slot) in self.things.slots.iter().enumerate() {
            if let Some(class) = slot.shared() {
                self.shared.push((class, thing as u32));
            }
        }
        self.shared.sort_unstable();
        for same in self.shared.chunk_by(|left, right| left.0 == right.0) {
            for (&(_, thing), number) in same.iter().zip(1..) {
                if number > 1 {
                    self.things
                        .marks
                        .resize(self.things.rows.len(), Mark::default());
                    self.things.marks[thing as usize].number = number;
                }
            }
        }
    }
}

/// Records of a user whose tables no longer fit the second-level cache: for these the next records' places are asked for,
/// which halves the time of 5 million; for all others it would cost more than it brings.
const FAR: usize = 1 << 16;

/// Records between one request and the next.
const AHEAD: usize = 8;

/// Rows of entries in the order of their first appearance: open addressing over 8-byte slots, small enough for the
/// first-level cache for an ordinary user whatever the size of the catalogue.
#[derive(Default)]
pub struct Seen {
    /// Entry + 1 and its row; 0 is free.
    slots: Vec<(u32, u32)>,
    used: usize,
    shift: u32,
}

/// A heavy user's table grows from here, so that it does not cost all later ones.
const MOST_AT_FIRST: usize = 1 << 13;

impl Seen {
    /// Empties the table and makes it fit a user with so many records.
    pub fn clear(&mut self, records: usize) {
        let size = (records * 5 / 4)
            .next_power_of_two()
            .clamp(64, MOST_AT_FIRST);
        self.slots.clear();
        self.slots.resize(size, (0, 0));
        self.used = 0;
        self.shift = 32 - size.trailing_zeros();
    }

    /// Where an entry stands if no other one stands there.
    #[inline]
    fn first(&self, entry: u32) -> usize {
        (entry.wrapping_mul(0x9E37_79B9) >> self.shift) as usize & (self.slots.len() - 1)
    }

    #[inline]
    fn home(&self, entry: u32) -> &(u32, u32) {
        &self.slots[self.first(entry)]
    }

    #[inline]
    fn slot(&self, entry: u32) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = self.first(entry);
        while self.slots[slot].0 != entry + 1 && self.slots[slot].0 != 0 {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// The row of an entry, the next one if it was not seen yet.
    #[inline]
    pub fn place(&mut self, entry: u32) -> u32 {
        let slot = self.slot(entry);
        if self.slots[slot].0 != 0 {
            return self.slots[slot].1;
        }
        let row = self.used as u32;
        self.slots[slot] = (entry + 1, row);
        self.used += 1;
        if 2 * self.used > self.slots.len() {
            self.grow();
        }
        row
    }

    #[cold]
    fn grow(&mut self) {
        let old = std::mem::take(&mut self.slots);
        self.slots = vec![(0, 0); 2 * old.len()];
        self.shift -= 1;
        for (entry, row) in old {
            if entry != 0 {
                let slot = self.slot(entry - 1);
                self.slots[slot] = (entry, row);
            }
        }
    }
}
