//! Evaluation: what a log of exposures adds up to, user by user and item by item, in one pass (paper section 4.2).
//!
//! A log is too long to hold, so it comes in batches; what is held grows with users and with distinct pairs of a user
//! and a category, not with rows. Users are spread over shards by a hash of their id. A batch is first sorted by shard,
//! then one shard after another takes its rows while its own sums lie in the cache. Nothing is shared between threads,
//! and the sums of a user are added in the order of the rows, whatever the number of threads.

mod marks;
mod part;
mod table;

use rayon::prelude::*;

use crate::error::Error;
use crate::near::near;
use marks::Marks;
use part::{Part, Row};
use table::Table;

/// How many users may be counted by one shard: their number and a category are one key.
const MOST_USERS: usize = 1 << 31;
/// Parts of the users. With half a million of them a shard's sums and marks are about half a megabyte.
const SHARDS: usize = 256;
/// Rows that are sorted at once, 16 bytes each.
const BLOCK: usize = 1 << 21;
/// Rows whose addresses are asked for before the first of them is touched: a row alone waits for memory three times.
const AHEAD: usize = 64;

/// Columns of the same length; a row is one item shown to one user.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    /// Any number but the least one.
    pub user: &'a [i64],
    /// A row of the catalogue, or -1 for an item that it does not have.
    pub item: &'a [i32],
    /// Days since 1970 in the shop's time zone; read where there are clicks.
    pub day: &'a [i32],
    pub click: &'a [u32],
    pub cart: &'a [u32],
    /// Seconds.
    pub dwell: &'a [f64],
}

/// What one user's exposures add up to.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Sum {
    pub exposures: u64,
    /// Exposures with at least one click.
    pub clicked: u64,
    pub clicks: u64,
    pub carts: u64,
    pub dwell: f64,
    pub shown_categories: u32,
    pub clicked_categories: u32,
    pub click_days: u32,
}

/// What one item's exposures add up to.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct ItemSum {
    pub exposures: u64,
    pub clicked: u64,
    pub clicks: u64,
}

/// The sums of all batches so far.
pub struct Totals {
    /// One a thread.
    parts: Vec<Part>,
    shards: Vec<Shard>,
}

#[derive(Default)]
struct Shard {
    codes: Table<u32>,
    ids: Vec<i64>,
    sums: Vec<Sum>,
    shown: Marks,
    clicked: Marks,
    days: Marks,
}

impl Totals {
    /// Starts at nothing. `categories` has one number an item, negative where it has none; `threads` is how many can
    /// count at once.
    pub fn new(categories: &[i32], threads: usize) -> Self {
        let part = || Part::new(categories);
        let most = categories.iter().copied().max().unwrap_or(-1);
        let end = usize::try_from(most).map_or(0, |most| most + 1);
        let shards = std::iter::repeat_with(|| Shard {
            shown: Marks::below(end),
            clicked: Marks::below(end),
            ..Shard::default()
        });
        Self {
            parts: std::iter::repeat_with(part).take(threads.max(1)).collect(),
            shards: shards.take(SHARDS).collect(),
        }
    }

    /// Adds a batch, or nothing of it when it is refused.
    pub fn add(&mut self, batch: Batch<'_>) -> Result<(), Error> {
        self.check(&batch)?;
        for start in (0..batch.user.len()).step_by(BLOCK) {
            self.block(batch.from(start, BLOCK));
        }
        Ok(())
    }

    fn block(&mut self, block: Batch<'_>) {
        let threads = self.parts.len();
        let rows = block.user.len().div_ceil(threads);
        self.parts.par_iter_mut().enumerate().for_each(|(n, part)| {
            part.sort(block.from(n * rows, rows), n * rows);
        });
        let (parts, shards) = (&self.parts, SHARDS.div_ceil(threads));
        let own = self.shards.par_chunks_mut(shards).enumerate();
        own.for_each(|(n, own)| {
            for (shard, number) in own.iter_mut().zip(n * shards..) {
                for part in parts {
                    shard.add(&block, part.of(number));
                }
            }
        });
    }

    /// Every user's id and sums, by id.
    pub fn users(&self) -> Vec<(i64, Sum)> {
        let pairs = |shard: &Shard| -> Vec<_> {
            let both = shard.ids.iter().copied().zip(shard.sums.iter().copied());
            both.collect()
        };
        let mut users: Vec<_> = self.shards.iter().flat_map(pairs).collect();
        users.par_sort_unstable_by_key(|(id, _)| *id);
        users
    }

