//! The log as it comes: integer columns in batches, borrowed and never copied whole.
//!
//! A column that is absent stays absent: filling one with nulls was 15 % of a call.

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
    #[allow(clippy::useless_conversion)]
    pub(super) fn read(&self, start: usize, out: &mut [i64]) {
        by_width!(self, values => {
            for (out, &value) in out.iter_mut().zip(&values[start..]) {
                *out = value.into();
            }
        });
    }

    /// Counts how often each number above the base comes in the rows that are kept; `false` where one has no place.
    #[allow(clippy::useless_conversion)]
    pub(super) fn tally(
        &self,
        start: usize,
        base: i64,
        kept: impl Iterator<Item = bool>,
        counts: &mut [u32],
    ) -> bool {
        let mut inside = true;
        by_width!(self, values => {
            for (&value, kept) in values[start..].iter().zip(kept) {
                let number = i64::from(value).wrapping_sub(base) as usize;
                match counts.get_mut(number) {
                    Some(count) => *count += u32::from(kept),
                    None => inside &= !kept,
                }
            }
        });
        inside
    }

    /// Copies some rows of a block into `out`.
    #[allow(clippy::useless_conversion)]
    pub(super) fn gather(&self, start: usize, rows: &[u16], out: &mut [i64]) {
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
    pub(super) fn get(&self, row: usize) -> bool {
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
    pub(super) fn resolve(&self, values: &mut [i64]) -> bool {
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
