//! User-defined tokens: texts that are taken out as they are, before anything else is done to a text.

use std::cmp::Reverse;

/// The type that GGUF files give to such tokens.
pub const USER_DEFINED: i32 = 4;

pub struct Defined {
    /// Text and id, longest first.
    pieces: Vec<(String, u32)>,
    /// Whether white space after one of them is left out.
    strip: bool,
}

/// A stretch of text that no user-defined token crosses, or such a token.
#[derive(Debug, PartialEq)]
pub enum Part<'a> {
    Text(&'a str),
    Piece(u32),
}

impl Defined {
    pub fn new(pieces: impl IntoIterator<Item = (String, u32)>, strip: bool) -> Self {
        let mut pieces: Vec<_> = pieces
            .into_iter()
            .filter(|(text, _)| !text.is_empty())
            .collect();
        pieces.sort_by_key(|(text, _)| Reverse(text.len()));
        Self { pieces, strip }
    }

    /// Takes the pieces out, longest first, as llama.cpp does.
    pub fn parts<'a>(&self, text: &'a str) -> Vec<Part<'a>> {
        if self.pieces.is_empty() || text.is_empty() {
            return Vec::from_iter((!text.is_empty()).then_some(Part::Text(text)));
        }
        let mut seen = [false; 256];
        for byte in text.bytes() {
            seen[byte as usize] = true;
        }
        let mut parts = vec![Part::Text(text)];
        let possible = |piece: &str| seen[piece.as_bytes()[0] as usize] && text.contains(piece);
        for (piece, id) in self.pieces.iter().filter(|(piece, _)| possible(piece)) {
            parts = parts
                .into_iter()
                .flat_map(|part| match part {
                    Part::Text(text) => self.cut(text, piece, *id),
                    found @ Part::Piece(_) => vec![found],
                })
                .collect();
        }
        parts
    }

    fn cut<'a>(&self, mut text: &'a str, piece: &str, id: u32) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        while let Some((before, after)) = text.split_once(piece) {
            if !before.is_empty() {
                parts.push(Part::Text(before));
            }
            parts.push(Part::Piece(id));
            text = if self.strip {
                after.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r'])
            } else {
                after
            };
        }
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        parts
    }

    /// Whether cutting a history before a space or after a line break is sure to leave them whole, and what follows them
    /// as it was; `prefix`: a space goes before text after one of them, wherever the next piece of a history begins.
    pub fn adds_up(&self, prefix: bool) -> bool {
        // The bar of a history stands between two spaces, so such a piece is never found in one.
        let absent = |piece: &str| piece.contains("<|") || piece.contains("|>");
        self.pieces
            .iter()
            .all(|(piece, _)| absent(piece) || !(prefix || self.strip || follows(piece, ' ')))
    }
}

/// Whether a seam of histories lies within a piece: before a space, or after a line break.
pub fn follows(piece: &str, space: char) -> bool {
    piece
        .chars()
        .zip(piece.chars().skip(1))
        .any(|(left, right)| (right == space && left != space) || (left == '\n' && right != '\n'))
}
