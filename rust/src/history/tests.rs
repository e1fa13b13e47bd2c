//! Tests of the whole kernel: round trips, budgets, order.

use proptest::prelude::*;

use super::check::offsets;
use super::*;
use crate::calendar::{day_number, UNDATED};

const TODAY: (i64, u32, u32) = (2017, 12, 20);

fn options() -> Options {
    Options {
        today: day_number(TODAY.0, TODAY.1, TODAY.2),
        budget: None,
        layout: None,
        counts: false,
        long_labels: false,
        stable: false,
        row_ids: false,
        threads: 1,
    }
}

/// Entries: two items called Tea, Milk, a query, `-`, and the categories Drinks and Dairy.
fn run(events: &[(i32, i32, i32)], options: &Options) -> History {
    let texts = ["Tea", "Tea", "Milk", "\"oat\"", "-", "Drinks", "Dairy"];
    let bytes: String = texts.concat();
    let mut offsets = vec![0i64];
    for text in texts {
        offsets.push(offsets[offsets.len() - 1] + text.len() as i64);
    }
    let entries = Entries {
        offsets: &offsets,
        bytes: &bytes,
        same: &[0, 0, 1, 2, 3, 4, 5],
        categories: &[5, 5, 6, -1, -1, -1, -1],
    };
    let days: Vec<i32> = events.iter().map(|event| event.0).collect();
    let times: Vec<i64> = days
        .iter()
        .map(|&day| {
            if day == UNDATED {
                i64::MIN
            } else {
                i64::from(day) * 86_400_000_000
            }
        })
        .collect();
    let log = Log {
        offsets: &[0, events.len() as i64],
        days: &days,
        times: &times,
        positions: &vec![i64::MIN; events.len()],
        behaviors: &events.iter().map(|event| event.1).collect::<Vec<_>>(),
        entries: &events.iter().map(|event| event.2).collect::<Vec<_>>(),
    };
    let behaviors = ["purchase", "cart", "search", "other"].map(str::to_owned);
    compress(&log, &entries, &behaviors, &Tokenizer::bytes(), options)
        .unwrap()
        .remove(0)
}

#[test]
fn a_history_by_hand() {
    let today = options().today;
    let events = [
        (today - 1, 0, 0),
        (today - 1, 1, 0),
        (today - 40, 0, 2),
        (today - 40, 0, 1),
        (today - 3, 2, 3),
        (UNDATED, 0, 4),
    ];
    let item = run(
        &events,
        &Options {
            layout: Some(Layout::Item),
            row_ids: true,
            ..options()
        },
    );
    assert_eq!(
        item.text,
        "r1 undated (purchase) | -\nr2 17-11 (purchase) | Milk, Tea #2\nr3 17-12-17 (search) | \"oat\"\nr4 17-12-19 (purchase, cart) | Tea"
    );
    assert_eq!(item.tokens, item.text.len() as u64);
    assert_eq!(
        item.fate,
        Fate {
            full: 6,
            ..Fate::default()
        }
    );
}

#[test]
fn wrong_offsets_are_named() {
    let error = offsets("offsets", &[0, 5, 3], 3).unwrap_err().to_string();
    assert!(error.contains("row 2 is 3"), "{error}");
}

proptest! {
    #[test]
    fn no_budget_is_exceeded_and_more_room_never_shows_less(
        events in prop::collection::vec((0..900i32, 0..3i32, 0..5i32), 1..40),
        budget in 0..400u64,
        counts: bool,
        stable: bool,
        row_ids: bool,
    ) {
        let today = options().today;
        let events: Vec<_> = events.into_iter().map(|(age, behavior, entry)| (today - age, behavior, entry)).collect();
        let options = Options { budget: Some(budget), counts, stable, row_ids, ..options() };
        let tight = run(&events, &options);
        let roomy = run(&events, &Options { budget: Some(budget + 50), ..options });
        prop_assert!(tight.tokens <= budget);
        prop_assert_eq!(tight.tokens, tight.text.len() as u64);
        let Fate { full, coarsened, folded, dropped } = tight.fate;
        prop_assert_eq!(full + coarsened + folded + dropped, tight.events);
        prop_assert!(roomy.fate.dropped <= dropped);
        prop_assert!(roomy.fate.full >= full);
    }
}
