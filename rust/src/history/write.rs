//! Lines to text, and lines to an exact token count without the text.

use super::catalogue::{Entries, Entry, WIDE};
use super::pieces::{Label, Pieces};
use super::readings::Lines;

/// What follows the name of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Text,
    Comma,
    Line,
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
    fn tokens(self, entry: &Entry) -> u32 {
        match self {
            Self::Text => entry.text,
            Self::Comma => entry.comma,
            Self::Line => entry.line,
        }
    }
}

/// What is written after a name: ` #2` from 2 up, ` x3` from 1 up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    pub number: u32,
    pub shown: u64,
}

/// What the written things of one user are; a thing is a row of these.
#[derive(Default)]
pub struct Things {
    pub rows: Vec<u32>,
    pub entries: Vec<Entry>,
    /// Empty if nothing has a mark.
    pub marks: Vec<Mark>,
}

impl Things {
    pub fn clear(&mut self) {
        self.rows.clear();
        self.entries.clear();
        self.marks.clear();
    }

    fn mark(&self, thing: u32) -> Option<Mark> {
        let mark = *self.marks.get(thing as usize)?;
        (mark.number > 1 || mark.shown > 0).then_some(mark)
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

/// Exact tokens of the first `lines` lines as a text of their own.
pub fn tokens(lines: &Lines, count: usize, things: &Things, pieces: &mut Pieces<'_>, row_ids: bool) -> u64 {
    let mut total = 0;
    for (line, (groups, written)) in lines.iter().take(count).enumerate() {
        let end = if line + 1 == count { End::Text } else { End::Line };
        if row_ids {
            total += u64::from(pieces.count(&format!("r{}", line + 1)));
        }
        for (place, &group) in groups.iter().enumerate() {
            let inner = row_ids || place > 0;
            let comma = place + 1 < groups.len();
            total += u64::from(pieces.label(group).tokens[usize::from(inner)][usize::from(comma)]);
        }
        total += u64::from(pieces.bar);
        if things.marks.is_empty() {
            let mut sum = 0u64;
            for &thing in written {
                sum += u64::from(things.entries[thing as usize].comma);
            }
            if let Some(&last) = written.last() {
                let last = &things.entries[last as usize];
                sum = sum - u64::from(last.comma) + u64::from(end.tokens(last));
            }
            total += sum;
        } else {
            for (place, &thing) in written.iter().enumerate() {
                let end = if place + 1 < written.len() { End::Comma } else { end };
                total += u64::from(of_thing(thing, end, things, pieces));
            }
        }
    }
    total
}

fn of_thing(thing: u32, end: End, things: &Things, pieces: &mut Pieces<'_>) -> u32 {
    let entry = &things.entries[thing as usize];
    match things.mark(thing) {
        None => end.tokens(entry),
        Some(mark) => {
            let (number, shown) = marks(mark, end);
            entry.text + [number, shown].iter().filter(|text| !text.is_empty()).map(|text| pieces.count(text)).sum::<u32>()
        }
    }
}

/// Bytes with `WIDE` to spare, filled from the front.
#[derive(Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    len: usize,
}

impl Buffer {
    pub fn clear(&mut self) {
        self.len = 0;
    }

    pub fn text(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Makes room; what was written stays.
    fn reserve(&mut self, more: usize) {
        let wanted = self.len + more + WIDE;
        if self.bytes.len() < wanted {
            self.bytes.resize(wanted.next_power_of_two(), 0);
        }
    }

    /// Appends a piece of a buffer that has `WIDE` bytes to spare; room was made before.
    #[inline]
    fn copy(&mut self, from: &[u8], start: usize, len: usize) {
        if len <= WIDE {
            self.bytes[self.len..self.len + WIDE].copy_from_slice(&from[start..start + WIDE]);
        } else {
            self.bytes[self.len..self.len + len].copy_from_slice(&from[start..start + len]);
        }
        self.len += len;
    }

    #[inline]
    fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn append(&mut self, text: &str) {
        self.reserve(text.len());
        self.bytes[self.len..self.len + text.len()].copy_from_slice(text.as_bytes());
        self.len += text.len();
    }
}

/// Writes the first `count` lines as a text of their own.
pub fn text(
    lines: &Lines,
    count: usize,
    things: &Things,
    entries: &Entries<'_>,
    pieces: &mut Pieces<'_>,
    row_ids: bool,
    out: &mut Buffer,
) {
    for (line, (groups, written)) in lines.iter().take(count).enumerate() {
        if row_ids {
            out.append(&format!("r{}", line + 1));
        }
        for (place, &group) in groups.iter().enumerate() {
            let Label { start, len, .. } = pieces.label(group);
            let skip = usize::from(!row_ids && place == 0);
            out.reserve(len as usize + 3);
            out.copy(&pieces.bytes, start as usize + skip, len as usize - skip);
            out.push(b',');
        }
        // The last comma gives way to the bar.
        out.len -= 1;
        out.push(b' ');
        out.push(b'|');
        for &thing in written {
            let entry = &things.entries[thing as usize];
            out.reserve(entry.len as usize + 2);
            let bytes = entries.bytes(things.rows[thing as usize]);
            out.copy(bytes, entry.start as usize, entry.len as usize);
            if let Some(mark) = things.mark(thing) {
                let (number, shown) = marks(mark, End::Text);
                out.append(&number);
                out.append(&shown);
            }
            out.reserve(2);
            out.push(b',');
        }
        out.len -= 1;
        if line + 1 < count {
            out.push(b'\n');
        }
    }
}

