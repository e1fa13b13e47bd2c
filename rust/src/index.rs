//! Fused exact search: the best items of every user by `beta * col + (1 - beta) * max over tags of sem`, in one pass.
//!
//! `codes` makes bytes of the items, once, and `cells` puts items together that point the same way. `group` gathers the
//! distinct rows of users and tags that share a pass; `reach` bounds what they give in each block of items, and `wave` goes
//! through the blocks in that order. A `kernels` function multiplies what is left with a panel of `LANES` items; `scan`
//! folds the products to an estimate, leaves out by a proven bound what cannot enter, and `exact` scores the rest. So an answer is that of plain
//! float32 arithmetic, bit for bit, whatever the processor, the number of threads and the users beside it.

mod best;
mod cells;
mod check;
mod codes;
mod estimate;
mod exact;
mod filter;
mod group;
#[allow(unsafe_code)]
mod kernels;
mod reach;
mod scan;
mod sum;
#[cfg(test)]
mod tests;
mod wave;

use std::ops::Range;

use crate::error::Error;
use cells::{Cells, PANELS};
pub use codes::Codes;
pub use exact::scores;
pub use filter::Filter;
use filter::Open;
use group::first_equal;
pub use kernels::{available, Kernel};
use wave::Setting;

/// Items a panel: two registers of AVX-512, four of AVX2.
pub const LANES: usize = 32;

/// Row-major vectors: `values.len() / dim` rows.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    pub values: &'a [f32],
    pub dim: usize,
}

impl<'a> Matrix<'a> {
    pub fn rows(&self) -> usize {
        self.values.len() / self.dim
    }

    fn row(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.dim..(row + 1) * self.dim]
    }
}

/// Some of an index's items, in row order. Without codes they are scanned as floats.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    pub items: Matrix<'a>,
    pub codes: Option<&'a Codes>,
    /// Row of the first item in the whole index.
    pub first: usize,
}

impl<'a> Part<'a> {
    fn cells(&self) -> Option<&'a Cells> {
        self.codes.and_then(|codes| codes.cells.as_ref())
    }

    /// The row of each place, where that is not the place itself.
    fn order(&self) -> Option<&'a [u32]> {
        self.cells().map(|cells| &cells.order[..])
    }

    fn row(&self, place: usize) -> usize {
        self.order().map_or(place, |order| order[place] as usize)
    }

    fn place(&self, row: usize) -> usize {
        self.codes.map_or(row, |codes| codes.place(row))
    }

    fn panels(&self) -> usize {
        self.order()
            .map_or(self.items.rows(), <[u32]>::len)
            .div_ceil(LANES)
    }

    fn blocks(&self) -> usize {
        self.cells()
            .map_or(self.panels().div_ceil(PANELS), |cells| cells.blocks.len())
    }

    /// The panels of a block, and how many items stand in them.
    fn block(&self, number: usize) -> (Range<usize>, usize) {
        if let Some(cells) = self.cells() {
            let block = &cells.blocks[number];
            return (block.panels.clone(), block.count);
        }
        let start = number * PANELS;
        let end = (start + PANELS).min(self.panels());
        (
            start..end,
            self.items.rows().min(end * LANES) - start * LANES,
        )
    }
}

/// Item rows per user: user `u` owns `values[offsets[u]..offsets[u + 1]]`.
#[derive(Clone, Copy)]
pub struct Ragged<'a> {
    pub values: &'a [i64],
    pub offsets: &'a [i64],
}

/// At most `limit` items of one category in a result.
#[derive(Clone, Copy)]
pub struct Caps<'a> {
    pub categories: &'a [i32],
    pub limit: usize,
}

/// What becomes of a user's tags.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fuse {
    /// The best tag of each item counts: one list a user.
    Max,
    /// All tags of a user count alike: one list by their mean.
    Sum,
    /// A list for each tag.
    Lists,
}

/// One batch of questions. User `u` owns the tag rows `offsets[u]..offsets[u + 1]`.
#[derive(Clone, Copy)]
pub struct Query<'a> {
    pub users: Matrix<'a>,
    pub tags: Matrix<'a>,
    pub offsets: &'a [i64],
    pub beta: f32,
    pub k: usize,
    pub fuse: Fuse,
    pub exclude: Option<Ragged<'a>>,
    pub filter: Filter<'a>,
    pub caps: Option<Caps<'a>>,
    /// The name of a kernel, `bytes` or `floats` by the fastest one, or both as in `avx2 floats`.
    pub kernel: &'a str,
}

