//! Stage 3: one compressed text per user within a token budget (paper section 2.1.1).

mod check;
pub mod ladder;
pub mod layout;
pub mod write;

use ahash::AHashMap;
use rayon::prelude::*;

use crate::calendar::{iso, Bucket};
use crate::error::Error;
use crate::tokenizer::Tokenizer;
use check::check;
use ladder::{Atom, Fate, Ladder};
use layout::{lines, Layout, Line};
use write::{Memo, Tokens, Words};

/// Events grouped by user: those of user `u` are the rows `offsets[u]..offsets[u + 1]`, in any order.
pub struct Log<'a> {
    pub offsets: &'a [i64],
    /// Local day numbers; `calendar::UNDATED` where the log gives no time.
    pub days: &'a [i32],
    /// UTC microseconds; any constant below all others where missing.
    pub times: &'a [i64],
    pub positions: &'a [i64],
    /// Codes into `behaviors`, in the order in which a line names them.
    pub behaviors: &'a [i32],
    /// Rows of `Entries`.
    pub entries: &'a [i32],
}

/// What events are about: items in the order of their ids, queries, `-`, and then the categories.
pub struct Entries<'a> {
    pub offsets: &'a [i64],
    pub bytes: &'a str,
    /// Entries with equal codes have equal texts and need a number to stay apart.
    pub same: &'a [i32],
    /// Row of the entry's category, or -1.
    pub categories: &'a [i32],
}

impl Entries<'_> {
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn text(&self, entry: usize) -> &str {
        &self.bytes[self.offsets[entry] as usize..self.offsets[entry + 1] as usize]
    }
}

// Switches of one call, not states of a machine.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone)]
pub struct Options {
    /// Local day number of `now`.
    pub today: i32,
    pub budget: Option<u64>,
    /// `None`: the cheapest for each user.
    pub layout: Option<Layout>,
    pub counts: bool,
    pub long_labels: bool,
    pub stable: bool,
    pub row_ids: bool,
    /// 0: one a core.
    pub threads: usize,
}

/// One user's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    pub text: String,
    pub tokens: u64,
    pub tokens_in: u64,
    pub events: u64,
    pub fate: Fate,
    pub layout: Layout,
}

/// Histories as flat columns, the form in which they leave the core.
pub struct Columns {
    pub offsets: Vec<i64>,
    pub bytes: Vec<u8>,
    pub tokens: Vec<u32>,
    /// Seven numbers a user: tokens in, tokens out, events, full, coarsened, folded, dropped.
    pub receipts: Vec<i64>,
    /// Rows of `Layout::ALL`.
    pub layouts: Vec<u8>,
}

impl Columns {
    pub fn new(histories: Vec<History>) -> Result<Self, Error> {
        let mut columns = Self {
            offsets: vec![0],
            bytes: Vec::with_capacity(histories.iter().map(|history| history.text.len()).sum()),
            tokens: Vec::with_capacity(histories.len()),
            receipts: Vec::with_capacity(7 * histories.len()),
            layouts: Vec::with_capacity(histories.len()),
        };
        for (position, history) in histories.into_iter().enumerate() {
            columns.bytes.extend_from_slice(history.text.as_bytes());
            columns.offsets.push(columns.bytes.len() as i64);
            columns
                .tokens
                .push(u32::try_from(history.tokens).map_err(|_| Error::Value {
                    argument: "tokens",
                    expected: format!("at most {} a user; set a budget", u32::MAX),
                    came: history.tokens.to_string(),
                    position,
                })?);
            let Fate {
                full,
                coarsened,
                folded,
                dropped,
            } = history.fate;
            let numbers = [
                history.tokens_in,
                history.tokens,
                history.events,
                full,
                coarsened,
                folded,
                dropped,
            ];
            columns.receipts.extend(numbers.map(|number| number as i64));
            columns.layouts.push(history.layout as u8);
        }
        Ok(columns)
    }
}

