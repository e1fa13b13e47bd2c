//! Which items nobody may get: one bit an item.

use super::{check, Part, LANES};
use crate::error::Error;

/// Rows that are read as one run.
const RUN: usize = 64;

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

/// The items that may appear.
pub enum Open {
    Every,
    /// Of each part, 32 places (a panel) a word: where few may appear, most panels are not even multiplied.
    Places(Vec<Vec<u32>>),
    /// 64 rows a word, asked only for items that could enter an answer. Where most may appear no panel can be left out,
    /// and to look up the place of each of a million allowed rows took half as long as the search.
    Rows(Vec<u64>),
}

impl Open {
    /// Make the bits; refuse rows that do not exist.
    pub fn new(parts: &[Part<'_>], filter: Filter<'_>) -> Result<Self, Error> {
        let rows = parts
            .last()
            .map_or(0, |part| part.first + part.items.rows());
        check::item_rows("deny", filter.deny, rows)?;
        check::item_rows("removed", filter.removed, rows)?;
        let closed = filter.deny.iter().chain(filter.removed);
        if let Some(allow) = filter.allow.filter(|allow| 2 * allow.len() > rows) {
            let mut open = vec![0; rows.div_ceil(RUN)];
            for run in allow.chunks(RUN) {
                // Each run is judged while it is near: eight megabytes would be read twice.
                if check::item_rows("allow", run, rows).is_err() {
                    check::item_rows("allow", allow, rows)?;
                }
                allow_run(run, &mut open);
            }
            closed.for_each(|&row| open[row as usize / RUN] &= !(1 << (row as usize % RUN)));
            return Ok(Self::Rows(open));
        }
        if filter.allow.is_none() && filter.deny.is_empty() && filter.removed.is_empty() {
            return Ok(Self::Every);
        }
        check::item_rows("allow", filter.allow.unwrap_or(&[]), rows)?;
        let start = if filter.allow.is_some() { 0 } else { u32::MAX };
        let mut open: Vec<Vec<u32>> = parts
            .iter()
            .map(|part| vec![start; part.panels()])
            .collect();
        let mut set = |row: i64, allowed: bool| {
            let row = row as usize;
            let part = parts.partition_point(|part| part.first <= row) - 1;
            let place = parts[part].place(row - parts[part].first);
            let (word, bit) = (&mut open[part][place / LANES], 1 << (place % LANES));
            *word = if allowed { *word | bit } else { *word & !bit };
        };
        filter
            .allow
            .unwrap_or(&[])
            .iter()
            .for_each(|&row| set(row, true));
        closed.for_each(|&row| set(row, false));
        Ok(Self::Places(open))
    }

    /// The bits of a part's panels, where panels may have none.
    pub fn places(&self, part: usize) -> Option<&[u32]> {
        match self {
            Self::Places(open) => Some(&open[part]),
            _ => None,
        }
    }

    /// Whether a row may appear, as far as `places` has not said so.
    pub fn has(&self, row: usize) -> bool {
        match self {
            Self::Rows(open) => open[row / RUN] >> (row % RUN) & 1 == 1,
            _ => true,
        }
    }
}

/// Open at most `RUN` rows. An allow list is long where it holds nearly everything, and then its rows follow each other.
fn allow_run(run: &[i64], open: &mut [u64]) {
    let first = run[0];
    let strays = run
        .iter()
        .zip(first..)
        .fold(0, |strays, (&row, next)| strays | (row ^ next));
    if strays == 0 && run.len() == RUN {
        let (word, shift) = (first as usize / RUN, first as usize % RUN);
        open[word] |= u64::MAX << shift;
        if shift > 0 {
            open[word + 1] |= u64::MAX >> (RUN - shift);
        }
        return;
    }
    for &row in run {
        open[row as usize / RUN] |= 1 << (row as usize % RUN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Runs with and without gaps, in order or not, open what a loop over the rows opens.
        #[test]
        fn a_run_opens_its_rows_and_no_others(
            start in 0i64..300, gaps in prop::collection::vec(prop_oneof![20 => Just(1i64), 1 => 0i64..4], 63),
            length in 1usize..65, turned in any::<bool>(),
        ) {
            let mut run = vec![start];
            run.extend(gaps.iter().scan(start, |row, gap| { *row += gap; Some(*row) }));
            run.truncate(length);
            if turned {
                run.reverse();
            }
            let mut open = vec![0u64; 10];
            allow_run(&run, &mut open);
            for row in 0..640 {
                prop_assert_eq!(open[row / 64] >> (row % 64) & 1 == 1, run.contains(&(row as i64)), "row {}", row);
            }
        }
    }
}
