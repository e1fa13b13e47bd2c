//! One thread's share of a block of rows, sorted by the shard of their users, and the sums of the items in it.

use super::table::{mixed, unmixed};
use super::{Batch, ItemSum, SHARDS};

/// What a shard needs of an exposure.
#[derive(Clone, Copy, Default)]
pub struct Row {
    /// Mixed, see `key`.
    pub user: u64,
    /// Negative: the item has none, or is not in the catalogue.
    pub category: i32,
    /// The row's place in the block and 1, or 0 for a row that is an exposure and nothing more: nearly all are, and for
    /// them no other column is read again.
    at: u32,
}

/// What stands for a user: never 0, because the least number is refused.
fn key(user: i64) -> u64 {
    mixed((user ^ i64::MIN) as u64)
}

/// The user that a key stands for.
pub fn user(key: u64) -> i64 {
    unmixed(key) as i64 ^ i64::MIN
}

impl Row {
    /// The row of the block where there are clicks, carts or seconds to read.
    pub fn acted(&self) -> Option<usize> {
        (self.at as usize).checked_sub(1)
    }
}

/// Kept from block to block, so that its room is asked of the system once.
pub struct Part {
    rows: Vec<Row>,
    /// The shard of each row, before they are sorted.
    shards: Vec<u8>,
    /// Where each shard's rows end.
    ends: [usize; SHARDS],
    /// Each catalogue row's category, its sums beside it so that both are one wait; the last stands for all items that
    /// the catalogue does not have.
    items: Vec<(i32, ItemSum)>,
}

impl Part {
    pub fn new(categories: &[i32]) -> Self {
        let items = categories.iter().chain([&-1]);
        Self {
            rows: Vec::new(),
            shards: Vec::new(),
            ends: [0; SHARDS],
            items: items.map(|&one| (one, ItemSum::default())).collect(),
        }
    }

    /// Counts the items of a share that begins at row `first` of its block, and sorts its rows by shard, those of one in
    /// the order they had.
    pub fn sort(&mut self, share: Batch<'_>, first: usize) {
        let mut next = [0_usize; SHARDS];
        // The low bits: the tables take the high ones.
        self.shards.clear();
        self.shards
            .extend(share.user.iter().map(|&user| key(user) as u8));
        for &shard in &self.shards {
            next[shard as usize] += 1;
        }
        let mut end = 0;
        for (next, last) in next.iter_mut().zip(&mut self.ends) {
            (*next, end) = (end, end + *next);
            *last = end;
        }
        self.rows.resize(end, Row::default());
        let unknown = self.items.len() - 1;
        for (row, &shard) in self.shards.iter().enumerate() {
            let known = usize::try_from(share.item[row]).unwrap_or(unknown);
            let (category, sum) = &mut self.items[known];
            sum.exposures += 1;
            let mut at = 0;
            if share.acted(row) {
                at = (first + row + 1) as u32;
                sum.clicked += u64::from(share.click[row] > 0);
                sum.clicks += u64::from(share.click[row]);
            }
            let next = &mut next[shard as usize];
            self.rows[*next] = Row {
                user: key(share.user[row]),
                category: *category,
                at,
            };
            *next += 1;
        }
    }

    /// The rows of a shard.
    pub fn of(&self, shard: usize) -> &[Row] {
        let start = shard.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.rows[start..self.ends[shard]]
    }

    /// The sums of each catalogue row and, after the last, of all items that the catalogue does not have.
    pub fn items(&self) -> impl Iterator<Item = &ItemSum> {
        self.items.iter().map(|(_, sum)| sum)
    }

    pub fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Row>()
            + self.shards.capacity()
            + self.items.capacity() * size_of::<(i32, ItemSum)>()
    }
}