/// Compresses every user's events. `behaviors` ends with the name that rare ones are folded into.
pub fn compress(
    log: &Log<'_>,
    entries: &Entries<'_>,
    behaviors: &[String],
    tokenizer: &Tokenizer,
    options: &Options,
) -> Result<Vec<History>, Error> {
    check(log, entries, behaviors)?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build()
        .map_err(|error| Error::Value {
            argument: "threads",
            expected: "a number of threads that the system grants".to_owned(),
            came: format!("{}: {error}", options.threads),
            position: 0,
        })?;
    Ok(pool.install(|| {
        let tokens = Tokens::new(tokenizer, entries);
        let mut by_text: Vec<usize> = (0..entries.len()).collect();
        by_text.par_sort_unstable_by_key(|&entry| (entries.text(entry), entry));
        let mut text_ranks = vec![0u32; by_text.len()];
        for (rank, entry) in by_text.into_iter().enumerate() {
            text_ranks[entry] = rank as u32;
        }
        let shared = Shared {
            log,
            entries,
            behaviors,
            tokens: &tokens,
            text_ranks: &text_ranks,
            options,
        };
        (0..log.offsets.len() - 1)
            .into_par_iter()
            .map_init(Memo::new, |memo, user| shared.user(user, memo))
            .collect()
    }))
}

struct Shared<'a> {
    log: &'a Log<'a>,
    entries: &'a Entries<'a>,
    behaviors: &'a [String],
    tokens: &'a Tokens<'a>,
    text_ranks: &'a [u32],
    options: &'a Options,
}

/// The field order is the order of raw lines.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    time: i64,
    position: i64,
    /// Rank of the entry's text, so that events of one moment stand in a readable order.
    text_rank: u32,
    behavior: u32,
    entry: u32,
    day: i32,
}

