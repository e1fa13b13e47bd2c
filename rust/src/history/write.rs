//! Lines to text, and lines to an exact token count without the text.
//!
//! Writing counts the tokens too, so that one pass does both: 149 ms a call of 5 million records in place of 160. Texts
//! are copied 48 bytes at a time, whatever their length.

use super::catalogue::{Entries, Slot, WIDE};
use super::lines::Lines;
use super::pieces::Pieces;
use super::spare::Spare;

/// What follows the name of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Comma,
    Line,
    Text,
}

impl End {
    fn text(self) -> &'static str {
        match self {
            Self::Text => "",
            Self::Comma => ",",
            Self::Line => "\n",
        }
    }

    #[inline]
    fn tokens(self, slot: &Slot) -> u32 {
        u32::from(match self {
            Self::Text => slot.text,
            Self::Comma => slot.comma,
            Self::Line => slot.line,
        })
    }
}

/// What is written after a name: ` #2` from 2 up, ` x3` from 1 up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Mark {
    pub number: u32,
    pub shown: u64,
}

impl Mark {
    pub fn is_empty(&self) -> bool {
        self.number < 2 && self.shown == 0
    }
}

/// What the written things of one user are; a thing is a row of these.
#[derive(Default)]
pub struct Things {
    pub rows: Vec<u32>,
    pub slots: Vec<Slot>,
    /// Empty if nothing has a mark.
    pub marks: Vec<Mark>,
}

impl Things {
    pub fn clear(&mut self) {
        self.rows.clear();
        self.slots.clear();
        self.marks.clear();
    }

    /// Brings the slots near, all in one go, so that the processor waits for many of them at once.
    pub fn fetch(&mut self, entries: &Entries<'_>) {
        self.slots.clear();
        self.slots.reserve(self.rows.len());
        for &row in &self.rows {
            self.slots.push(*entries.slot(row));
        }
    }

    /// The entry and the mark with which a thing, or a category, of so many events is written.
    pub fn marked(&self, is_thing: bool, row: u32, shown: u64) -> (u32, Mark) {
        if !is_thing {
            return (row, Mark { number: 0, shown });
        }
        let number = self.marks.get(row as usize).map_or(0, |mark| mark.number);
        (self.rows[row as usize], Mark { number, shown })
    }

    fn mark(&self, thing: u32) -> Option<Mark> {
        let mark = *self.marks.get(thing as usize)?;
        (!mark.is_empty()).then_some(mark)
    }
}

/// The two marks as pieces of their own; the last one has the end.
fn marks(mark: Mark, end: End) -> (String, String) {
    let number = if mark.number > 1 {
        format!(" #{}", mark.number)
    } else {
        String::new()
    };
    match mark.shown {
        0 => (number + end.text(), String::new()),
        shown => (number, format!(" x{shown}{}", end.text())),
    }
}

/// Exact tokens of all lines.
pub fn tokens(lines: &Lines, things: &Things, pieces: &mut Pieces<'_>, row_ids: bool) -> u64 {
    let mut total = 0;
    for (line, (groups, written)) in lines.iter().enumerate() {
        total += if row_ids { of_row_id(line, pieces) } else { 0 };
        let spaced = row_ids || (line == 0 && pieces.prefixes);
        for (place, &group) in groups.iter().enumerate() {
            total += pieces
                .label(group)
                .count(spaced || place > 0, place + 1 < groups.len());
        }
        let end = if line + 1 == lines.len() {
            End::Text
        } else {
            End::Line
        };
        total += u64::from(pieces.bar) + of_things(written, end, things, pieces);
    }
    total
}

/// Tokens of what a line begins with where lines have numbers.
pub fn of_row_id(line: usize, pieces: &mut Pieces<'_>) -> u64 {
    let before = if line == 0 && pieces.prefixes {
        " "
    } else {
        ""
    };
    u64::from(pieces.count(&format!("{before}r{}", line + 1)))
}

#[inline]
fn of_things(written: &[u32], end: End, things: &Things, pieces: &mut Pieces<'_>) -> u64 {
    if !things.marks.is_empty() {
        let of = |(place, &thing): (usize, &u32)| {
            let end = if place + 1 < written.len() {
                End::Comma
            } else {
                end
            };
            of_marked(thing, end, things, pieces)
        };
        return written.iter().enumerate().map(of).sum();
    }
    let slot = |&thing: &u32| &things.slots[thing as usize];
    let sum: u64 = written
        .iter()
        .map(|thing| u64::from(slot(thing).comma))
        .sum();
    match written.last().map(slot) {
        Some(last) => sum - u64::from(last.comma) + u64::from(end.tokens(last)),
        None => sum,
    }
}

/// Tokens of a thing with its marks and a comma.
pub fn cost(thing: u32, things: &Things, pieces: &mut Pieces<'_>) -> u64 {
    of_marked(thing, End::Comma, things, pieces)
}

fn of_marked(thing: u32, end: End, things: &Things, pieces: &mut Pieces<'_>) -> u64 {
    let slot = &things.slots[thing as usize];
    of_slot(slot, things.mark(thing), end, pieces)
}

#[inline]
fn of_slot(slot: &Slot, mark: Option<Mark>, end: End, pieces: &mut Pieces<'_>) -> u64 {
    let Some(mark) = mark else {
        return u64::from(end.tokens(slot));
    };
    u64::from(u32::from(slot.text) + pieces.of_mark(mark)[end as usize])
}

/// Tokens of marks before a comma, before a line break, and as the end of a text.
pub fn of_mark(mark: Mark, mut count: impl FnMut(&str) -> u32) -> [u32; 3] {
    [End::Comma, End::Line, End::Text].map(|end| {
        let (number, shown) = marks(mark, end);
        let texts = [number, shown];
        let written = texts.iter().filter(|text| !text.is_empty());
        written.map(|text| count(text)).sum()
    })
}

