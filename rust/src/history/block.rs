//! Some rows of a log at a time, decoded into arrays that stay in the first-level cache.

use super::columns::{Batch, Codes, Ints, Log, BLOCK};
use crate::error::Error;

/// The reliable rows of one block: where they stand, who, what; no branch on whether a row is kept, because half are
/// and a wrong guess costs more than the work (12 ms of 5 million records by estimate).
pub struct Block {
    /// The code of each value of a column of signed bytes, which is what dictionaries of behaviors mostly are, as an
    /// unsigned one; or `LEFT_OUT` or `UNKNOWN`.
    codes: [u8; 256],
    pub kept: usize,
    pub rows: [u16; BLOCK],
    pub users: [i64; BLOCK],
    pub behaviors: [u8; BLOCK],
    wide: [i64; BLOCK],
}

const LEFT_OUT: u8 = u8::MAX;
const UNKNOWN: u8 = u8::MAX - 1;

impl Block {
    pub fn new(log: &Log<'_>) -> Self {
        let code = |value: i64| {
            let mut code = [value];
            match log.behaviors.resolve(&mut code) {
                true if code[0] >= 0 => code[0] as u8,
                true => LEFT_OUT,
                false => UNKNOWN,
            }
        };
        Self {
            codes: std::array::from_fn(|value| code(i64::from(value as u8 as i8))),
            kept: 0,
            rows: [0; BLOCK],
            users: [0; BLOCK],
            behaviors: [0; BLOCK],
            wide: [0; BLOCK],
        }
    }

    /// Notes the reliable rows; `false` where a behavior is out of range.
    #[inline]
    fn compact(&mut self, codes: impl Iterator<Item = u8>) -> bool {
        let (mut kept, mut known) = (0, true);
        for (row, code) in codes.enumerate() {
            self.rows[kept] = row as u16;
            self.behaviors[kept] = code;
            known &= code != UNKNOWN;
            kept += usize::from(code < UNKNOWN);
        }
        self.kept = kept;
        known
    }

    /// Counts each user's reliable rows without noting them, where the columns are of the usual kinds. `false`: nothing
    /// was counted, or something is out of range, which `read` tells.
    pub fn count(
        &self,
        log: &Log<'_>,
        batch: &Batch<'_>,
        start: usize,
        rows: usize,
        counts: &mut [u32],
    ) -> bool {
        let (Ints::I8(behaviors), None) = (batch.behaviors, log.users.map) else {
            return false;
        };
        let codes = behaviors[start..start + rows].iter();
        let codes = codes.map(|&value| self.codes[value as u8 as usize]);
        let mut known = true;
        let kept = codes.map(|code| {
            known &= code != UNKNOWN;
            code < UNKNOWN
        });
        batch.users.tally(start, log.users.base, kept, counts) && known
    }

    /// Reads who did what in `rows` rows from `start` on; `first` is the log row for messages.
    pub fn read(
        &mut self,
        log: &Log<'_>,
        batch: &Batch<'_>,
        start: usize,
        rows: usize,
        first: usize,
    ) -> Result<(), Error> {
        let codes = self.codes;
        let known = match batch.behaviors {
            Ints::I8(values) => {
                let values = &values[start..start + rows];
                self.compact(values.iter().map(|&value| codes[value as u8 as usize]))
            }
            wider => {
                let mut wide = [0; BLOCK];
                wider.read(start, &mut wide[..rows]);
                let known = log.behaviors.resolve(&mut wide[..rows]);
                // -1 becomes `LEFT_OUT`, as a byte.
                self.compact(wide[..rows].iter().map(|&code| code as u8)) && known
            }
        };
        if !known {
            let wide = &mut self.wide[..rows];
            batch.behaviors.read(start, wide);
            log.behaviors.resolve(wide);
            return Err(outside("behaviors", &log.behaviors, -1, wide, |place| {
                first + place
            }));
        }
        let kept = self.kept;
        let users = &mut self.users[..kept];
        batch.users.gather(start, &self.rows[..kept], users);
        if !log.users.resolve(users) {
            let rows = &self.rows;
            return Err(outside("users", &log.users, 0, users, |place| {
                first + rows[place] as usize
            }));
        }
        Ok(())
    }

    /// Reads the entry of each kept row.
    pub fn entries(
        &mut self,
        log: &Log<'_>,
        batch: &Batch<'_>,
        start: usize,
        first: usize,
    ) -> Result<(), Error> {
        let rows = &self.rows[..self.kept];
        let wide = &mut self.wide[..self.kept];
        batch.items.values.gather(start, rows, wide);
        log.items.resolve(wide);
        if let Some(valid) = batch.items.valid {
            for (value, &row) in wide.iter_mut().zip(rows) {
                if !valid.get(start + row as usize) {
                    *value = query(log, batch, start + row as usize);
                }
            }
        }
        // One look at all: an item that means nothing has a negative code.
        if wide.iter().any(|&entry| entry < 0) {
            return Err(outside("items", &log.items, 0, wide, |place| {
                first + rows[place] as usize
            }));
        }
        Ok(())
    }

    /// The entry of a kept row, after `entries`.
    #[inline]
    pub fn entry(&self, place: usize) -> u32 {
        self.wide[place] as u32
    }
}

/// The entry of an event without an item.
fn query(log: &Log<'_>, batch: &Batch<'_>, row: usize) -> i64 {
    let mut value = [0];
    match batch.queries {
        Some(queries) if queries.valid.is_none_or(|valid| valid.get(row)) => {
            queries.values.read(row, &mut value);
            log.queries.resolve(&mut value);
            value[0]
        }
        _ => i64::from(log.nothing),
    }
}

#[cold]
fn outside(
    argument: &'static str,
    codes: &Codes<'_>,
    least: i64,
    resolved: &[i64],
    row: impl Fn(usize) -> usize,
) -> Error {
    let size = codes.map.map_or(codes.size, <[i32]>::len) as i64;
    Error::Value {
        argument,
        expected: format!(
            "from {} to below {}",
            codes.base,
            codes.base.saturating_add(size)
        ),
        came: "outside of it or without a meaning".to_owned(),
        position: row(resolved.iter().position(|&code| code < least).unwrap_or(0)),
    }
}
