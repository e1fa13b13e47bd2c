//! The log as it comes: integer columns in batches, borrowed and never copied whole.

use crate::error::Error;

/// Rows that are decoded at once; their scratch arrays stay in the first-level cache.
pub const BLOCK: usize = 1024;

/// One column of one batch, in the width in which the caller has it.
#[derive(Debug, Clone, Copy)]
pub enum Ints<'a> {
    I8(&'a [i8]),
    U8(&'a [u8]),
    I16(&'a [i16]),
    U16(&'a [u16]),
    I32(&'a [i32]),
    U32(&'a [u32]),
    I64(&'a [i64]),
}

macro_rules! by_width {
    ($ints:expr, $values:ident => $body:expr) => {
        match $ints {
            Ints::I8($values) => $body,
            Ints::U8($values) => $body,
            Ints::I16($values) => $body,
            Ints::U16($values) => $body,
            Ints::I32($values) => $body,
            Ints::U32($values) => $body,
            Ints::I64($values) => $body,
        }
    };
}

impl Ints<'_> {
    pub fn len(&self) -> usize {
        by_width!(self, values => values.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies a run of rows into `out`.
    fn read(&self, start: usize, out: &mut [i64]) {
        by_width!(self, values => {
            for (out, &value) in out.iter_mut().zip(&values[start..]) {
                *out = value.into();
            }
        });
    }

    /// Copies some rows of a block into `out`.
    fn gather(&self, start: usize, rows: &[u16], out: &mut [i64]) {
        by_width!(self, values => {
            let values = &values[start..values.len().min(start + BLOCK)];
            for (out, &row) in out.iter_mut().zip(rows) {
                *out = values[row as usize].into();
            }
        });
    }
}

/// Which rows of a column are not null: bit `offset + row`, least significant first, as in Arrow.
#[derive(Debug, Clone, Copy)]
pub struct Valid<'a> {
    pub bits: &'a [u8],
    pub offset: usize,
}

impl Valid<'_> {
    fn get(&self, row: usize) -> bool {
        let bit = self.offset + row;
        self.bits[bit / 8] >> (bit % 8) & 1 == 1
    }
}

/// A column that may have nulls.
#[derive(Debug, Clone, Copy)]
pub struct Nullable<'a> {
    pub values: Ints<'a>,
    pub valid: Option<Valid<'a>>,
}

/// The columns of one batch, equally long.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    pub users: Ints<'a>,
    /// UTC microseconds, or ranks; see `Clock`.
    pub moments: &'a [i64],
    pub behaviors: Ints<'a>,
    pub items: Nullable<'a>,
    /// Looked at where the item is null.
    pub queries: Option<Nullable<'a>>,
}

/// What the values of a column mean: `map[value - base]`, or without a map `value - base`; -1 means nothing.
#[derive(Debug, Clone, Copy)]
pub struct Codes<'a> {
    pub base: i64,
    pub map: Option<&'a [i32]>,
    /// Codes lie below this.
    pub size: usize,
}

impl Codes<'_> {
    /// Turns values into codes; `false` where one is out of range.
    #[inline]
    fn resolve(&self, values: &mut [i64]) -> bool {
        let mut inside = true;
        match self.map {
            Some(map) => {
                for value in values {
                    let code = usize::try_from(value.wrapping_sub(self.base))
                        .ok()
                        .and_then(|place| map.get(place));
                    inside &= code.is_some();
                    *value = code.map_or(OUTSIDE, |&code| i64::from(code));
                }
            }
            None => {
                for value in values {
                    let code = value.wrapping_sub(self.base);
                    let fits = (code as u64) < self.size as u64;
                    inside &= fits;
                    *value = if fits { code } else { OUTSIDE };
                }
            }
        }
        inside
    }

    /// That every code of the map lies from `least` to below `size`.
    fn check(&self, argument: &'static str, least: i32) -> Result<(), Error> {
        let wrong = |&code: &i32| code < least || i64::from(code) >= self.size as i64;
        match self.map.and_then(|map| map.iter().position(wrong)) {
            None => Ok(()),
            Some(position) => Err(Error::Value {
                argument,
                expected: format!("a code from {least} to below {}", self.size),
                came: self.map.map_or(0, |map| map[position]).to_string(),
                position,
            }),
        }
    }
}

/// In the place of a code where a value is out of range.
const OUTSIDE: i64 = i64::MIN;

/// All batches and what their values mean.
pub struct Log<'a> {
    pub batches: Vec<Batch<'a>>,
    pub users: Codes<'a>,
    /// -1: not reliable, left out.
    pub behaviors: Codes<'a>,
    pub items: Codes<'a>,
    pub queries: Codes<'a>,
    /// The entry of an event with neither item nor query.
    pub nothing: u32,
}

