//! Which items nobody may get: one bit an item, 32 items a word, asked only for items that could enter an answer.

use super::{check, Part, LANES};
use crate::error::Error;

/// The bits of each part's panels (of places, where a part has cells), or nothing where every item may appear.
pub type Open = Option<Vec<u32>>;

/// What a search leaves out for all of its users.
#[derive(Clone, Copy, Default)]
pub struct Filter<'a> {
    /// Only these item rows may appear.
    pub allow: Option<&'a [i64]>,
    /// These may not.
    pub deny: &'a [i64],
    /// Rows whose items were taken out of the index.
    pub removed: &'a [i64],
}

/// Make the bits of every part; refuse rows that do not exist.
pub fn open(parts: &[Part<'_>], filter: Filter<'_>) -> Result<Vec<Open>, Error> {
    let rows = parts
        .last()
        .map_or(0, |part| part.first + part.items.rows());
    check::item_rows("allow", filter.allow.unwrap_or(&[]), rows)?;
    check::item_rows("deny", filter.deny, rows)?;
    check::item_rows("removed", filter.removed, rows)?;
    if filter.allow.is_none() && filter.deny.is_empty() && filter.removed.is_empty() {
        return Ok(parts.iter().map(|_| None).collect());
    }
    let start = if filter.allow.is_some() { 0 } else { u32::MAX };
    let mut open: Vec<Vec<u32>> = parts
        .iter()
        .map(|part| vec![start; part.panels()])
        .collect();
    let mut set = |rows: &[i64], allowed: bool| {
        for &row in rows {
            let row = row as usize;
            let part = parts.partition_point(|part| part.first <= row) - 1;
            let row = parts[part].place(row - parts[part].first);
            let (word, bit) = (&mut open[part][row / LANES], 1 << (row % LANES));
            *word = if allowed { *word | bit } else { *word & !bit };
        }
    };
    set(filter.allow.unwrap_or(&[]), true);
    set(filter.deny, false);
    set(filter.removed, false);
    Ok(open.into_iter().map(Some).collect())
}
