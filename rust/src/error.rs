//! Everything that can go wrong inside a kernel, each case with the numbers that explain it.

use std::fmt;

/// The one error type of the core. `py.rs` maps each case to a class of `recgpt.errors`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Two arrays that describe the same rows have different lengths.
    Length {
        left: &'static str,
        left_len: usize,
        right: &'static str,
        right_len: usize,
    },
    /// A value is outside the range that the argument accepts.
    Value {
        argument: &'static str,
        expected: String,
        came: String,
        position: usize,
    },
    /// A timestamp that cannot be one.
    Moment {
        came: i64,
        expected: &'static str,
        position: usize,
    },
    /// A vocabulary, merge list or pre-tokenizer cannot make a tokenizer.
    Tokenizer { message: String },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length {
                left,
                left_len,
                right,
                right_len,
            } => write!(
                f,
                "`{left}` has {left_len} rows but `{right}` has {right_len}; they must be equal"
            ),
            Self::Value {
                argument,
                expected,
                came,
                position,
            } => write!(
                f,
                "`{argument}` must be {expected}, but row {position} is {came}"
            ),
            Self::Moment {
                came,
                expected,
                position,
            } => write!(
                f,
                "`kept.timestamp` must lie {expected}, but row {position} is {came} us since 1970; check the unit of \
                 the timestamps"
            ),
            Self::Tokenizer { message } => write!(f, "{message}"),
        }
    }
}

impl std::error::Error for Error {}
