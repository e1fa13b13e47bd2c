//! A wave of groups over all items: each group's blocks are queued by what they promise, and every core takes from them.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::AHashSet;
use rayon::prelude::*;

use super::best::Best;
use super::filter::Open;
use super::group::Group;
use super::kernels::Kernel;
use super::reach::Reach;
use super::scan::{scan, Floors, Prepared, Task};
use super::{Hit, Part, Query};

/// Fewest blocks that are worth a task of their own.
const FEWEST: usize = 8;
/// Without cells, one block in so many is scanned beforehand for a first floor: items that lie in order of goodness would
/// else all be scored.
const SAMPLE: usize = 64;

/// What all groups of a batch share.
pub struct Setting<'a> {
    pub parts: &'a [Part<'a>],
    pub query: &'a Query<'a>,
    pub first: Vec<usize>,
    pub excluded: Vec<Vec<usize>>,
    pub open: Open,
    pub kernel: Kernel,
    pub coded: bool,
}

impl Setting<'_> {
    /// Answer groups of users, one after another.
    pub fn answer(&self, users: &[Range<usize>], answers: &mut Vec<(usize, Vec<Hit>)>) {
        let (parts, query, kernel) = (self.parts, self.query, self.kernel);
        let groups: Vec<(Group, Prepared, Floors)> = users
            .iter()
            .map(|users| {
                let group = Group::new(users.clone(), query, &self.first);
                let prepared = Prepared::new(query, &group, &kernel);
                let floors = Floors::new(group.questions.len());
                (group, prepared, floors)
            })
            .collect();
        // One queue for each group and part: its blocks in the order of what they promise, and how many were taken.
        let queues: Vec<Queue<'_>> = (0..groups.len() * parts.len())
            .into_par_iter()
            .map(|number| {
                let (group, prepared, _) = &groups[number / parts.len()];
                let part = parts[number % parts.len()];
                let [packed, rows] = &prepared.plain;
                let mut reach = part.cells().map(|cells| {
                    let plain = (&rows[..], &packed[..], &prepared.sizes[..]);
                    Reach::new(query, group, &kernel, cells, plain)
                });
                let order = match &mut reach {
                    Some(reach) => reach.order(group),
                    None => (0..part.blocks() as u32).collect(),
                };
                Queue {
                    reach,
                    order,
                    taken: AtomicUsize::new(0),
                }
            })
            .collect();
        let run = |number: usize, blocks: &mut dyn Iterator<Item = usize>| {
            let (group, prepared, floors) = &groups[number / parts.len()];
            let part = number % parts.len();
            let task = Task {
                query,
                group,
                excluded: &self.excluded,
                floors,
                part: parts[part],
                open: &self.open,
                places: self.open.places(part),
                reach: queues[number].reach.as_ref(),
            };
            scan(task, prepared, kernel, blocks, self.coded)
        };
        (0..queues.len()).into_par_iter().for_each(|number| {
            let queue = &queues[number];
            if queue.reach.is_none() && queue.order.len() >= SAMPLE {
                run(number, &mut (0..queue.order.len()).step_by(SAMPLE));
            }
        });
        // The items are shared out too, so that even one user alone keeps every core busy.
        let workers = rayon::current_num_threads().div_ceil(groups.len().max(1));
        let tasks: Vec<usize> = (0..queues.len())
            .flat_map(|number| {
                let workers = workers.min(queues[number].order.len() / FEWEST).max(1);
                std::iter::repeat_n(number, workers)
            })
            .collect();
        let found: Vec<Vec<Best<'_>>> = tasks
            .par_iter()
            .with_max_len(1)
            .map(|&number| run(number, &mut queues[number].blocks()))
            .collect();
        for (number, (group, ..)) in groups.iter().enumerate() {
            let mine = tasks
                .iter()
                .zip(&found)
                .filter(|(&task, _)| task / parts.len() == number);
            join(group, query, &mine.map(|(_, found)| &found[..]), answers);
        }
    }
}

/// The blocks of one part that wait to be scanned for one group.
struct Queue<'a> {
    reach: Option<Reach<'a>>,
    order: Vec<u32>,
    taken: AtomicUsize,
}

impl Queue<'_> {
    /// The blocks that nobody else takes.
    fn blocks(&self) -> impl Iterator<Item = usize> + '_ {
        let next = || {
            let place = self.taken.fetch_add(1, Ordering::Relaxed);
            self.order.get(place).map(|&block| block as usize)
        };
        std::iter::from_fn(next)
    }
}

/// Join what a group found in each task, and say what its tag sides found alone.
fn join<'f, 'a: 'f>(
    group: &Group,
    query: &Query<'a>,
    found: &(impl Iterator<Item = &'f [Best<'a>]> + Clone),
    answers: &mut Vec<(usize, Vec<Hit>)>,
) {
    let mut open = answers.len();
    for (place, question) in group.questions.iter().enumerate() {
        // What survives the cap and `k` overall also survives them in its own task, so joining is exact.
        let mut best = Best::new(query.k, query.caps);
        for part in found.clone().filter(|part| !part.is_empty()) {
            best.found.extend(part[place].found.iter().copied());
        }
        best.settle();
        if question.witness {
            let own: AHashSet<usize> = best.found.iter().map(|hit| hit.item).collect();
            for (_, hits) in &mut answers[open..] {
                for hit in hits {
                    hit.tag_side_alone = !own.contains(&hit.item);
                }
            }
            open = answers.len();
        } else {
            if question.tags.is_empty() {
                open = answers.len() + 1;
            }
            answers.push((question.user, best.found));
        }
    }
}
