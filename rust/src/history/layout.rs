//! Steps 1 and 2 of the compression: which contexts and which entries share a line.

use crate::calendar::Bucket;
use crate::error::Error;

/// How items are grouped; see section 3 of the design. The order breaks ties between equally short ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Contexts with equal entry sets share a line.
    Sequence,
    /// Entries with equal context sets share a line; each entry is written once.
    Item,
    /// `Sequence` inside one bucket.
    SequenceByBucket,
    /// `Item` inside one bucket.
    ItemByBucket,
}

impl Layout {
    pub const ALL: [Self; 4] = [
        Self::Sequence,
        Self::Item,
        Self::SequenceByBucket,
        Self::ItemByBucket,
    ];

    /// The layout at a row of `ALL`.
    pub fn from_row(row: usize) -> Result<Self, Error> {
        Self::ALL.get(row).copied().ok_or_else(|| Error::Value {
            argument: "layout",
            expected: format!("from 0 to {}", Self::ALL.len() - 1),
            came: row.to_string(),
            position: 0,
        })
    }
}

/// One written thing: an item, a query, `-`, or a category with its count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Written {
    /// Categories (false) stand before entries (true): they sum up what is older.
    pub is_entry: bool,
    /// The user's entry in order of first appearance, or the category's row among all entries.
    pub index: u32,
    /// The count written after it; 0 writes none.
    pub shown: u64,
}

/// The history as a set of triples, in the order of contexts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Triple {
    pub bucket: Bucket,
    pub behavior: u32,
    pub written: Written,
}

/// One line before it is written: contexts oldest first, entries in their order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    pub contexts: Vec<(Bucket, u32)>,
    pub written: Vec<Written>,
}

/// Groups triples into lines, oldest first: by the oldest context, then by the next ones.
pub fn lines(triples: &[Triple], layout: Layout) -> Vec<Line> {
    // What may share a line: everything (closed and open parts apart), or one bucket.
    let scope = |bucket: Bucket| match layout {
        Layout::Sequence | Layout::Item => (bucket.open, None),
        Layout::SequenceByBucket | Layout::ItemByBucket => (bucket.open, Some(bucket)),
    };
    let mut lines = match layout {
        Layout::Sequence | Layout::SequenceByBucket => {
            let pairs = triples
                .iter()
                .map(|triple| ((triple.bucket, triple.behavior), triple.written))
                .collect();
            group(pairs, |context: &(Bucket, u32)| scope(context.0))
                .into_iter()
                .map(|(contexts, written)| Line { contexts, written })
                .collect::<Vec<_>>()
        }
        Layout::Item | Layout::ItemByBucket => {
            let pairs = triples
                .iter()
                .map(|triple| {
                    (
                        (scope(triple.bucket), triple.written),
                        (triple.bucket, triple.behavior),
                    )
                })
                .collect();
            group(pairs, |key: &(_, Written)| key.0)
                .into_iter()
                .map(|(keys, contexts)| Line {
                    contexts,
                    written: keys.into_iter().map(|key| key.1).collect(),
                })
                .collect()
        }
    };
    lines.sort_unstable();
    lines
}

/// Joins the keys of one scope that have the same set of values.
fn group<K: Ord + Copy, V: Ord + Copy, S: Ord>(
    mut pairs: Vec<(K, V)>,
    scope: impl Fn(&K) -> S,
) -> Vec<(Vec<K>, Vec<V>)> {
    pairs.sort_unstable();
    let values: Vec<V> = pairs.iter().map(|pair| pair.1).collect();
    let mut sets: Vec<(K, &[V])> = Vec::new();
    let mut start = 0;
    for chunk in pairs.chunk_by(|left, right| left.0 == right.0) {
        sets.push((chunk[0].0, &values[start..start + chunk.len()]));
        start += chunk.len();
    }
    sets.sort_by(|left, right| {
        (scope(&left.0), left.1, left.0).cmp(&(scope(&right.0), right.1, right.0))
    });
    sets.chunk_by(|left, right| scope(&left.0) == scope(&right.0) && left.1 == right.1)
        .map(|same| (same.iter().map(|set| set.0).collect(), same[0].1.to_vec()))
        .collect()
}
