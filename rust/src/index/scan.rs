//! One pass over a range of items for a group of users.

// `scan_avx2` works only if everything that it calls is compiled again with its registers.
#![allow(clippy::inline_always)]

use std::hash::{BuildHasher, Hasher};
use std::ops::Range;

use ahash::{AHashMap, RandomState};

use super::best::Best;
use super::{Hit, Matrix, Query};

/// Items a panel. 32 sums are eight SSE or four AVX registers: enough independent chains to hide the adder's latency.
pub const LANES: usize = 32;

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

/// Users that are scanned together.
pub struct Group {
    users: Range<usize>,
    /// Their distinct tag rows.
    rows: Vec<usize>,
    /// For each tag of theirs, from `first_tag` on, its place in `rows`.
    slots: Vec<usize>,
    first_tag: usize,
}

impl Group {
    pub fn new(users: Range<usize>, offsets: &[i64], first: &[usize]) -> Self {
        let (first_tag, end) = (offsets[users.start] as usize, offsets[users.end] as usize);
        let mine = &first[first_tag..end];
        let mut rows = mine.to_vec();
        rows.sort_unstable();
        rows.dedup();
        let slots = mine
            .iter()
            .map(|row| rows.partition_point(|other| other < row));
        Self {
            users,
            slots: slots.collect(),
            rows,
            first_tag,
        }
    }
}

/// Scan with the widest registers at hand. AVX2 without fused multiply-add: wider, but the same sums to the last bit.
pub fn scan<'a>(
    items: Matrix<'_>,
    query: &Query<'a>,
    group: &Group,
    excluded: &'a [Vec<usize>],
    range: Range<usize>,
) -> Vec<Best<'a>> {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor was just asked whether it has AVX2.
        return unsafe { scan_avx2(items, query, group, excluded, range) };
    }
    scan_portable(items, query, group, excluded, range)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn scan_avx2<'a>(
    items: Matrix<'_>,
    query: &Query<'a>,
    group: &Group,
    excluded: &'a [Vec<usize>],
    range: Range<usize>,
) -> Vec<Best<'a>> {
    scan_portable(items, query, group, excluded, range)
}

#[inline(always)]
fn scan_portable<'a>(
    items: Matrix<'_>,
    query: &Query<'a>,
    group: &Group,
    excluded: &'a [Vec<usize>],
    range: Range<usize>,
) -> Vec<Best<'a>> {
    let k = query.k.min(items.rows());
    let mut bests: Vec<Best<'a>> = group
        .users
        .clone()
        .map(|user| Best::new(k, query.caps, &excluded[user]))
        .collect();
    let mut panel = vec![0.0; items.dim * LANES];
    let mut products = vec![[0.0; LANES]; group.rows.len()];
    for start in range.clone().step_by(LANES) {
        let count = LANES.min(range.end - start);
        for lane in 0..count {
            for (column, &value) in panel.chunks_exact_mut(LANES).zip(items.row(start + lane)) {
                column[lane] = value;
            }
        }
        for (product, &row) in products.iter_mut().zip(&group.rows) {
            *product = dots(&panel, query.tags.row(row));
        }
        for (user, best) in group.users.clone().zip(&mut bests) {
            let scored = score(&panel, &products, query, group, user);
            for lane in 0..count {
                if scored.score[lane] > best.floor {
                    best.offer(Hit {
                        item: start + lane,
                        score: scored.score[lane],
                        col: scored.col[lane],
                        sem: scored.sem[lane],
                        tag: scored.tag[lane],
                    });
                }
            }
        }
    }
    bests
}

struct Scored {
    score: [f32; LANES],
    col: [f32; LANES],
    sem: [f32; LANES],
    tag: [i32; LANES],
}

#[inline(always)]
fn score(
    panel: &[f32],
    products: &[[f32; LANES]],
    query: &Query<'_>,
    group: &Group,
    user: usize,
) -> Scored {
    let col = dots(panel, query.users.row(user));
    let (first, last) = (
        query.offsets[user] as usize,
        query.offsets[user + 1] as usize,
    );
    if first == last {
        return Scored {
            score: col,
            col,
            sem: [f32::NAN; LANES],
            tag: [-1; LANES],
        };
    }
    let mut sem = [f32::NEG_INFINITY; LANES];
    let mut tag = [-1; LANES];
    for row in first..last {
        let dots = &products[group.slots[row - group.first_tag]];
        for lane in 0..LANES {
            // Strictly greater: among equal tags the first one wins.
            let wins = dots[lane] > sem[lane];
            sem[lane] = if wins { dots[lane] } else { sem[lane] };
            tag[lane] = if wins { row as i32 } else { tag[lane] };
        }
    }
    let mut score = [0.0; LANES];
    for lane in 0..LANES {
        score[lane] = query.beta * col[lane] + (1.0 - query.beta) * sem[lane];
    }
    Scored {
        score,
        col,
        sem,
        tag,
    }
}

#[inline(always)]
fn dots(panel: &[f32], row: &[f32]) -> [f32; LANES] {
    let mut sums = [0.0; LANES];
    for (column, &weight) in panel.chunks_exact(LANES).zip(row) {
        for (sum, &value) in sums.iter_mut().zip(column) {
            *sum += weight * value;
        }
    }
    sums
}