/// A stretch of rows of one batch.
#[derive(Debug, Clone, Copy)]
pub struct Stretch {
    pub batch: usize,
    pub start: usize,
    pub end: usize,
    /// Row of `start` in the whole log, for messages.
    pub row: usize,
}

impl Log<'_> {
    pub fn rows(&self) -> usize {
        self.batches.iter().map(|batch| batch.moments.len()).sum()
    }

    /// Judges lengths and maps, so that no later step can read past an end.
    pub fn check(&self) -> Result<(), Error> {
        for batch in &self.batches {
            let rows = batch.moments.len();
            let mut columns = vec![
                ("users", batch.users),
                ("behaviors", batch.behaviors),
                ("items", batch.items.values),
            ];
            columns.extend(batch.queries.map(|queries| ("queries", queries.values)));
            for (right, values) in columns {
                if values.len() != rows {
                    return Err(Error::Length {
                        left: "moments",
                        left_len: rows,
                        right,
                        right_len: values.len(),
                    });
                }
            }
            for column in [Some(batch.items), batch.queries].into_iter().flatten() {
                if let Some(Valid { bits, offset }) = column.valid {
                    if offset
                        .checked_add(rows)
                        .is_none_or(|bit| bit.div_ceil(8) > bits.len())
                    {
                        return Err(Error::Length {
                            left: "moments",
                            left_len: rows,
                            right: "validity bits",
                            right_len: (bits.len() * 8).saturating_sub(offset),
                        });
                    }
                }
            }
        }
        self.users.check("users", 0)?;
        self.behaviors.check("behaviors", -1)?;
        self.items.check("items", -1)?;
        self.queries.check("queries", 0)
    }

    /// Cuts the log into `parts` nearly equal pieces, in order.
    pub fn split(&self, parts: usize) -> Vec<Vec<Stretch>> {
        let rows = self.rows();
        let edge = |part: usize| rows / parts * part + (rows % parts).min(part);
        (0..parts)
            .map(|part| {
                let (from, to) = (edge(part), edge(part + 1));
                let mut first = 0;
                let mut pieces = Vec::new();
                for (batch, columns) in self.batches.iter().enumerate() {
                    let last = first + columns.moments.len();
                    let (start, end) = (from.max(first), to.min(last));
                    if start < end {
                        pieces.push(Stretch {
                            batch,
                            start: start - first,
                            end: end - first,
                            row: start,
                        });
                    }
                    first = last;
                }
                pieces
            })
            .collect()
    }
}

/// The reliable rows of one block: where they stand, who, what; no branch on whether a row is kept, because half are
/// and a wrong guess costs more than the work (12 ms of 5 million records by estimate).
pub struct Block {
    pub kept: usize,
    pub rows: [u16; BLOCK],
    pub users: [i64; BLOCK],
    pub behaviors: [u8; BLOCK],
    wide: [i64; BLOCK],
}

impl Default for Block {
    fn default() -> Self {
        Self {
            kept: 0,
            rows: [0; BLOCK],
            users: [0; BLOCK],
            behaviors: [0; BLOCK],
            wide: [0; BLOCK],
        }
    }
}

impl Block {
    /// Reads who did what in `rows` rows from `start` on; `first` is the log row for messages.
    pub fn read(
        &mut self,
        log: &Log<'_>,
        batch: &Batch<'_>,
        start: usize,
        rows: usize,
        first: usize,
    ) -> Result<(), Error> {
        let wide = &mut self.wide[..rows];
        batch.behaviors.read(start, wide);
        if !log.behaviors.resolve(wide) {
            return Err(outside("behaviors", &log.behaviors, -1, wide, |place| first + place));
        }
        let mut kept = 0;
        for (row, &code) in wide.iter().enumerate() {
            self.rows[kept] = row as u16;
            self.behaviors[kept] = code as u8;
            kept += usize::from(code >= 0);
        }
        self.kept = kept;
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
        expected: format!("from {} to below {}", codes.base, codes.base.saturating_add(size)),
        came: "outside of it or without a meaning".to_owned(),
        position: row(resolved.iter().position(|&code| code < least).unwrap_or(0)),
    }
}
