//! Lines to text, and lines to an exact token count without the text.
//!
//! Counts are added piece by piece. Cutting before a space that stands between two other characters, and after a line
//! break that a digit or letter follows, is exact for every pre-tokenizer that `tokenizer.rs` accepts: none of their
//! patterns holds a space anywhere but at its beginning, nor goes on after a line break. `Tokens::new` checks that on
//! the tokenizer at hand; where it fails, whole texts are counted instead.

use ahash::AHashMap;
use rayon::prelude::*;

use super::layout::{Line, Written};
use super::{Entries, Options};
use crate::tokenizer::Tokenizer;

/// What follows an entry.
#[derive(Clone, Copy)]
enum End {
    Text,
    Comma,
    Break,
}

impl End {
    const TEXTS: [&'static str; 3] = ["", ",", "\n"];

    fn text(self) -> &'static str {
        Self::TEXTS[self as usize]
    }
}

/// Token counts of every entry in its three forms, made once for all users.
pub struct Tokens<'a> {
    tokenizer: &'a Tokenizer,
    entries: Vec<[u32; 3]>,
    additive: bool,
}

/// The pieces that one thread has already counted.
pub type Memo = AHashMap<String, u32>;

impl<'a> Tokens<'a> {
    pub fn new(tokenizer: &'a Tokenizer, entries: &Entries<'_>) -> Self {
        let additive = *tokenizer.additive.get_or_init(|| additive(tokenizer));
        let forms = (0..entries.len())
            .into_par_iter()
            .map_init(Memo::new, |memo, entry| {
                let text = entries.text(entry);
                let (head, last) = text.rsplit_once(' ').unwrap_or(("", text));
                let apart = |word: &str| !word.is_empty() && !word.contains(char::is_whitespace);
                if !additive
                    || text.starts_with(' ')
                    || !(head.is_empty() || head.split(' ').all(apart))
                    || !apart(last)
                {
                    return End::TEXTS.map(|end| tokenizer.count(&format!(" {text}{end}")) as u32);
                }
                // The words of a catalogue are few, so nearly all of them have been counted before.
                let mut count =
                    |word: &str, end: &str| counted(tokenizer, memo, &format!(" {word}{end}"));
                let before: u32 = head
                    .split(' ')
                    .filter(|word| !word.is_empty())
                    .map(|word| count(word, ""))
                    .sum();
                End::TEXTS.map(|end| before + count(last, end))
            })
            .collect();
        Self {
            tokenizer,
            entries: forms,
            additive,
        }
    }

    /// Exact tokens of the text that `text` writes for these lines.
    pub fn of_lines(&self, lines: &[Line], words: &Words<'_>, memo: &mut Memo) -> u64 {
        if !self.additive {
            return self.tokenizer.count(&text(lines, words)) as u64;
        }
        let mut sum = Sum {
            tokens: self,
            memo,
            total: 0,
        };
        emit(lines, words, &mut sum);
        sum.total
    }

    /// Exact tokens of one line an event, `date (behavior) | entry`, joined by line breaks.
    pub fn of_raw<'b>(
        &self,
        events: impl ExactSizeIterator<Item = (&'b str, &'b str, usize)>,
        entries: &Entries<'_>,
        memo: &mut Memo,
    ) -> u64 {
        let last = events.len().saturating_sub(1);
        let mut whole = String::new();
        let mut sum = Sum {
            tokens: self,
            memo,
            total: 0,
        };
        let mut context = String::new();
        for (row, (date, behavior, entry)) in events.enumerate() {
            let end = if row == last { End::Text } else { End::Break };
            context.clear();
            context.extend([date, " (", behavior, ") |"]);
            if self.additive {
                sum.piece(&context);
                sum.entry(entry, entries, end);
            } else {
                whole.extend([context.as_str(), " ", entries.text(entry), end.text()]);
            }
        }
        if self.additive {
            sum.total
        } else {
            self.tokenizer.count(&whole) as u64
        }
    }
}

fn counted(tokenizer: &Tokenizer, memo: &mut Memo, text: &str) -> u32 {
    memo.get(text).copied().unwrap_or_else(|| {
        let count = tokenizer.count(text) as u32;
        memo.insert(text.to_owned(), count);
        count
    })
}

