//! Fused exact search: the best items of every user by `beta * col + (1 - beta) * max over tags of sem`, in one pass.
//!
//! Items are read in panels of `LANES`, transposed so that one lane is one item. A panel (8 KB at 64 dimensions) stays
//! in the first-level cache while the users' rows and all tag rows pass over it, and no score leaves it unless it can
//! still enter the result. Users share tags (a shop has thousands of tags, a batch of users fifty each), so a group's
//! equal tag rows are multiplied once per panel and only looked up per user. Each lane adds its products in the order of the dimensions, so a score equals the plain
//! loop's bit for bit, on any machine, with any number of threads.

mod best;
mod scan;

use rayon::prelude::*;

use crate::error::Error;
use best::Best;
use scan::{first_equal, scan, Group, LANES};

/// The largest finite half-precision number; values or norms beyond it become infinite in an f16 index.
pub const F16_MAX: f32 = 65504.0;
/// Users that share one packed panel and its tag scores. The more users, the more tags they share.
const USERS: usize = 1024;
/// Smallest share of the items that is worth a task of its own.
const RANGE: usize = 64 * LANES;

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

    /// Refuse NaN, infinities and whatever half precision cannot hold; the first bad row is named.
    pub fn check(&self, argument: &'static str) -> Result<(), Error> {
        let bad = (0..self.rows()).into_par_iter().find_map_first(|row| {
            let values = self.row(row);
            // A NaN fails every comparison, so it is found by asking for the good case.
            let wild = values
                .iter()
                .position(|value| !matches!(value.abs(), 0.0..=F16_MAX));
            if let Some(column) = wild {
                return Some((row, format!("{} in column {column}", values[column])));
            }
            let norm = values
                .iter()
                .map(|value| f64::from(*value).powi(2))
                .sum::<f64>()
                .sqrt();
            (norm > f64::from(F16_MAX)).then(|| (row, format!("of norm {norm:.1}")))
        });
        bad.map_or(Ok(()), |(position, came)| {
            let expected = format!("finite, each value and each row's norm at most {F16_MAX}");
            Err(Error::Value {
                argument,
                expected,
                came,
                position,
            })
        })
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

/// One batch of questions. User `u` owns the tag rows `offsets[u]..offsets[u + 1]`.
pub struct Query<'a> {
    pub users: Matrix<'a>,
    pub tags: Matrix<'a>,
    pub offsets: &'a [i64],
    pub beta: f32,
    pub k: usize,
    pub exclude: Option<Ragged<'a>>,
    pub caps: Option<Caps<'a>>,
}

/// One answer. Without tags `tag` is -1, `sem` is NaN and `score` is `col`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    pub item: usize,
    pub score: f32,
    pub col: f32,
    pub sem: f32,
    pub tag: i32,
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
}

impl From<Vec<Vec<Hit>>> for Columns {
    fn from(answers: Vec<Vec<Hit>>) -> Self {
        let mut columns = Self::default();
        for (user, hits) in answers.into_iter().enumerate() {
            for hit in hits {
                columns.user.push(user as i32);
                columns.item.push(hit.item as i64);
                columns.score.push(hit.score);
                columns.col.push(hit.col);
                columns.sem.push(hit.sem);
                columns.tag.push(hit.tag);
            }
        }
        columns
    }
}

/// For each user the best `k` items that no filter removes, best first, ties by the lower row.
///
/// Users and tags are checked here; `items` was checked once when the index was made.
pub fn search(items: Matrix<'_>, query: &Query<'_>) -> Result<Vec<Vec<Hit>>, Error> {
    let (users, rows) = (query.users.rows(), items.rows());
    check_offsets("offsets", query.offsets, users, query.tags.rows())?;
    query.users.check("users")?;
    query.tags.check("tags")?;
    if let Some(caps) = query.caps {
        if caps.categories.len() != rows {
            let (left_len, right_len) = (caps.categories.len(), rows);
            return Err(Error::Length {
                left: "categories",
                left_len,
                right: "vectors",
                right_len,
            });
        }
    }
    let excluded = excluded(query.exclude, users, rows)?;
    let threads = rayon::current_num_threads();
    let size = users.clamp(1, USERS);
    let first = first_equal(query.tags);
    let groups: Vec<Group> = (0..users)
        .step_by(size)
        .map(|user| Group::new(user..(user + size).min(users), query.offsets, &first))
        .collect();
    // The items are cut too: even one user alone keeps every core busy, and no core waits long for the last task.
    let cuts = (4 * threads).div_ceil(groups.len().max(1));
    let cuts = cuts.min(rows.div_ceil(RANGE)).max(1);
    let width = rows.div_ceil(cuts).next_multiple_of(LANES);
    let parts: Vec<Vec<Best<'_>>> = (0..groups.len() * cuts)
        .into_par_iter()
        .map(|task| {
            let start = (task % cuts * width).min(rows);
            let range = start..(start + width).min(rows);
            scan(items, query, &groups[task / cuts], &excluded, range)
        })
        .collect();
    let mut answers: Vec<Vec<Hit>> = Vec::with_capacity(users);
    for parts in parts.chunks(cuts) {
        for user in 0..parts[0].len() {
            // What survives the cap and `k` overall also survives them in its own part, so joining the parts is exact.
            let mut best = parts[0][user].clone();
            best.found.extend(
                parts[1..]
                    .iter()
                    .flat_map(|part| part[user].found.iter().copied()),
            );
            best.settle();
            answers.push(best.found);
        }
    }
    Ok(answers)
}

