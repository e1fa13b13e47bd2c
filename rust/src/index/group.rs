//! Users that are scanned together, and what they ask: each distinct row is multiplied once, however many share it.

use std::hash::{BuildHasher, Hasher};
use std::ops::Range;

use ahash::{AHashMap, AHashSet, RandomState};

use super::codes::{norm, Rows, Size};
use super::kernels::Kernel;
use super::{Fuse, Matrix, Query};

/// One list that is asked for: a user's row and some of the tags.
pub struct Question {
    pub user: usize,
    /// Rows of the tags; none: the list of the user's own row.
    pub tags: Range<usize>,
    /// The user-only list beside a fused one, which tells what the tag side alone found.
    pub witness: bool,
}

/// What is left of a question once its rows stand in a table.
#[derive(Clone)]
pub struct Asked {
    /// Place of the user's row in the table.
    pub user: usize,
    /// Places of its tags, in `slots`.
    pub tags: Range<usize>,
    /// What one step of the user's and of the tags' sums is worth.
    pub weights: [f32; 2],
    /// How far an estimate can be from the score, for each unit of an item's rest and of its norm.
    pub slack: [f32; 2],
}

pub struct Group {
    pub questions: Vec<Question>,
    pub slots: Vec<u32>,
    /// Their distinct tag rows, then their users.
    tag_rows: Vec<usize>,
    users: Range<usize>,
    first_tag: usize,
}

/// Rows whose products with a panel are kept: 256 KB, so that they stay in the second-level cache.
const ROWS: usize = 2048;

/// Cut the users into groups. The more users share a pass over the items, the more tags they share.
pub fn cut(query: &Query<'_>, first: &[usize]) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut tags: AHashSet<usize> = AHashSet::new();
    // Each list keeps some kilobytes of candidates and answers.
    let lists = |users: Range<usize>| match query.fuse {
        Fuse::Lists => (query.offsets[users.end] - query.offsets[users.start]) as usize,
        _ => users.len(),
    };
    for user in 0..query.users.rows() {
        let mine = &first[query.offsets[user] as usize..query.offsets[user + 1] as usize];
        tags.extend(mine);
        match groups.last_mut() {
            Some(group)
                if group.len() + tags.len() < ROWS && lists(group.start..user + 1) <= ROWS =>
            {
                group.end = user + 1;
            }
            _ => {
                tags = mine.iter().copied().collect();
                groups.push(user..user + 1);
            }
        }
    }
    groups
}

/// For each row the first row with the same bits. A collision of hashes only costs a product that was done before.
pub fn first_equal(tags: Matrix<'_>) -> Vec<usize> {
    let state = RandomState::new();
    let mut seen: AHashMap<u64, usize> = AHashMap::new();
    let bits = |row: usize| tags.row(row).iter().map(|value| value.to_bits());
    let first = (0..tags.rows()).map(|row| {
        let mut hasher = state.build_hasher();
        bits(row).for_each(|value| hasher.write_u32(value));
        let first = *seen.entry(hasher.finish()).or_insert(row);
        if bits(first).eq(bits(row)) {
            first
        } else {
            row
        }
    });
    first.collect()
}

impl Group {
    pub fn new(users: Range<usize>, query: &Query<'_>, first: &[usize]) -> Self {
        let tags = |user: usize| query.offsets[user] as usize..query.offsets[user + 1] as usize;
        let all = tags(users.start).start..tags(users.end - 1).end;
        let mut questions = Vec::new();
        for user in users.clone() {
            let ask = |tags, witness| Question {
                user,
                tags,
                witness,
            };
            let mine = tags(user);
            match query.fuse {
                Fuse::Lists if !mine.is_empty() => {
                    questions.extend(mine.clone().map(|tag| ask(tag..tag + 1, false)));
                }
                _ => questions.push(ask(mine.clone(), false)),
            }
            if !mine.is_empty() {
                questions.push(ask(0..0, true));
            }
        }
        let mine = &first[all.clone()];
        let mut rows = mine.to_vec();
        rows.sort_unstable();
        rows.dedup();
        let slots = mine
            .iter()
            .map(|row| rows.partition_point(|other| other < row) as u32);
        Self {
            questions,
            slots: slots.collect(),
            tag_rows: rows,
            users,
            first_tag: all.start,
        }
    }

    /// How many rows the table of products has.
    pub fn rows(&self) -> usize {
        self.tag_rows.len() + self.users.len()
    }

    fn vectors<'a>(&self, query: &Query<'a>) -> [Vec<&'a [f32]>; 2] {
        let tags = self.tag_rows.iter().map(|&row| query.tags.row(row));
        let users = self.users.clone().map(|row| query.users.row(row));
        [tags.collect(), users.collect()]
    }

    /// The rows as bytes.
    pub fn coded(&self, query: &Query<'_>, kernel: &Kernel) -> Rows {
        let [tags, users] = self.vectors(query);
        let mut rows = Rows::default();
        // A user's tags are compared before they are scaled, so all tags share a scale; users need not.
        rows.push(&tags, kernel.limit, true);
        rows.push(&users, kernel.limit, false);
        rows
    }

    /// The rows as floats, and their sizes: nothing is left out of them.
    pub fn plain(&self, query: &Query<'_>) -> (Vec<f32>, Vec<Size>) {
        let [tags, users] = self.vectors(query);
        let rows = [tags, users].concat();
        let size = |row: &&[f32]| Size {
            scale: 1.0,
            norm: norm(row),
            ..Size::default()
        };
        let sizes = rows.iter().map(size).collect();
        (rows.concat(), sizes)
    }

    /// Questions as places, weights and bounds, for rows of these sizes.
    pub fn asked(&self, query: &Query<'_>, sizes: &[Size]) -> Vec<Asked> {
        // The last figure covers weights that underflow: what is lost is below 1e-42 for each unit of norm.
        let rounding = rounding(query.users.dim);
        let asked = self.questions.iter().map(|question| {
            let user = self.tag_rows.len() + question.user - self.users.start;
            let place = |row: usize| row - self.first_tag;
            let tags = if question.tags.is_empty() {
                0..0
            } else {
                place(question.tags.start)..place(question.tags.end)
            };
            let own = &sizes[user];
            let mut most = Size::default();
            for &slot in &self.slots[tags.clone()] {
                let size = &sizes[slot as usize];
                most.scale = size.scale;
                most.coded = most.coded.max(size.coded);
                most.rest = most.rest.max(size.rest);
                most.norm = most.norm.max(size.norm);
            }
            let beta = if tags.is_empty() { 1.0 } else { query.beta };
            let (of_user, of_tags) = (f64::from(beta), f64::from(1.0 - beta));
            let mix = |user: f64, tags: f64| of_user * user + of_tags * tags;
            let coded = mix(own.coded, most.coded);
            let norm = mix(own.rest, most.rest) + rounding * (mix(own.norm, most.norm) + coded);
            Asked {
                user,
                tags,
                weights: [beta * own.scale, (1.0 - beta) * most.scale],
                slack: [up(coded), up(norm + 1e-37)],
            }
        });
        asked.collect()
    }
}

/// How far a sum of `dim` products of floats can stray for each unit of both norms: by as many roundings of half a unit;
/// twice that covers the few operations around them.
pub fn rounding(dim: usize) -> f64 {
    (dim + 8) as f64 * f64::from(f32::EPSILON)
}

/// The next f32 that is safely above.
pub fn up(value: f64) -> f32 {
    (value * (1.0 + 1e-6)) as f32
}
