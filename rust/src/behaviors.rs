//! Stage 2: which events show an intent (paper section 2.1.1).

use crate::error::Error;

/// The code of an event that is left out.
pub const OUT: i32 = -1;

/// A condition on a numeric column for the events of one behavior.
pub struct Rule<'a> {
    /// The behavior that the rule looks at.
    pub behavior: i32,
    /// One value an event, NaN where it is missing; a missing value never holds.
    pub values: &'a [f64],
    /// Holds when `above < value < below`.
    pub above: f64,
    pub below: f64,
    /// What an event that holds counts as; `None`: an event that does not hold is left out.
    pub becomes: Option<i32>,
}

/// Gives each event the behavior it counts as, or `OUT`.
///
/// Rules look at the behavior the log gave. The first renaming rule that holds wins; every other rule must hold.
pub fn keep(behaviors: &[i32], reliable: &[bool], rules: &[Rule<'_>]) -> Result<Vec<i32>, Error> {
    for rule in rules {
        if rule.values.len() != behaviors.len() {
            return Err(Error::Length {
                left: "behaviors",
                left_len: behaviors.len(),
                right: "rule values",
                right_len: rule.values.len(),
            });
        }
    }
    let known = |code: i32| usize::try_from(code).is_ok_and(|code| code < reliable.len());
    let renamed = rules.iter().filter_map(|rule| rule.becomes);
    if let Some((position, code)) = behaviors
        .iter()
        .copied()
        .chain(renamed)
        .enumerate()
        .find(|(_, code)| !known(*code))
    {
        return Err(Error::Value {
            argument: "behaviors",
            expected: format!("a code from 0 to {}", reliable.len() as i64 - 1),
            came: code.to_string(),
            position,
        });
    }
    Ok(behaviors
        .iter()
        .enumerate()
        .map(|(row, &code)| {
            let mut counts_as = code;
            let mut refused = false;
            for rule in rules.iter().filter(|rule| rule.behavior == code) {
                let holds = rule.values[row] > rule.above && rule.values[row] < rule.below;
                match rule.becomes {
                    Some(other) if holds && counts_as == code => counts_as = other,
                    None if !holds => refused = true,
                    _ => {}
                }
            }
            if refused || !reliable[counts_as as usize] {
                OUT
            } else {
                counts_as
            }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_clicks_are_left_out_and_long_ones_count_as_views() {
        let (click, view) = (0, 1);
        let seconds = [2.0, 9.0, f64::NAN, 3.0, 8.0];
        let rules = [
            Rule {
                behavior: click,
                values: &seconds,
                above: 5.0,
                below: f64::INFINITY,
                becomes: Some(view),
            },
            Rule {
                behavior: view,
                values: &seconds,
                above: 5.0,
                below: f64::INFINITY,
                becomes: None,
            },
        ];
        let kept = keep(&[click, click, click, view, view], &[false, true], &rules).unwrap();
        assert_eq!(kept, [OUT, view, OUT, OUT, view]);
    }

    #[test]
    fn an_unknown_code_is_named() {
        let error = keep(&[0, 7], &[true], &[]).unwrap_err().to_string();
        assert!(error.contains("row 1 is 7"), "{error}");
    }
}