    /// The sums of each catalogue row and, after the last of them, of all items that the catalogue does not have.
    pub fn items(&self) -> Vec<ItemSum> {
        let mut items = vec![ItemSum::default(); self.parts[0].items().count()];
        for part in &self.parts {
            for (sum, part) in items.iter_mut().zip(part.items()) {
                sum.exposures += part.exposures;
                sum.clicked += part.clicked;
                sum.clicks += part.clicks;
            }
        }
        items
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let shard = |shard: &Shard| {
            shard.codes.bytes()
                + shard.shown.bytes()
                + shard.clicked.bytes()
                + shard.days.bytes()
                + shard.ids.capacity() * size_of::<i64>()
                + shard.sums.capacity() * size_of::<Sum>()
        };
        self.shards.iter().map(shard).sum::<usize>()
            + self.parts.iter().map(Part::bytes).sum::<usize>()
    }

    fn check(&self, batch: &Batch<'_>) -> Result<(), Error> {
        let rows = batch.user.len();
        let lengths = [
            ("item", batch.item.len()),
            ("day", batch.day.len()),
            ("click", batch.click.len()),
            ("cart", batch.cart.len()),
            ("dwell", batch.dwell.len()),
        ];
        if let Some(&(right, right_len)) = lengths.iter().find(|(_, len)| *len != rows) {
            return Err(Error::Length {
                left: "user",
                left_len: rows,
                right,
                right_len,
            });
        }
        let users = self.shards.iter().map(|shard| shard.ids.len()).max();
        if users.unwrap_or(0) + rows > MOST_USERS {
            return Err(Error::Value {
                argument: "user",
                expected: format!("one of at most {MOST_USERS} users a thread"),
                came: format!("one of a batch of {rows} that may pass it"),
                position: 0,
            });
        }
        let refused = |argument, expected: &str, came: String, position| Error::Value {
            argument,
            expected: expected.to_owned(),
            came,
            position,
        };
        if let Some(at) = batch.user.iter().position(|&id| id == i64::MIN) {
            let least = i64::MIN.to_string();
            return Err(refused("user", "above -2^63", least, at));
        }
        let items = self.parts[0].items().count() as i64 - 1;
        let known = |item: &i32| (-1..items).contains(&i64::from(*item));
        if let Some(at) = batch.item.iter().position(|item| !known(item)) {
            let expected = format!("a catalogue row below {items} or -1");
            return Err(refused("item", &expected, batch.item[at].to_string(), at));
        }
        let possible = |dwell: &f64| dwell.is_finite() && *dwell >= 0.0;
        if let Some(at) = batch.dwell.iter().position(|dwell| !possible(dwell)) {
            let came = batch.dwell[at].to_string();
            return Err(refused("dwell", "seconds, 0 or more", came, at));
        }
        Ok(())
    }
}

impl Batch<'_> {
    /// The rows from `start` on, at most so many.
    fn from(&self, start: usize, most: usize) -> Self {
        let rows = self.user.len();
        let (start, end) = (start.min(rows), start.saturating_add(most).min(rows));
        Self {
            user: &self.user[start..end],
            item: &self.item[start..end],
            day: &self.day[start..end],
            click: &self.click[start..end],
            cart: &self.cart[start..end],
            dwell: &self.dwell[start..end],
        }
    }

    /// Whether a row is more than an exposure.
    fn acted(&self, row: usize) -> bool {
        (self.click[row] | self.cart[row]) > 0 || self.dwell[row] > 0.0
    }
}

impl Shard {
    fn add(&mut self, block: &Batch<'_>, rows: &[Row]) {
        let mut codes = [0_u32; AHEAD];
        for rows in rows.chunks(AHEAD) {
            for row in rows {
                self.codes.bring(row.user);
            }
            for (row, code) in rows.iter().zip(&mut codes) {
                *code = self.code(row.user);
                near(&self.sums[*code as usize]);
                self.shown.bring(*code, row.category);
            }
            for (row, &code) in rows.iter().zip(&codes) {
                self.count(block, row, code);
            }
        }
    }

    fn code(&mut self, key: u64) -> u32 {
        let (&mut code, new) = self.codes.entry(key, self.sums.len() as u32);
        if new {
            self.ids.push(part::user(key));
            self.sums.push(Sum::default());
        }
        code
    }

    fn count(&mut self, block: &Batch<'_>, row: &Row, code: u32) {
        let sum = &mut self.sums[code as usize];
        sum.exposures += 1;
        if row.category >= 0 {
            sum.shown_categories += u32::from(self.shown.mark(code, row.category));
        }
        let Some(at) = row.acted() else { return };
        sum.carts += u64::from(block.cart[at]);
        sum.dwell += block.dwell[at];
        if block.click[at] > 0 {
            sum.clicked += 1;
            sum.clicks += u64::from(block.click[at]);
            sum.click_days += u32::from(self.days.mark(code, block.day[at]));
            if row.category >= 0 {
                sum.clicked_categories += u32::from(self.clicked.mark(code, row.category));
            }
        }
    }
}

#[cfg(test)]
mod tests;