/// One answer. Without tags `tag` is -1, `sem` is NaN and `score` is `col`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    pub item: usize,
    pub score: f32,
    pub col: f32,
    pub sem: f32,
    pub tag: i32,
    /// The user's own row, asked for as many items under the same filters, does not bring this one.
    pub tag_side_alone: bool,
}

/// The answers of a batch as columns, users in order.
#[derive(Default)]
pub struct Columns {
    pub user: Vec<i32>,
    pub item: Vec<i64>,
    pub score: Vec<f32>,
    pub col: Vec<f32>,
    pub sem: Vec<f32>,
    pub tag: Vec<i32>,
    pub tag_side_alone: Vec<bool>,
}

impl From<Vec<(usize, Vec<Hit>)>> for Columns {
    fn from(answers: Vec<(usize, Vec<Hit>)>) -> Self {
        let mut columns = Self::default();
        for (user, hits) in answers {
            for hit in hits {
                columns.user.push(user as i32);
                columns.item.push(hit.item as i64);
                columns.score.push(hit.score);
                columns.col.push(hit.col);
                columns.sem.push(hit.sem);
                columns.tag.push(hit.tag);
                columns.tag_side_alone.push(hit.tag_side_alone);
            }
        }
        columns
    }
}

/// For each list that is asked for, its user and the best `k` items that no filter removes, best first, ties by the lower
/// row.
///
/// Users and tags are checked here; items were checked once when the index was made.
pub fn search(parts: &[Part<'_>], query: &Query<'_>) -> Result<Vec<(usize, Vec<Hit>)>, Error> {
    let (users, tags) = (query.users, query.tags);
    check::offsets("offsets", query.offsets, users.rows(), tags.rows())?;
    users.check("users")?;
    tags.check("tags")?;
    if query.fuse == Fuse::Sum {
        return sum::search(parts, query);
    }
    fused(parts, query)
}

fn fused(parts: &[Part<'_>], query: &Query<'_>) -> Result<Vec<(usize, Vec<Hit>)>, Error> {
    let rows = parts
        .last()
        .map_or(0, |part| part.first + part.items.rows());
    let users = query.users.rows();
    if let Some(caps) = query.caps {
        if caps.categories.len() != rows {
            return Err(Error::Length {
                left: "categories",
                left_len: caps.categories.len(),
                right: "vectors",
                right_len: rows,
            });
        }
    }
    let excluded = check::excluded(query.exclude, users, rows)?;
    let open = Open::new(parts, query.filter)?;
    let (kernel, coded) = choose(query.kernel)?;
    // A list of k answers is the memory of a question, so a k beyond the catalogue must not reach it.
    let query = &Query {
        k: query.k.min(rows).max(1),
        ..*query
    };
    let setting = Setting {
        parts,
        query,
        first: first_equal(query.tags),
        excluded,
        open,
        kernel,
        coded,
    };
    let mut answers = Vec::with_capacity(users);
    // What a group prepares takes some megabytes, so groups come in waves.
    for users in group::cut(query, &setting.first).chunks(2 * rayon::current_num_threads()) {
        setting.answer(users, &mut answers);
    }
    Ok(answers)
}

fn choose(name: &str) -> Result<(Kernel, bool), Error> {
    let mut words: Vec<&str> = name.split(' ').collect();
    let coded = words.last() != Some(&"floats");
    words.retain(|word| !matches!(*word, "bytes" | "floats"));
    let known = available();
    match words[..] {
        // Without instructions for them, products of bytes are slower than those of floats.
        [] => return Ok((known[0], coded && known.len() > 1)),
        [wanted] => {
            if let Some(kernel) = known.iter().find(|kernel| kernel.name == wanted) {
                return Ok((*kernel, coded));
            }
        }
        _ => {}
    }
    let names: Vec<&str> = known.iter().map(|kernel| kernel.name).collect();
    Err(Error::Value {
        argument: "kernel",
        expected: format!(
            "`bytes`, `floats`, or one of {} before them",
            names.join(", ")
        ),
        came: name.to_owned(),
        position: 0,
    })
}