fn check_offsets(
    argument: &'static str,
    offsets: &[i64],
    users: usize,
    end: usize,
) -> Result<(), Error> {
    let expected = || {
        format!(
            "{} numbers that start at 0, never fall and end at {end}",
            users + 1
        )
    };
    let fail = |position: usize, came: String| {
        Err(Error::Value {
            argument,
            expected: expected(),
            came,
            position,
        })
    };
    if offsets.len() != users + 1 {
        return fail(offsets.len(), "the end".to_owned());
    }
    for (position, &offset) in offsets.iter().enumerate() {
        let before = if position == 0 {
            0
        } else {
            offsets[position - 1]
        };
        let wrong_end =
            (position == 0 && offset != 0) || (position == users && offset != end as i64);
        if offset < before || wrong_end {
            return fail(position, offset.to_string());
        }
    }
    Ok(())
}

/// The excluded item rows of each user, sorted.
fn excluded(
    exclude: Option<Ragged<'_>>,
    users: usize,
    rows: usize,
) -> Result<Vec<Vec<usize>>, Error> {
    let Some(exclude) = exclude else {
        return Ok(vec![Vec::new(); users]);
    };
    check_offsets(
        "exclude offsets",
        exclude.offsets,
        users,
        exclude.values.len(),
    )?;
    if let Some(position) = exclude
        .values
        .iter()
        .position(|&row| row < 0 || row >= rows as i64)
    {
        let (expected, came) = (
            format!("item rows from 0 to {rows}, {rows} not included"),
            exclude.values[position],
        );
        return Err(Error::Value {
            argument: "exclude",
            expected,
            came: came.to_string(),
            position,
        });
    }
    let sorted = exclude.offsets.windows(2).map(|pair| {
        let values = &exclude.values[pair[0] as usize..pair[1] as usize];
        let mut rows: Vec<usize> = values.iter().map(|&row| row as usize).collect();
        rows.sort_unstable();
        rows
    });
    Ok(sorted.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matrix(values: &[f32], dim: usize) -> Matrix<'_> {
        Matrix { values, dim }
    }

    #[test]
    fn the_better_tag_wins_and_both_sides_are_kept() {
        let items = [1.0, 0.0, 0.0, 1.0];
        let query = Query {
            users: matrix(&[1.0, 0.0], 2),
            tags: matrix(&[0.5, 0.25, 0.0, 2.0], 2),
            offsets: &[0, 2],
            beta: 0.5,
            k: 5,
            exclude: None,
            caps: None,
        };
        let hits = search(matrix(&items, 2), &query).unwrap();
        let expected = vec![
            Hit {
                item: 1,
                score: 1.0,
                col: 0.0,
                sem: 2.0,
                tag: 1,
            },
            Hit {
                item: 0,
                score: 0.75,
                col: 1.0,
                sem: 0.5,
                tag: 0,
            },
        ];
        assert_eq!(hits, vec![expected]);
    }

    #[test]
    fn nan_is_refused_with_its_place() {
        let error = matrix(&[0.0, 1.0, 0.0, f32::NAN], 2)
            .check("users")
            .unwrap_err();
        assert!(
            error.to_string().contains("row 1 is NaN in column 1"),
            "{error}"
        );
        assert!(matrix(&[60000.0, 60000.0], 2)
            .check("users")
            .unwrap_err()
            .to_string()
            .contains("norm"));
    }

    proptest! {
        /// Many small scores make ties; the plain way is to sort everything and walk it once.
        #[test]
        fn settling_in_parts_equals_sorting_once(
            scores in prop::collection::vec(0u8..20, 0..6000), k in 1usize..40, limit in 1usize..5, skip in 0usize..50,
        ) {
            let items: Vec<f32> = scores.iter().map(|&score| f32::from(score)).collect();
            let categories: Vec<i32> = (0..items.len() as i32).map(|row| row * row % 7).collect();
            let exclude: Vec<i64> = (0..items.len() as i64).step_by(skip + 1).collect();
            let query = Query {
                users: matrix(&[1.0], 1), tags: matrix(&[], 1), offsets: &[0, 0], beta: 0.3, k,
                exclude: Some(Ragged { values: &exclude, offsets: &[0, exclude.len() as i64] }),
                caps: Some(Caps { categories: &categories, limit }),
            };
            let hits = search(matrix(&items, 1), &query).unwrap();
            let mut rows: Vec<usize> = (0..items.len()).filter(|row| row % (skip + 1) != 0).collect();
            rows.sort_by_key(|&row| (std::cmp::Reverse(scores[row]), row));
            let mut taken = [0; 7];
            rows.retain(|&row| {
                taken[categories[row] as usize] += 1;
                taken[categories[row] as usize] <= limit
            });
            rows.truncate(k);
            prop_assert_eq!(hits[0].iter().map(|hit| hit.item).collect::<Vec<_>>(), rows);
        }
    }
}