/// Tokens of a thing before a comma, before a line break, and as the end of a text.
pub fn weigh(slot: &Slot, mark: Mark, pieces: &mut Pieces<'_>) -> [u64; 3] {
    let mark = (!mark.is_empty()).then_some(mark);
    [End::Comma, End::Line, End::Text].map(|end| of_slot(slot, mark, end, pieces))
}

/// The whole text of many users.
#[derive(Default)]
pub struct Buffer {
    bytes: Spare<u8>,
}

impl Buffer {
    pub fn with_room(bytes: usize) -> Self {
        Self {
            bytes: Spare::with_room(bytes + WIDE),
        }
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes back what was written after the first bytes.
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
    }

    pub fn since(&self, start: usize) -> &[u8] {
        &self.bytes[start..]
    }

    pub fn into_bytes(mut self) -> Spare<u8> {
        // Room that no text came for, after users with longer ones.
        if self.bytes.capacity() > self.bytes.len() / 2 * 3 {
            self.bytes.shrink_to_fit();
        }
        self.bytes
    }

    /// Makes room for so many bytes and a short text after them.
    #[inline]
    fn reserve(&mut self, more: usize) {
        if self.bytes.capacity() - self.bytes.len() < more + WIDE {
            self.grow(more + WIDE);
        }
    }

    /// Makes room for a long text at once. What is there so far moves to new memory, because growing the old one would
    /// copy its empty end, too, and leave a hole of as many bytes: of a giant's text twice its length.
    fn expect(&mut self, more: usize) {
        if self.bytes.capacity() - self.bytes.len() < more + WIDE {
            let mut bytes = Spare::with_room(self.bytes.len() + more + WIDE);
            bytes.extend_from_slice(&self.bytes);
            self.bytes = bytes;
        }
    }

    #[cold]
    fn grow(&mut self, more: usize) {
        let quarter = self.bytes.len() / 4;
        self.bytes.reserve_exact(more + quarter);
    }

    /// Appends a short text: all 48 bytes, which is three instructions; what is too much is taken back.
    #[inline]
    fn short(&mut self, from: &[u8; WIDE], len: usize) {
        let end = self.bytes.len() + len;
        self.bytes.extend_from_slice(from);
        self.bytes.truncate(end);
    }

    /// Appends a piece of a buffer that has `WIDE` bytes to spare.
    #[inline]
    fn copy(&mut self, from: &[u8], start: usize, len: usize) {
        match from[start..].first_chunk() {
            Some(wide) if len <= WIDE => self.short(wide, len),
            _ => self.bytes.extend_from_slice(&from[start..start + len]),
        }
    }

    #[inline]
    fn push(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// Takes the last byte back.
    #[inline]
    fn pop(&mut self) {
        self.bytes.pop();
    }

    fn append(&mut self, text: &[u8]) {
        self.reserve(text.len());
        self.bytes.extend_from_slice(text);
    }

    /// Appends the text of a thing.
    #[inline]
    fn name(&mut self, thing: u32, things: &Things, entries: &Entries<'_>) {
        let slot = &things.slots[thing as usize];
        match slot.short() {
            Some(head) => self.short(head, slot.len as usize),
            None => self.append(entries.text(things.rows[thing as usize])),
        }
    }
}

/// Things whose text is long enough to ask for its memory at once.
const MANY: usize = 1 << 15;

/// Writes all lines and gives the text's exact tokens, if counts of pieces add up.
pub fn text(
    lines: &Lines,
    things: &Things,
    entries: &Entries<'_>,
    pieces: &mut Pieces<'_>,
    row_ids: bool,
    out: &mut Buffer,
) -> u64 {
    if things.slots.len() > MANY {
        let names: usize = things
            .slots
            .iter()
            .map(|slot| usize::from(slot.len) + 1)
            .sum();
        let labels = lines
            .groups
            .iter()
            .map(|&group| pieces.label(group).len as usize + 3);
        out.expect(names + labels.sum::<usize>());
    }
    let mut total = 0;
    for (line, (groups, written)) in lines.iter().enumerate() {
        if row_ids {
            total += of_row_id(line, pieces);
            out.append(format!("r{}", line + 1).as_bytes());
        }
        let spaced = row_ids || (line == 0 && pieces.prefixes);
        for (place, &group) in groups.iter().enumerate() {
            let label = pieces.label(group);
            if pieces.counting {
                total += label.count(spaced || place > 0, place + 1 < groups.len());
            }
            let (start, len) = (label.start as usize, label.len as usize);
            let skip = usize::from(!row_ids && place == 0);
            out.reserve(len + 3);
            out.copy(&pieces.bytes, start + skip, len - skip);
            out.push(b',');
        }
        // The last comma gives way to the bar.
        out.pop();
        out.push(b' ');
        out.push(b'|');
        let end = if line + 1 == lines.len() {
            End::Text
        } else {
            End::Line
        };
        if pieces.counting {
            total += u64::from(pieces.bar) + of_things(written, end, things, pieces);
        }
        if things.marks.is_empty() {
            out.reserve(written.len() * (WIDE + 1));
            for &thing in written {
                out.name(thing, things, entries);
                out.reserve(written.len() * (WIDE + 1));
                out.push(b',');
            }
        } else {
            for &thing in written {
                out.reserve(WIDE);
                out.name(thing, things, entries);
                if let Some(mark) = things.mark(thing) {
                    let (number, shown) = marks(mark, End::Text);
                    out.append(number.as_bytes());
                    out.append(shown.as_bytes());
                }
                out.append(b",");
            }
        }
        out.pop();
        if line + 1 < lines.len() {
            out.push(b'\n');
        }
    }
    total
}
