//! Evaluation: what a log of exposures adds up to, user by user and item by item, in one pass (paper section 4.2).
//!
//! A log is too long to hold, so it comes in batches; what is held grows with users and with distinct pairs of a user
//! and a category, not with rows. Users are spread over shards by a hash of their id, and a thread works on a shard
//! alone: nothing is shared, and the sums of a user are added in the order of the rows, whatever the number of threads.

mod marks;
mod table;

use rayon::prelude::*;

use crate::error::Error;
use crate::near::near;
use marks::Marks;
use table::{mixed, Table};

/// How many users may be counted by one shard: their number and a category are one key.
const MOST_USERS: usize = 1 << 31;
/// Rows whose addresses are asked for before the first of them is touched: a row alone waits for memory four times.
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
    /// The category of each item row; negative: it has none.
    categories: Vec<i32>,
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
    items: Vec<ItemSum>,
    unknown: ItemSum,
}

impl Totals {
    /// Starts at nothing; `shards` is how many threads can count at once.
    pub fn new(categories: Vec<i32>, shards: usize) -> Self {
        let items = categories.len();
        let shard = || Shard {
            items: vec![ItemSum::default(); items],
            ..Shard::default()
        };
        Self {
            categories,
            shards: std::iter::repeat_with(shard).take(shards.max(1)).collect(),
        }
    }

    /// Adds a batch, or nothing of it when it is refused.
    pub fn add(&mut self, batch: Batch<'_>) -> Result<(), Error> {
        self.check(&batch)?;
        let (categories, shards) = (&self.categories, self.shards.len());
        self.shards
            .par_iter_mut()
            .enumerate()
            .for_each(|(own, shard)| shard.add(&batch, categories, (own, shards)));
        Ok(())
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
        let mut items = vec![ItemSum::default(); self.categories.len() + 1];
        for shard in &self.shards {
            let own = shard.items.iter().chain([&shard.unknown]);
            for (sum, part) in items.iter_mut().zip(own) {
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
                + shard.items.capacity() * size_of::<ItemSum>()
        };
        self.shards.iter().map(shard).sum::<usize>() + self.categories.capacity() * size_of::<i32>()
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
        let items = self.categories.len() as i64;
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

impl Shard {
    fn add(&mut self, batch: &Batch<'_>, categories: &[i32], (own, shards): (usize, usize)) {
        let mut mine = Vec::with_capacity(AHEAD);
        for start in (0..batch.user.len()).step_by(AHEAD) {
            let end = batch.user.len().min(start + AHEAD);
            mine.clear();
            for row in start..end {
                let hash = mixed(batch.user[row] as u64);
                // The low bits: the table takes the high ones. A product and a shift cost less than a remainder.
                if ((hash & 0xFFFF) as usize * shards) >> 16 == own {
                    mine.push((row, 0));
                    self.codes.bring(batch.user[row] as u64);
                    if let Some(item) = self.items.get(batch.item[row] as usize) {
                        near(item);
                    }
                }
            }
            for (row, code) in &mut mine {
                *code = self.code(batch.user[*row]);
                near(&self.sums[*code as usize]);
                self.shown
                    .bring(*code, category(batch.item[*row], categories));
            }
            for &(row, code) in &mine {
                self.count(batch, row, code, category(batch.item[row], categories));
            }
        }
    }

    fn code(&mut self, id: i64) -> u32 {
        let (&mut code, new) = self.codes.entry(id as u64, self.sums.len() as u32);
        if new {
            self.ids.push(id);
            self.sums.push(Sum::default());
        }
        code
    }

    fn count(&mut self, batch: &Batch<'_>, row: usize, code: u32, category: i32) {
        let clicks = u64::from(batch.click[row]);
        let clicked = clicks > 0;
        let sum = &mut self.sums[code as usize];
        sum.exposures += 1;
        sum.clicked += u64::from(clicked);
        sum.clicks += clicks;
        sum.carts += u64::from(batch.cart[row]);
        sum.dwell += batch.dwell[row];
        if category >= 0 {
            sum.shown_categories += u32::from(self.shown.mark(code, category));
            if clicked {
                sum.clicked_categories += u32::from(self.clicked.mark(code, category));
            }
        }
        if clicked {
            sum.click_days += u32::from(self.days.mark(code, batch.day[row]));
        }
        let item = usize::try_from(batch.item[row]).ok();
        let sum = match item {
            Some(item) => &mut self.items[item],
            None => &mut self.unknown,
        };
        sum.exposures += 1;
        sum.clicked += u64::from(clicked);
        sum.clicks += clicks;
    }
}

fn category(item: i32, categories: &[i32]) -> i32 {
    usize::try_from(item).map_or(-1, |item| categories[item])
}

#[cfg(test)]
mod tests;
