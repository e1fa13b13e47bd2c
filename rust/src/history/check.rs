//! What a log must be before a kernel indexes into it: every array is judged here, so that no panic is left.

use super::{Entries, Log};
use crate::error::Error;

pub(super) fn check(
    log: &Log<'_>,
    entries: &Entries<'_>,
    behaviors: &[String],
) -> Result<(), Error> {
    let events = log.entries.len();
    for (right, right_len) in [
        ("days", log.days.len()),
        ("times", log.times.len()),
        ("positions", log.positions.len()),
        ("behaviors", log.behaviors.len()),
    ] {
        if right_len != events {
            return Err(Error::Length {
                left: "entries",
                left_len: events,
                right,
                right_len,
            });
        }
    }
    offsets("offsets", log.offsets, events)?;
    offsets("entry offsets", entries.offsets, entries.bytes.len())?;
    for (right, right_len) in [
        ("same", entries.same.len()),
        ("categories", entries.categories.len()),
    ] {
        if right_len != entries.len() {
            return Err(Error::Length {
                left: "entry texts",
                left_len: entries.len(),
                right,
                right_len,
            });
        }
    }
    if let Some(position) = entries
        .offsets
        .iter()
        .position(|&offset| !entries.bytes.is_char_boundary(offset as usize))
    {
        return Err(Error::Value {
            argument: "entry offsets",
            expected: "at the beginning of a character".to_owned(),
            came: entries.offsets[position].to_string(),
            position,
        });
    }
    codes("entries", log.entries, 0, entries.len())?;
    codes("behaviors", log.behaviors, 0, behaviors.len())?;
    codes("categories", entries.categories, -1, entries.len())
}

pub(super) fn offsets(argument: &'static str, offsets: &[i64], end: usize) -> Result<(), Error> {
    let wrong = |position: usize, came: String| Error::Value {
        argument,
        expected: format!("ascending from 0 to {end}"),
        came,
        position,
    };
    let (Some(&first), Some(&last)) = (offsets.first(), offsets.last()) else {
        return Err(wrong(0, "missing".to_owned()));
    };
    if first != 0 {
        return Err(wrong(0, first.to_string()));
    }
    if let Some(position) = offsets.windows(2).position(|pair| pair[0] > pair[1]) {
        return Err(wrong(position + 1, offsets[position + 1].to_string()));
    }
    if last != end as i64 {
        return Err(wrong(offsets.len() - 1, last.to_string()));
    }
    Ok(())
}

fn codes(argument: &'static str, codes: &[i32], least: i32, count: usize) -> Result<(), Error> {
    match codes
        .iter()
        .position(|&code| code < least || i64::from(code) >= count as i64)
    {
        None => Ok(()),
        Some(position) => Err(Error::Value {
            argument,
            expected: format!("a code from {least} to {}", count as i64 - 1),
            came: codes[position].to_string(),
            position,
        }),
    }
}