impl Shared<'_> {
    fn user(&self, user: usize, memo: &mut Memo) -> History {
        let events = self.events(user);
        let (local, numbers, atoms) = self.atoms(&events);
        let words = Words {
            entries: self.entries,
            behaviors: self.behaviors,
            options: self.options,
            local: &local,
            numbers: &numbers,
        };
        let dates: AHashMap<i32, String> = events
            .iter()
            .map(|event| event.day)
            .collect::<ahash::AHashSet<_>>()
            .into_iter()
            .map(|day| (day, iso(day)))
            .collect();
        let raw = events.iter().map(|event| {
            (
                dates[&event.day].as_str(),
                self.behaviors[event.behavior as usize].as_str(),
                event.entry as usize,
            )
        });
        let tokens_in = self.tokens.of_raw(raw, self.entries, memo);

        let ladder = Ladder::new(&atoms, self.options.counts, self.behaviors.len() as u32 - 1);
        let mut steps = 0;
        let mut best = self.shortest(&ladder, steps, &words, memo);
        if let Some(budget) = self.options.budget {
            if best.tokens > budget {
                // The first kind of step whose end fits, then halving inside it. Whatever fits a budget fits every
                // larger one too, so more budget never leads further down.
                let (mut too_long, mut fits) = (0, ladder.steps());
                for end in ladder.ends() {
                    if end > too_long {
                        if self.shortest(&ladder, end, &words, memo).tokens <= budget {
                            fits = end;
                            break;
                        }
                        too_long = end;
                    }
                }
                while fits - too_long > 1 {
                    let middle = usize::midpoint(too_long, fits);
                    if self.shortest(&ladder, middle, &words, memo).tokens <= budget {
                        fits = middle;
                    } else {
                        too_long = middle;
                    }
                }
                steps = fits;
                best = self.shortest(&ladder, steps, &words, memo);
            }
        }
        History {
            text: write::text(&best.lines, &words),
            tokens: best.tokens,
            tokens_in,
            events: events.len() as u64,
            fate: ladder.fate(steps),
            layout: best.layout,
        }
    }

    /// The user's events in order; without counts an exact repeat is the same event.
    fn events(&self, user: usize) -> Vec<Event> {
        let rows = self.log.offsets[user] as usize..self.log.offsets[user + 1] as usize;
        let mut events: Vec<Event> = rows
            .map(|row| {
                let entry = self.log.entries[row] as u32;
                Event {
                    time: self.log.times[row],
                    position: self.log.positions[row],
                    text_rank: self.text_ranks[entry as usize],
                    behavior: self.log.behaviors[row] as u32,
                    entry,
                    day: self.log.days[row],
                }
            })
            .collect();
        events.sort_unstable();
        if !self.options.counts {
            events.dedup();
        }
        events
    }

    /// The user's entries in order of first appearance, their ` #n` numbers, and the events summed up.
    fn atoms(&self, events: &[Event]) -> (Vec<u32>, Vec<u32>, Vec<Atom>) {
        let bucket = |event: &Event| Bucket::of(event.day, self.options.today, self.options.stable);
        let mut ranks: AHashMap<u32, u32> = AHashMap::new();
        let mut local = Vec::new();
        // (same text, first seen in the open part, row): numbers follow item ids, and with `stable` no new item
        // changes the number of one that stands in a closed line.
        let mut numbered = Vec::new();
        let mut summed: AHashMap<(Bucket, u32, u32), u64> = AHashMap::new();
        let mut closed: ahash::AHashSet<u32> = ahash::AHashSet::new();
        for event in events {
            let rank = *ranks.entry(event.entry).or_insert_with(|| {
                local.push(event.entry);
                local.len() as u32 - 1
            });
            let bucket = bucket(event);
            if !bucket.open {
                closed.insert(rank);
            }
            *summed.entry((bucket, event.behavior, rank)).or_default() += 1;
        }
        for (rank, &entry) in local.iter().enumerate() {
            let rank = rank as u32;
            numbered.push((
                self.entries.same[entry as usize],
                !closed.contains(&rank),
                entry,
                rank,
            ));
        }
        numbered.sort_unstable();
        let mut numbers = vec![0; local.len()];
        for same in numbered.chunk_by(|left, right| left.0 == right.0) {
            for (&(.., rank), number) in same.iter().zip(1..) {
                numbers[rank as usize] = number;
            }
        }
        let mut atoms: Vec<Atom> = summed
            .into_iter()
            .map(|((bucket, behavior, entry), events)| Atom {
                bucket,
                behavior,
                entry,
                category: u32::try_from(self.entries.categories[local[entry as usize] as usize])
                    .ok(),
                events,
            })
            .collect();
        atoms.sort_unstable_by_key(|atom| (atom.bucket, atom.behavior, atom.entry));
        (local, numbers, atoms)
    }

    /// The layout with the fewest tokens after some steps. With `stable` the closed part alone decides, if there is one.
    fn shortest(
        &self,
        ladder: &Ladder<'_>,
        steps: usize,
        words: &Words<'_>,
        memo: &mut Memo,
    ) -> Choice {
        let triples = ladder.triples(steps);
        let one;
        let layouts: &[Layout] = match self.options.layout {
            Some(layout) => {
                one = [layout];
                &one
            }
            None => &Layout::ALL,
        };
        let mut best: Option<(u64, Choice)> = None;
        for &layout in layouts {
            let lines = lines(&triples, layout);
            let closed = lines
                .iter()
                .take_while(|line| !line.contexts[0].0.open)
                .count();
            let tokens = self.tokens.of_lines(&lines, words, memo);
            let judged = if self.options.stable && closed > 0 && layouts.len() > 1 {
                self.tokens.of_lines(&lines[..closed], words, memo)
            } else {
                tokens
            };
            if best.as_ref().is_none_or(|(least, _)| judged < *least) {
                best = Some((
                    judged,
                    Choice {
                        layout,
                        lines,
                        tokens,
                    },
                ));
            }
        }
        let Some((_, choice)) = best else {
            unreachable!("there is at least one layout")
        };
        choice
    }
}

struct Choice {
    layout: Layout,
    lines: Vec<Line>,
    tokens: u64,
}

#[cfg(test)]
mod tests;
