//! The scores themselves: float32, each sum in the order of the dimensions, no fused multiply-add.
//!
//! A scan only says what cannot be in an answer; what is left is scored here. One lane is one item, so a score equals the
//! plain loop's bit for bit, on any processor, with any kernel and any number of threads.

// What is compiled for wider registers must be compiled into its caller.
#![allow(clippy::inline_always)]

use std::ops::Range;

use rayon::prelude::*;

use super::{available, Matrix, Part, LANES};
use crate::error::Error;

/// Scores of up to `LANES` items for one question.
pub struct Scored {
    pub score: [f32; LANES],
    pub col: [f32; LANES],
    pub sem: [f32; LANES],
    pub tag: [i32; LANES],
}

/// Score a panel, `[dimension][lane]`, for a user row and some of the tag rows. Among equal tags the first one wins.
#[inline(always)]
pub fn score(
    panel: &[f32],
    user: &[f32],
    tags: Matrix<'_>,
    mine: Range<usize>,
    beta: f32,
) -> Scored {
    let col = dots(panel, user);
    if mine.is_empty() {
        return Scored {
            score: col,
            col,
            sem: [f32::NAN; LANES],
            tag: [-1; LANES],
        };
    }
    let mut sem = [f32::NEG_INFINITY; LANES];
    let mut tag = [-1; LANES];
    for row in mine {
        let dots = dots(panel, tags.row(row));
        for lane in 0..LANES {
            let wins = dots[lane] > sem[lane];
            sem[lane] = if wins { dots[lane] } else { sem[lane] };
            tag[lane] = if wins { row as i32 } else { tag[lane] };
        }
    }
    let mut score = [0.0; LANES];
    for lane in 0..LANES {
        score[lane] = beta * col[lane] + (1.0 - beta) * sem[lane];
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

/// Every item's score, col, sem and tag for one user, in row order.
pub fn scores(
    parts: &[Part<'_>],
    user: Matrix<'_>,
    tags: Matrix<'_>,
    beta: f32,
) -> Result<Vec<(f32, f32, f32, i32)>, Error> {
    user.check("users")?;
    tags.check("tags")?;
    let (mut all, kernel) = (Vec::new(), available()[0]);
    for part in parts {
        let scored = part
            .items
            .values
            .par_chunks(part.items.dim * LANES)
            .flat_map_iter(|rows| {
                let mut panel = vec![0.0; part.items.dim * LANES];
                let rows: Vec<&[f32]> = rows.chunks_exact(part.items.dim).collect();
                (kernel.fill)(&rows, &mut panel);
                let scored = (kernel.score)(&panel, user.row(0), tags, 0..tags.rows(), beta);
                let count = rows.len();
                (0..count).map(move |lane| {
                    let (score, col) = (scored.score[lane], scored.col[lane]);
                    (score, col, scored.sem[lane], scored.tag[lane])
                })
            });
        all.par_extend(scored);
    }
    Ok(all)
}