/// Whether counts of pieces add up to the count of the whole, tried on the seams that histories have.
fn additive(tokenizer: &Tokenizer) -> bool {
    let left = [
        "r12", "17-12-03", "undated", " (cart)", " (cart),", " |", " Tea,", " 2%", " a)",
        " \"tea\"", " é", " 茶",
    ];
    let right = [
        " 17-11", " (cart", " cart)", " |", " Tea", " 2%", " (a", " \"tea", " -", " #2", " x3",
        " é", " 茶",
    ];
    let count = |text: &str| tokenizer.count(text);
    let spaces = left
        .iter()
        .flat_map(|left| right.iter().map(move |right| (*left, *right)));
    let breaks = left
        .iter()
        .flat_map(|left| ["17-11", "undated", "r2"].map(move |right| (format!("{left}\n"), right)));
    spaces
        .into_iter()
        .all(|(left, right)| count(&format!("{left}{right}")) == count(left) + count(right))
        && breaks
            .into_iter()
            .all(|(left, right)| count(&format!("{left}{right}")) == count(&left) + count(right))
}

/// What the numbers of one user's lines mean.
pub struct Words<'a> {
    pub entries: &'a Entries<'a>,
    pub behaviors: &'a [String],
    pub options: &'a Options,
    /// Row among all entries of each of the user's entries.
    pub local: &'a [u32],
    /// ` #n` of each of the user's entries; 0 or 1 writes none.
    pub numbers: &'a [u32],
}

trait Out {
    /// A piece that begins a line or begins with a space, and ends in neither.
    fn piece(&mut self, text: &str);
    fn entry(&mut self, entry: usize, entries: &Entries<'_>, end: End);
}

struct Text(String);

impl Out for Text {
    fn piece(&mut self, text: &str) {
        self.0.push_str(text);
    }

    fn entry(&mut self, entry: usize, entries: &Entries<'_>, end: End) {
        self.0.extend([" ", entries.text(entry), end.text()]);
    }
}

struct Sum<'a, 'b> {
    tokens: &'a Tokens<'b>,
    memo: &'a mut Memo,
    total: u64,
}

impl Out for Sum<'_, '_> {
    fn piece(&mut self, text: &str) {
        self.total += u64::from(counted(self.tokens.tokenizer, self.memo, text));
    }

    fn entry(&mut self, entry: usize, _: &Entries<'_>, end: End) {
        self.total += u64::from(self.tokens.entries[entry][end as usize]);
    }
}

pub fn text(lines: &[Line], words: &Words<'_>) -> String {
    let mut out = Text(String::new());
    emit(lines, words, &mut out);
    out.0
}

fn emit(lines: &[Line], words: &Words<'_>, out: &mut impl Out) {
    let mut piece = String::new();
    for (number, line) in lines.iter().enumerate() {
        let mut gap = "";
        if words.options.row_ids {
            out.piece(&format!("r{}", number + 1));
            gap = " ";
        }
        let mut buckets = line
            .contexts
            .chunk_by(|left, right| left.0 == right.0)
            .peekable();
        while let Some(contexts) = buckets.next() {
            out.piece(&format!(
                "{gap}{}",
                contexts[0].0.label(words.options.long_labels)
            ));
            gap = " ";
            for (position, context) in contexts.iter().enumerate() {
                piece.clear();
                piece.push_str(if position == 0 { " (" } else { " " });
                piece.push_str(&words.behaviors[context.1 as usize]);
                piece.push_str(
                    match (position + 1 == contexts.len(), buckets.peek().is_some()) {
                        (false, _) => ",",
                        (true, true) => "),",
                        (true, false) => ")",
                    },
                );
                out.piece(&piece);
            }
        }
        out.piece(" |");
        let line_end = if number + 1 == lines.len() {
            End::Text
        } else {
            End::Break
        };
        for (position, written) in line.written.iter().enumerate() {
            let end = if position + 1 == line.written.len() {
                line_end
            } else {
                End::Comma
            };
            emit_written(*written, words, end, out);
        }
    }
}

fn emit_written(written: Written, words: &Words<'_>, end: End, out: &mut impl Out) {
    let (entry, number) = if written.is_entry {
        (
            words.local[written.index as usize],
            words.numbers[written.index as usize],
        )
    } else {
        (written.index, 0)
    };
    let mut marks = Vec::with_capacity(2);
    if number > 1 {
        marks.push(format!(" #{number}"));
    }
    if written.shown > 0 {
        marks.push(format!(" x{}", written.shown));
    }
    match marks.last_mut() {
        None => out.entry(entry as usize, words.entries, end),
        Some(last) => {
            last.push_str(end.text());
            out.entry(entry as usize, words.entries, End::Text);
            for mark in &marks {
                out.piece(mark);
            }
        }
    }
}
