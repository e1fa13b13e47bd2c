//! No panic on any input: arrays, maps, clocks and switches that fit together only sometimes.

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::*;

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![
        8 => -2..12i64,
        1 => any::<i64>(),
        1 => prop::sample::select(vec![
            i64::MIN, i64::MIN + 1, i64::from(i32::MIN), i64::from(i32::MAX), i64::from(u32::MAX) - 1,
            i64::from(u32::MAX), 1 << 32, (1 << 32) + 1, i64::MAX - 1, i64::MAX,
        ]),
    ]
}

fn moment() -> impl Strategy<Value = i64> {
    prop_oneof![3 => number(), 3 => 0..1_600_000_000_000_000i64, 1 => 0..20_000i64 * 1_000_000]
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![12 => 0..12usize, 1 => any::<usize>(), 1 => prop::sample::select(vec![1 << 31, 1 << 40, usize::MAX])]
}

fn numbers(rows: usize) -> impl Strategy<Value = Numbers> {
    let rows = prop_oneof![15 => Just(rows..=rows), 1 => Just(0..=rows + 2)];
    rows.prop_flat_map(|rows| (prop::collection::vec(number(), rows), 0..7u8))
        .prop_map(|(values, width)| Numbers::new(values, width))
}

fn column(rows: usize) -> impl Strategy<Value = Column> {
    let valid = (
        prop::collection::vec(any::<u8>(), 0..12),
        prop_oneof![6 => 0..20usize, 1 => any::<usize>()],
    );
    (numbers(rows), prop::option::of(valid)).prop_map(|(values, valid)| Column { values, valid })
}

fn batch() -> impl Strategy<Value = Rows> {
    (0..40usize).prop_flat_map(|rows| {
        (
            numbers(rows),
            prop::collection::vec(moment(), rows),
            numbers(rows),
            column(rows),
            prop::option::of(column(rows)),
        )
            .prop_map(|(users, moments, behaviors, items, queries)| Rows {
                users,
                moments,
                behaviors,
                items,
                queries,
            })
    })
}

fn meaning() -> impl Strategy<Value = Meaning> {
    let base = prop_oneof![3 => Just(0i64), 1 => number()];
    let map = prop_oneof![
        3 => prop::collection::vec(-1..9i32, 0..14),
        1 => prop::collection::vec(any::<i32>(), 0..9),
    ];
    (base, prop::option::of(map), size()).prop_map(|(base, map, size)| Meaning { base, map, size })
}

fn texts() -> impl Strategy<Value = Texts> {
    let good = prop::collection::vec("[a-c ,|\"\n#x1-2é茶]{0,9}|item [0-9]{1,2}|\\PC{0,60}", 0..9)
        .prop_flat_map(|texts| {
            let rows = texts.len() as i32;
            prop::collection::vec(-1..rows.max(0), rows as usize).prop_map(move |categories| {
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                Texts::new(&texts, &categories)
            })
        });
    let bad = (
        prop::collection::vec(number(), 0..6),
        "\\PC{0,9}",
        prop::collection::vec(number().prop_map(|row| row as i32), 0..6),
    );
    prop_oneof![
        9 => good,
        1 => bad.prop_map(|(offsets, bytes, categories)| Texts { offsets, bytes, categories }),
    ]
}

fn any_call() -> impl Strategy<Value = Call> {
    let options = (
        prop_oneof![3 => Just(today()), 1 => any::<i32>()],
        prop::option::of(prop_oneof![4 => 0..300u64, 1 => any::<u64>()]),
        prop::option::of(0..Layout::ALL.len()),
        any::<(bool, bool, bool, bool)>(),
        prop_oneof![9 => 0..5usize, 1 => 1025..usize::MAX],
    )
        .prop_map(
            |(today, budget, layout, (counts, stable, row_ids, long_labels), threads)| Options {
                today,
                budget,
                layout: layout.map(|row| Layout::ALL[row]),
                counts,
                long_labels,
                stable,
                row_ids,
                threads,
                count: true,
            },
        );
    let clock = prop::option::of(prop_oneof![
        4 => (1_400_000_000_000_000..1_600_000_000_000_000i64, Just(0i64)),
        1 => (moment(), number()),
    ]);
    let days = prop_oneof![
        3 => Just(vec![(0i64, 0i64)]),
        2 => prop::collection::btree_map(0..40i64, -2..18_000i64, 0..6).prop_map(|days| days.into_iter().collect()),
        2 => prop::collection::vec((number(), number()), 0..5),
    ];
    let names = prop_oneof![
        6 => prop::collection::vec("[a-z]{1,5}|\\PC{0,9}", 1..9),
        1 => prop::collection::vec("[a-z]{1,5}|\\PC{0,9}", 0..40),
    ];
    let meanings = (meaning(), meaning(), meaning(), meaning());
    let log = (prop::collection::vec(batch(), 0..4), meanings, 0..20u32);
    (log, clock, days, (texts(), texts()), names, options).prop_map(
        |(
            (batches, (users, behaviors, items, queries), nothing),
            clock,
            days,
            (base, extra),
            names,
            options,
        )| Call {
            batches,
            users,
            behaviors,
            items,
            queries,
            nothing,
            clock,
            days,
            base,
            extra,
            names,
            options,
        },
    )
}

