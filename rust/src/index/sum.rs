//! `sum`: all tags of a user count alike. Linear, so one merged row a user is searched, not fifty.
//!
//! Its list is another one than that of the best tag: a few strong intents drown in the mean of many.

use super::{available, fused, Fuse, Hit, Matrix, Part, Query, LANES};
use crate::error::Error;

/// Search by each user's mean tag; the tag that is named is the one that gives an item most.
pub fn search(parts: &[Part<'_>], query: &Query<'_>) -> Result<Vec<(usize, Vec<Hit>)>, Error> {
    let (mut means, mut offsets) = (Vec::new(), vec![0]);
    for user in query.offsets.windows(2) {
        let (first, last) = (user[0] as usize, user[1] as usize);
        if first < last {
            let mut mean = vec![0.0f32; query.tags.dim];
            for row in first..last {
                for (sum, value) in mean.iter_mut().zip(query.tags.row(row)) {
                    *sum += value;
                }
            }
            means.extend(mean.iter().map(|sum| sum / (last - first) as f32));
        }
        offsets.push((means.len() / query.tags.dim) as i64);
    }
    let merged = Query {
        tags: Matrix {
            values: &means,
            dim: query.tags.dim,
        },
        offsets: &offsets,
        fuse: Fuse::Max,
        ..*query
    };
    let mut answers = fused(parts, &merged)?;
    let (mut panel, kernel) = (vec![0.0; query.tags.dim * LANES], available()[0]);
    for (user, hits) in &mut answers {
        let mine = query.offsets[*user] as usize..query.offsets[*user + 1] as usize;
        for few in hits.chunks_mut(LANES) {
            let rows = few.iter().map(|hit| {
                let part = parts.partition_point(|part| part.first <= hit.item) - 1;
                parts[part].items.row(hit.item - parts[part].first)
            });
            (kernel.fill)(&rows.collect::<Vec<_>>(), &mut panel);
            let scored = (kernel.score)(
                &panel,
                query.users.row(*user),
                query.tags,
                mine.clone(),
                0.0,
            );
            for (hit, tag) in few.iter_mut().zip(scored.tag) {
                hit.tag = tag;
            }
        }
    }
    Ok(answers)
}
