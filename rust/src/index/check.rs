//! The doors: no vector, offset or row number reaches a kernel before it was judged here.

use rayon::prelude::*;

use super::{Matrix, Ragged};
use crate::error::Error;

/// The largest finite half-precision number; values or norms beyond it become infinite in an f16 index.
pub const F16_MAX: f32 = 65504.0;

fn refuse<T>(
    argument: &'static str,
    expected: String,
    came: String,
    position: usize,
) -> Result<T, Error> {
    Err(Error::Value {
        argument,
        expected,
        came,
        position,
    })
}

impl Matrix<'_> {
    /// Refuse NaN, infinities and whatever half precision cannot hold; the first bad row is named.
    pub fn check(&self, argument: &'static str) -> Result<(), Error> {
        let bad = (0..self.rows()).into_par_iter().find_map_first(|row| {
            let values = self.row(row);
            // A NaN fails every comparison, so it is found by asking for the good case.
            let wild = values
                .iter()
                .position(|value| !matches!(value.abs(), 0.0..=F16_MAX));
            if let Some(column) = wild {
                return Some((row, format!("{} in column {column}", values[column])));
            }
            let norm = values
                .iter()
                .map(|value| f64::from(*value).powi(2))
                .sum::<f64>()
                .sqrt();
            (norm > f64::from(F16_MAX)).then(|| (row, format!("of norm {norm:.1}")))
        });
        bad.map_or(Ok(()), |(position, came)| {
            let expected = format!("finite, each value and each row's norm at most {F16_MAX}");
            refuse(argument, expected, came, position)
        })
    }
}

/// Refuse offsets that do not cut `end` things into `users` parts.
pub fn offsets(
    argument: &'static str,
    offsets: &[i64],
    users: usize,
    end: usize,
) -> Result<(), Error> {
    let expected = || {
        format!(
            "{} numbers that start at 0, never fall and end at {end}",
            users + 1
        )
    };
    if offsets.len() != users + 1 {
        return refuse(argument, expected(), "the end".to_owned(), offsets.len());
    }
    for (position, &offset) in offsets.iter().enumerate() {
        let before = if position == 0 {
            0
        } else {
            offsets[position - 1]
        };
        let wrong_end =
            (position == 0 && offset != 0) || (position == users && offset != end as i64);
        if offset < before || wrong_end {
            return refuse(argument, expected(), offset.to_string(), position);
        }
    }
    Ok(())
}

/// Refuse row numbers of items that do not exist.
pub fn item_rows(argument: &'static str, values: &[i64], rows: usize) -> Result<(), Error> {
    // As unsigned numbers negative ones are large, and a largest number is found many rows at a time.
    let wild = |&row: &i64| row as u64 >= rows as u64;
    if values.iter().fold(0, |most, &row| most.max(row as u64)) < rows as u64 {
        return Ok(());
    }
    values.iter().position(wild).map_or(Ok(()), |position| {
        let expected = format!("item rows from 0 to {rows}, {rows} not included");
        refuse(argument, expected, values[position].to_string(), position)
    })
}

/// Refuse an `exclude` that does not fit; give each user's rows, sorted.
pub fn excluded(
    exclude: Option<Ragged<'_>>,
    users: usize,
    rows: usize,
) -> Result<Vec<Vec<usize>>, Error> {
    let Some(exclude) = exclude else {
        return Ok(vec![Vec::new(); users]);
    };
    offsets(
        "exclude offsets",
        exclude.offsets,
        users,
        exclude.values.len(),
    )?;
    item_rows("exclude", exclude.values, rows)?;
    let sorted = exclude.offsets.windows(2).map(|pair| {
        let values = &exclude.values[pair[0] as usize..pair[1] as usize];
        let mut rows: Vec<usize> = values.iter().map(|&row| row as usize).collect();
        rows.sort_unstable();
        rows
    });
    Ok(sorted.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_is_refused_with_its_place() {
        let matrix = |values| Matrix { values, dim: 2 };
        let error = matrix(&[0.0, 1.0, 0.0, f32::NAN])
            .check("users")
            .unwrap_err();
        assert!(
            error.to_string().contains("row 1 is NaN in column 1"),
            "{error}"
        );
        let error = matrix(&[60000.0, 60000.0]).check("users").unwrap_err();
        assert!(error.to_string().contains("norm"), "{error}");
    }
}
