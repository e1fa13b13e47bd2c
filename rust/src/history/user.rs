//! One user's text: the shortest reading, and the fewest steps down the ladder that make it fit.

use super::catalogue::Entries;
use super::cells::Cells;
use super::dates::Dates;
use super::descent::Standing;
use super::floor::Floor;
use super::ladder::Ladder;
use super::lines::Lines;
use super::partition::Record;
use super::pieces::{additive, Pieces};
use super::places::Fate;
use super::readings::{Cell, Layout, Reader};
use super::write::{self, Buffer, Things};
use super::Options;

/// What one thread works with; its memory is reused from user to user.
pub struct Worker<'a> {
    pub dates: &'a Dates,
    pub entries: &'a Entries<'a>,
    pub options: &'a Options,
    /// The code of `other`.
    other: u32,
    pub additive: bool,
    pub pieces: Pieces<'a>,
    pub whole: Cells,
    /// What stands where on the way down, and the least that it can cost.
    pub standing: Standing,
    pub floor: Floor,
    /// The cut history on its way down.
    cells: Vec<Cell>,
    things: Things,
    reader: Reader,
    lines: Lines,
    best: Lines,
    /// Texts that are only counted.
    scratch: Buffer,
    /// Of the text of the users before.
    pub bytes_a_record: f64,
}

/// What is told about a user beside the text.
#[derive(Debug, Clone, Copy)]
pub struct Receipt {
    pub tokens_in: u64,
    pub tokens: u64,
    pub events: u64,
    pub fate: Fate,
    pub layout: Layout,
}

pub struct Choice {
    layout: Layout,
    pub tokens: u64,
}

impl<'a> Worker<'a> {
    pub fn new(
        dates: &'a Dates,
        entries: &'a Entries<'a>,
        options: &'a Options,
        pieces: Pieces<'a>,
        other: u32,
    ) -> Self {
        Self {
            dates,
            entries,
            options,
            other,
            additive: additive(pieces.tokenizer),
            pieces,
            whole: Cells::default(),
            standing: Standing::default(),
            floor: Floor::default(),
            cells: Vec::new(),
            things: Things::default(),
            reader: Reader::default(),
            lines: Lines::default(),
            best: Lines::default(),
            scratch: Buffer::default(),
            bytes_a_record: 32.0,
        }
    }

    /// Compresses one user and appends the text.
    pub fn compress(&mut self, records: &mut [Record], out: &mut Buffer) -> Receipt {
        self.whole
            .read(records, self.dates, self.entries, &mut self.pieces);
        let events = records.len() as u64;
        let tokens_in = if self.additive {
            self.whole.tokens_in
        } else {
            self.count_raw(records)
        };
        let mut fate = Fate {
            full: events,
            ..Fate::default()
        };
        // Counts are what the ladder sums up, so it is asked for them even if no step is taken.
        let mut ladder = self.options.counts.then(|| self.ladder(records));
        if let Some(ladder) = &ladder {
            self.descend(ladder, 0);
        }
        let cut = ladder.is_some();
        let start = out.len();
        let mut choice = self.shortest(cut, true);
        choice.tokens = self.write(cut, choice.tokens, out);
        if let Some(budget) = self.options.budget {
            if choice.tokens > budget {
                let mut ladder = ladder.take().unwrap_or_else(|| self.ladder(records));
                let steps;
                (steps, choice) = self.search(&mut ladder, budget);
                out.truncate(start);
                choice.tokens = self.write(true, choice.tokens, out);
                fate = ladder.fate(steps);
            }
        }
        Receipt {
            tokens_in,
            tokens: choice.tokens,
            events,
            fate,
            layout: choice.layout,
        }
    }

    pub fn ladder(&mut self, records: &[Record]) -> Ladder<'a> {
        Ladder::new(
            records,
            &mut self.whole,
            self.dates,
            self.options.counts,
            self.other,
        )
    }

    pub fn descend(&mut self, ladder: &Ladder<'_>, steps: usize) {
        ladder.cells(
            steps,
            &self.whole.things,
            self.entries,
            &mut self.cells,
            &mut self.things,
        );
    }

    /// The layouts that are asked for.
    pub fn layouts(&self) -> &'static [Layout] {
        const ALL: &[Layout] = &Layout::ALL;
        match self.options.layout {
            Some(layout) => &ALL[layout as usize..=layout as usize],
            None if self.options.stable => &Layout::STABLE,
            None => &Layout::RACE,
        }
    }

    /// Puts the lines with the fewest tokens into `best`. Lines `to_write` without a rival are not counted: writing them
    /// does.
    pub fn shortest(&mut self, cut: bool, to_write: bool) -> Choice {
        let layouts = self.layouts();
        let mut best: Option<Choice> = None;
        for &layout in layouts {
            let (cells, things) = if cut {
                (&self.cells, &self.things)
            } else {
                (&self.whole.all, &self.whole.things)
            };
            self.reader.read(
                cells,
                things,
                &mut self.pieces,
                layout,
                self.dates.open,
                &mut self.lines,
            );
            if to_write && layouts.len() == 1 {
                std::mem::swap(&mut self.lines, &mut self.best);
                return Choice { layout, tokens: 0 };
            }
            let tokens = self.count(cut);
            if best.as_ref().is_none_or(|best| tokens < best.tokens) {
                best = Some(Choice { layout, tokens });
                std::mem::swap(&mut self.lines, &mut self.best);
            }
        }
        let Some(choice) = best else {
            unreachable!("there is at least one layout")
        };
        choice
    }

    /// Exact tokens of the lines.
    fn count(&mut self, cut: bool) -> u64 {
        let things = if cut {
            &self.things
        } else {
            &self.whole.things
        };
        let row_ids = self.options.row_ids;
        if self.additive {
            return write::tokens(&self.lines, things, &mut self.pieces, row_ids);
        }
        self.scratch.truncate(0);
        write::text(
            &self.lines,
            things,
            self.entries,
            &mut self.pieces,
            row_ids,
            &mut self.scratch,
        );
        let text = String::from_utf8_lossy(self.scratch.since(0));
        self.pieces.tokenizer.count(&text) as u64
    }

    /// Appends the best lines and gives their exact tokens; `counted` are those that choosing them found, if it did.
    fn write(&mut self, cut: bool, counted: u64, out: &mut Buffer) -> u64 {
        let things = if cut {
            &self.things
        } else {
            &self.whole.things
        };
        let start = out.len();
        let tokens = write::text(
            &self.best,
            things,
            self.entries,
            &mut self.pieces,
            self.options.row_ids,
            out,
        );
        if self.additive {
            tokens
        } else if counted > 0 {
            counted
        } else {
            let text = String::from_utf8_lossy(out.since(start));
            self.pieces.tokenizer.count(&text) as u64
        }
    }

    /// Exact tokens of one line an event, for tokenizers whose pieces do not add up.
    fn count_raw(&self, records: &[Record]) -> u64 {
        let mut text = Vec::new();
        for record in records {
            if !text.is_empty() {
                text.push(b'\n');
            }
            let (stretch, _) = self.dates.stretch(record.moment());
            text.extend_from_slice(self.pieces.raw_text(stretch, record.behavior()).as_bytes());
            text.extend_from_slice(self.entries.text(record.entry()));
        }
        self.pieces.tokenizer.count(&String::from_utf8_lossy(&text)) as u64
    }
}
