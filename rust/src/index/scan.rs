//! One pass over a range of items for a group of users: estimate, leave out what provably cannot enter, score the rest.
//!
//! An estimate comes with a bound, so `estimate + bound` is at least the score. Items whose `estimate + bound` lies under
//! the k-th best score so far cannot be in the answer. The others wait in a short list; when it is full, the best of
//! them are scored first, which lifts the floor, and most of the rest need not be scored at all. Nothing is taken on
//! trust: where bounds are wide, more items are scored, in the end all of them.

use std::iter::Peekable;
use std::sync::atomic::{AtomicU32, Ordering};

use super::best::Best;
use super::codes::{pack, Rows, Size};
use super::estimate::{one, Bytes, Floats, Source};
use super::filter::Open;
use super::group::{Asked, Group};
use super::kernels::Kernel;
use super::reach::{Choice, Reach, NOTHING};
use super::{Hit, Part, Query, LANES};

/// Candidates that wait to be scored, at least.
const ROOM: usize = 512;
/// Bytes give way to floats where they leave more than so many of a panel's 32 items to be scored: floats multiply at a
/// quarter of the speed, but scoring an item costs several times as much again.
const WIDE: usize = LANES / 4;
/// Not counted: so many times the length of a list. The best items come first, and they are scored whatever is known.
const AT_FIRST: usize = 16;

/// Floors of a group's questions, shared by the tasks that scan different items for it.
pub struct Floors(Vec<AtomicU32>);

impl Floors {
    pub fn new(count: usize) -> Self {
        Self((0..count).map(|_| AtomicU32::new(0)).collect())
    }

    /// Unsigned numbers in the order of the floats.
    fn get(&self, question: usize) -> f32 {
        let key = self.0[question].load(Ordering::Relaxed);
        if key == 0 {
            return f32::NEG_INFINITY;
        }
        f32::from_bits(if key >> 31 == 1 { key ^ 1 << 31 } else { !key })
    }

    fn lift(&self, question: usize, floor: f32) {
        let bits = floor.to_bits();
        let key = if bits >> 31 == 1 {
            !bits
        } else {
            bits | 1 << 31
        };
        self.0[question].fetch_max(key, Ordering::Relaxed);
    }
}

/// One range of one part for one group.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    pub query: &'a Query<'a>,
    pub group: &'a Group,
    pub excluded: &'a [Vec<usize>],
    pub floors: &'a Floors,
    pub part: Part<'a>,
    pub open: &'a Open,
    /// Of the part.
    pub places: Option<&'a [u32]>,
    pub reach: Option<&'a Reach<'a>>,
}

/// The rows of a group, ready to be multiplied in both ways: as they are, and in the order of the kernel.
pub struct Prepared {
    coded: [Rows; 2],
    coded_asked: Vec<Asked>,
    pub plain: [Vec<f32>; 2],
    pub sizes: Vec<Size>,
    plain_asked: Vec<Asked>,
}

impl Prepared {
    pub fn new(query: &Query<'_>, group: &Group, kernel: &Kernel) -> Self {
        let coded = group.coded(query, kernel);
        let (plain, sizes) = group.plain(query);
        Self {
            coded_asked: group.asked(query, &coded.size),
            plain_asked: group.asked(query, &sizes),
            coded: [coded.packed(kernel.tiles[0]), coded],
            plain: [pack(&plain, query.users.dim, kernel.tiles[1]), plain],
            sizes,
        }
    }
}

/// The best of each question among the given blocks; `coded`: scan bytes, where the part has them.
pub fn scan<'a>(
    task: Task<'a>,
    prepared: &Prepared,
    kernel: Kernel,
    blocks: impl Iterator<Item = usize>,
    coded: bool,
) -> Vec<Best<'a>> {
    let mut blocks = blocks.peekable();
    if blocks.peek().is_none() {
        return Vec::new();
    }
    let k = task.query.k;
    let fresh = |_: &_| Waiting {
        best: Best::new(k, task.query.caps),
        candidates: Vec::new(),
    };
    let mut pass = Pass {
        task,
        waiting: task.group.questions.iter().map(fresh).collect(),
        floor: vec![f32::NEG_INFINITY; task.group.questions.len()],
        buffer: vec![0.0; task.part.items.dim * LANES],
        kernel,
        scored: 0,
    };
    if let (true, Some(codes)) = (coded, task.part.codes) {
        let [packed, rows] = &prepared.coded;
        let source = Bytes::new(codes, rows, packed, kernel);
        pass.drive(source, &prepared.coded_asked, &mut blocks);
    }
    if blocks.peek().is_some() {
        let [packed, rows] = &prepared.plain;
        let order = task.part.order();
        let source = Floats::new(task.part.items, order, rows, packed, kernel);
        pass.drive(source, &prepared.plain_asked, &mut blocks);
    }
    for question in 0..pass.waiting.len() {
        pass.settle(question);
    }
    pass.waiting
        .into_iter()
        .map(|waiting| waiting.best)
        .collect()
}

/// What one question has found so far.
struct Waiting<'a> {
    best: Best<'a>,
    /// The most that an item can score, and its row in the part.
    candidates: Vec<(f32, u32)>,
}

struct Pass<'a> {
    task: Task<'a>,
    waiting: Vec<Waiting<'a>>,
    /// For each question a score that an item must reach: apart, because it is asked for every panel.
    floor: Vec<f32>,
    /// Vectors of candidates, turned.
    buffer: Vec<f32>,
    kernel: Kernel,
    /// How many items were scored, all questions together.
    scored: usize,
}