/// Brings most numbers into range, so that the inner parts are reached and not only the checks.
fn tame(mut call: Call) -> Call {
    let known = (call.base.categories.len() + call.extra.categories.len()).max(1);
    call.nothing %= known as u32;
    let names = call.names.len();
    let fit = |meaning: &mut Meaning, size: usize| {
        *meaning = Meaning {
            base: -2,
            map: Some((0..16).map(|code| code % size.max(1) as i32).collect()),
            size,
        };
    };
    fit(&mut call.users, 5);
    fit(&mut call.behaviors, names);
    fit(&mut call.items, known);
    fit(&mut call.queries, known);
    let now = call.clock.map_or(0, |(now, _)| now);
    for rows in &mut call.batches {
        for moment in &mut rows.moments {
            *moment = match call.clock {
                Some(_) => moment.rem_euclid(now.max(1).saturating_mul(2)),
                None => moment.rem_euclid(100),
            };
        }
        for numbers in [
            Some(&mut rows.users),
            Some(&mut rows.behaviors),
            Some(&mut rows.items.values),
            rows.queries.as_mut().map(|queries| &mut queries.values),
        ]
        .into_iter()
        .flatten()
        {
            numbers
                .i16
                .iter_mut()
                .for_each(|value| *value = value.rem_euclid(14));
            numbers.u16.iter_mut().for_each(|value| *value %= 14);
            numbers
                .i32
                .iter_mut()
                .for_each(|value| *value = value.rem_euclid(14));
            numbers.u32.iter_mut().for_each(|value| *value %= 14);
            numbers
                .i64
                .iter_mut()
                .for_each(|value| *value = value.rem_euclid(14));
            numbers
                .i8
                .iter_mut()
                .for_each(|value| *value = value.rem_euclid(14));
            numbers.u8.iter_mut().for_each(|value| *value %= 14);
        }
    }
    call
}

/// What any answer keeps, whatever it was asked.
fn judge(call: &Call, chunks: &[Chunk]) -> Result<(), TestCaseError> {
    for (_, text, tokens, receipt, _) in told(chunks) {
        prop_assert_eq!(tokens as usize, text.len(), "{:?}", text);
        prop_assert_eq!(receipt[3..].iter().sum::<i64>(), receipt[2]);
        prop_assert!(call
            .options
            .budget
            .is_none_or(|budget| u64::from(tokens) <= budget));
    }
    Ok(())
}

/// The same as numbers, where some entries or all may be called items.
fn judge_rows(call: &Call, items: usize) -> Result<(), TestCaseError> {
    let request = rows::Request {
        items,
        entries: call.base.offsets.len() + call.extra.offsets.len(),
        behaviors: call.names.len(),
        today: call.options.today,
        stable: call.options.stable,
        threads: call.options.threads,
    };
    let Ok((labels, chunks)) = rows::rows(&call.log(), call.clock(), &call.days, request) else {
        return Ok(());
    };
    for rows in chunks {
        let cells = rows.items.len();
        prop_assert_eq!((rows.buckets.len(), rows.behaviors.len()), (cells, cells));
        prop_assert_eq!(rows.offsets.len(), rows.users.len() + 1);
        prop_assert_eq!(rows.offsets.last().copied(), Some(cells as i64));
        prop_assert!(rows.offsets.is_sorted() && rows.users.is_sorted());
        prop_assert!(rows.items.iter().all(|&item| (item as usize) < items));
        prop_assert!(rows
            .buckets
            .iter()
            .all(|&bucket| (bucket as usize) < labels.len()));
        prop_assert!(rows.behaviors.iter().all(|&mask| mask > 0));
    }
    Ok(())
}

/// `RECGPT_CASES` makes a campaign of it.
pub fn cases() -> Config {
    let cases = std::env::var("RECGPT_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok());
    Config {
        cases: cases.unwrap_or(512),
        failure_persistence: None,
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_input_gives_an_answer_or_an_error(call in any_call(), items in 0..9usize) {
        judge_rows(&call, items)?;
        if let Ok(chunks) = call.run() {
            judge(&call, &chunks)?;
        }
    }

    #[test]
    fn odd_input_within_range_gives_an_answer_or_an_error(
        call in any_call().prop_map(tame),
        items in 0..9usize,
    ) {
        judge_rows(&call, items)?;
        if let Ok(chunks) = call.run() {
            judge(&call, &chunks)?;
        }
    }
}
