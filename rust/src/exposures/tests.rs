//! Sums of exposures equal counting with sets; a refused batch changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

type Row = (i64, i32, i32, u32, u32, f64);

fn add(totals: &mut Totals, rows: &[Row]) -> Result<(), Error> {
    let user: Vec<_> = rows.iter().map(|row| row.0).collect();
    let item: Vec<_> = rows.iter().map(|row| row.1).collect();
    let day: Vec<_> = rows.iter().map(|row| row.2).collect();
    let click: Vec<_> = rows.iter().map(|row| row.3).collect();
    let cart: Vec<_> = rows.iter().map(|row| row.4).collect();
    let dwell: Vec<_> = rows.iter().map(|row| row.5).collect();
    totals.add(Batch {
        user: &user,
        item: &item,
        day: &day,
        click: &click,
        cart: &cart,
        dwell: &dwell,
    })
}

/// The same sums with sets, row by row.
fn plain(rows: &[Row], categories: &[i32]) -> Vec<(i64, Sum)> {
    let mut sums: BTreeMap<i64, Sum> = BTreeMap::new();
    let (mut shown, mut clicked, mut days) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for &(user, item, day, click, cart, dwell) in rows {
        let sum = sums.entry(user).or_default();
        sum.exposures += 1;
        sum.clicked += u64::from(click > 0);
        sum.clicks += u64::from(click);
        sum.carts += u64::from(cart);
        sum.dwell += dwell;
        let category = usize::try_from(item).map_or(-1, |item| categories[item]);
        sum.shown_categories += u32::from(category >= 0 && shown.insert((user, category)));
        if click > 0 {
            sum.clicked_categories += u32::from(category >= 0 && clicked.insert((user, category)));
            sum.click_days += u32::from(days.insert((user, day)));
        }
    }
    sums.into_iter().collect()
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let ids = prop_oneof![0..9_i64, Just(i64::MAX), Just(-1), any::<i64>()];
    let row = (ids, -1..5_i32, -3..3_i32, 0..3_u32, 0..3_u32, 0.0..9.0);
    prop::collection::vec(row, 0..300)
}

/// One slot a user, several, and so many numbers that only what was met has a slot.
fn categories() -> impl Strategy<Value = Vec<i32>> {
    prop_oneof![
        Just(vec![3, 0, 3, -1, 1]),
        Just(vec![511, 64, 63, -1, 0]),
        Just(vec![512, 0, 64, -1, 0]),
    ]
}

proptest! {
    #[test]
    fn sums_equal_counting_with_sets(
        rows in rows(), cut in 0..300_usize, threads in 1..5_usize, categories in categories(),
    ) {
        let rows: Vec<_> = rows.into_iter().filter(|row| row.0 != i64::MIN).collect();
        let mut totals = Totals::new(&categories, threads);
        let (first, second) = rows.split_at(cut.min(rows.len()));
        add(&mut totals, first).unwrap();
        add(&mut totals, second).unwrap();
        prop_assert_eq!(totals.users(), plain(&rows, &categories));
        let items = totals.items();
        for (row, sum) in items.iter().enumerate() {
            let own = if row == 5 { -1 } else { row as i32 };
            let seen = rows.iter().filter(|row| row.1 == own);
            prop_assert_eq!(sum.exposures, seen.clone().count() as u64);
            prop_assert_eq!(sum.clicked, seen.clone().filter(|row| row.3 > 0).count() as u64);
            prop_assert_eq!(sum.clicks, seen.map(|row| u64::from(row.3)).sum::<u64>());
        }
    }
}

#[test]
fn many_users_fill_and_grow_the_tables() {
    let rows: Vec<Row> = (0..40_000)
        .map(|n| (n % 20_000, (n % 3) as i32, 0, 1, 0, 0.5))
        .collect();
    let mut totals = Totals::new(&[0, 1, 2], 2);
    add(&mut totals, &rows).unwrap();
    assert_eq!(totals.users(), plain(&rows, &[0, 1, 2]));
    assert!(totals.bytes() < 20_000 * 300);
}

#[test]
fn a_refused_batch_changes_nothing() {
    let mut totals = Totals::new(&[0], 2);
    add(&mut totals, &[(1, 0, 0, 1, 0, 1.0)]).unwrap();
    let before = totals.users();
    for (wrong, message) in [
        (
            (1, 1, 0, 0, 0, 0.0),
            "`item` must be a catalogue row below 1 or -1, but row 1 is 1",
        ),
        (
            (1, -2, 0, 0, 0, 0.0),
            "`item` must be a catalogue row below 1 or -1, but row 1 is -2",
        ),
        (
            (1, 0, 0, 0, 0, f64::NAN),
            "`dwell` must be seconds, 0 or more, but row 1 is NaN",
        ),
        (
            (1, 0, 0, 0, 0, -1.0),
            "`dwell` must be seconds, 0 or more, but row 1 is -1",
        ),
        (
            (i64::MIN, 0, 0, 0, 0, 0.0),
            "`user` must be above -2^63, but row 1 is -9223372036854775808",
        ),
    ] {
        let error = add(&mut totals, &[(2, 0, 0, 1, 0, 1.0), wrong]).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(totals.users(), before);
    }
}