impl Pass<'_> {
    /// Go over blocks until there are none, or until so many items were scored that floats would be faster.
    fn drive<S: Source>(
        &mut self,
        mut source: S,
        asked: &[Asked],
        blocks: &mut Peekable<impl Iterator<Item = usize>>,
    ) {
        let (task, group) = (self.task, self.task.group);
        let mut table = vec![[S::Sum::default(); LANES]; group.rows().next_multiple_of(16)];
        let mut choice = Choice::new(group, asked, task.reach);
        let pick = S::pick(&self.kernel);
        let (mut asked_of, free) = (0, AT_FIRST * task.query.k * asked.len());
        while let Some(block) = blocks.next() {
            for (question, floor) in self.floor.iter_mut().enumerate() {
                *floor = floor.max(task.floors.get(question));
            }
            if let Some(reach) = task.reach {
                if !choice.choose(reach, group, asked, block, &self.floor) {
                    continue;
                }
                source.choose((!choice.all).then_some(&choice.rows));
            }
            let (panels, count) = task.part.block(block);
            // Blocks stand anywhere, so the first panels of the next one are asked for too.
            let after = blocks
                .peek()
                .map_or(0..0, |&block| task.part.block(block).0);
            let later = panels.clone().chain(after).skip(S::AHEAD);
            let mut later = later.map(Some).chain(std::iter::repeat(None));
            for (turn, panel) in panels.enumerate() {
                let ahead = later.next().flatten();
                let tail = u32::MAX >> (LANES - LANES.min(count - turn * LANES));
                let open = tail & task.places.map_or(u32::MAX, |open| open[panel]);
                if open == 0 {
                    continue;
                }
                let facts = source.products(panel, ahead, &mut table);
                for &(question, ref asked) in &choice.asked {
                    let slots = &choice.slots[asked.tags.clone()];
                    let bound = asked.slack[0] * facts.widest.0 + asked.slack[1] * facts.widest.1;
                    let least = self.floor[question] - (bound + NOTHING);
                    let mut picked = open & pick(&table, asked, slots, &facts.scale, least);
                    while picked != 0 {
                        let lane = picked.trailing_zeros() as usize;
                        picked &= picked - 1;
                        let place = panel * LANES + lane;
                        let (rest, norm) = source.of(place, &facts);
                        let bound = asked.slack[0] * rest + asked.slack[1] * norm + NOTHING;
                        let estimate = facts.scale[lane] * one(&table, asked, slots, lane);
                        self.offer(question, estimate + bound, task.part.row(place));
                    }
                }
                asked_of += choice.asked.len();
            }
            if S::COARSE && self.scored > free + WIDE * asked_of {
                return;
            }
        }
    }

    fn offer(&mut self, question: usize, most: f32, row: usize) {
        if most < self.floor[question] {
            return;
        }
        let item = row + self.task.part.first;
        if !self.task.open.has(item) {
            return;
        }
        let user = self.task.group.questions[question].user;
        if self.task.excluded[user].binary_search(&item).is_ok() {
            return;
        }
        let waiting = &mut self.waiting[question];
        if waiting.best.crowded_out(item, most) {
            return;
        }
        waiting.candidates.push((most, row as u32));
        if waiting.candidates.len() >= ROOM.max(2 * self.task.query.k) {
            self.settle(question);
        }
    }

    /// Score the candidates: the most promising first, because they lift the floor over the others.
    fn settle(&mut self, question: usize) {
        let mut candidates = std::mem::take(&mut self.waiting[question].candidates);
        let k = self.task.query.k;
        let mut rest = candidates.as_mut_slice();
        if rest.len() > k {
            rest.select_nth_unstable_by(k - 1, |left, right| right.0.total_cmp(&left.0));
            let (first, others) = rest.split_at_mut(k);
            self.score(question, first);
            rest = others;
        }
        self.score(question, rest);
        candidates.clear();
        self.waiting[question].candidates = candidates;
    }

    fn score(&mut self, question: usize, candidates: &[(f32, u32)]) {
        let (query, items) = (self.task.query, self.task.part.items);
        let asked = &self.task.group.questions[question];
        let (waiting, floor) = (&mut self.waiting[question], self.floor[question]);
        let mut rows = candidates
            .iter()
            .filter(|(most, _)| *most >= floor)
            .map(|&(_, row)| row as usize);
        loop {
            let mut lanes: [&[f32]; LANES] = [&[]; LANES];
            let mut numbers = [0; LANES];
            let mut count = 0;
            for row in rows.by_ref().take(LANES) {
                lanes[count] = items.row(row);
                numbers[count] = row;
                count += 1;
            }
            if count == 0 {
                break;
            }
            (self.kernel.fill)(&lanes[..count], &mut self.buffer);
            self.scored += count;
            let user = query.users.row(asked.user);
            let scored = (self.kernel.score)(
                &self.buffer,
                user,
                query.tags,
                asked.tags.clone(),
                query.beta,
            );
            for (lane, &row) in numbers[..count].iter().enumerate() {
                waiting.best.offer(Hit {
                    item: row + self.task.part.first,
                    score: scored.score[lane],
                    col: scored.col[lane],
                    sem: scored.sem[lane],
                    tag: scored.tag[lane],
                    tag_side_alone: false,
                });
            }
        }
        waiting.best.settle();
        self.floor[question] = floor.max(waiting.best.floor);
        self.task.floors.lift(question, self.floor[question]);
    }
}
