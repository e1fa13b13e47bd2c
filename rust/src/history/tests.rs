//! The whole kernel: a history by hand, promises on any log, and no panic on any input, however wrong.

use super::catalogue::Catalogue;
use super::columns::{Batch, Codes, Ints, Nullable, Valid};
use super::*;
use crate::calendar::{day_number, UNDATED};
use proptest::prelude::*;

mod any_input;
mod fewest_steps;

const DAY: i64 = 86_400;

fn today() -> i32 {
    day_number(2017, 12, 20)
}

fn options() -> Options {
    Options {
        today: today(),
        budget: None,
        layout: None,
        counts: false,
        long_labels: false,
        stable: false,
        row_ids: false,
        threads: 1,
        count: true,
    }
}

/// Numbers in one of the widths that the boundary takes.
#[derive(Debug, Clone, Default)]
struct Numbers {
    width: u8,
    i8: Vec<i8>,
    u8: Vec<u8>,
    i16: Vec<i16>,
    u16: Vec<u16>,
    i32: Vec<i32>,
    u32: Vec<u32>,
    i64: Vec<i64>,
}

impl Numbers {
    fn new(values: Vec<i64>, width: u8) -> Self {
        let mut numbers = Self {
            width,
            ..Self::default()
        };
        match width {
            0 => numbers.i8 = values.iter().map(|&value| value as i8).collect(),
            1 => numbers.u8 = values.iter().map(|&value| value as u8).collect(),
            2 => numbers.i16 = values.iter().map(|&value| value as i16).collect(),
            3 => numbers.u16 = values.iter().map(|&value| value as u16).collect(),
            4 => numbers.i32 = values.iter().map(|&value| value as i32).collect(),
            5 => numbers.u32 = values.iter().map(|&value| value as u32).collect(),
            _ => numbers.i64 = values,
        }
        numbers
    }

    fn view(&self) -> Ints<'_> {
        match self.width {
            0 => Ints::I8(&self.i8),
            1 => Ints::U8(&self.u8),
            2 => Ints::I16(&self.i16),
            3 => Ints::U16(&self.u16),
            4 => Ints::I32(&self.i32),
            5 => Ints::U32(&self.u32),
            _ => Ints::I64(&self.i64),
        }
    }
}

#[derive(Debug, Clone)]
struct Column {
    values: Numbers,
    valid: Option<(Vec<u8>, usize)>,
}

impl Column {
    fn view(&self) -> Nullable<'_> {
        Nullable {
            values: self.values.view(),
            valid: self.valid.as_ref().map(|(bits, offset)| Valid {
                bits,
                offset: *offset,
            }),
        }
    }
}

#[derive(Debug, Clone)]
struct Rows {
    users: Numbers,
    moments: Vec<i64>,
    behaviors: Numbers,
    items: Column,
    queries: Option<Column>,
}

#[derive(Debug, Clone)]
struct Meaning {
    base: i64,
    map: Option<Vec<i32>>,
    size: usize,
}

impl Meaning {
    fn plain(size: usize) -> Self {
        Self {
            base: 0,
            map: None,
            size,
        }
    }

    fn view(&self) -> Codes<'_> {
        Codes {
            base: self.base,
            map: self.map.as_deref(),
            size: self.size,
        }
    }
}

#[derive(Debug, Clone)]
struct Texts {
    offsets: Vec<i64>,
    bytes: String,
    categories: Vec<i32>,
}

impl Texts {
    fn new(texts: &[&str], categories: &[i32]) -> Self {
        let mut offsets = vec![0];
        for text in texts {
            offsets.push(offsets[offsets.len() - 1] + text.len() as i64);
        }
        Self {
            offsets,
            bytes: texts.concat(),
            categories: categories.to_vec(),
        }
    }

    fn catalogue(&self, tokenizer: &Tokenizer) -> Result<Catalogue, Error> {
        Catalogue::new(&self.offsets, &self.bytes, &self.categories, tokenizer)
    }
}

/// All that one call is given.
#[derive(Debug, Clone)]
struct Call {
    batches: Vec<Rows>,
    users: Meaning,
    behaviors: Meaning,
    items: Meaning,
    queries: Meaning,
    nothing: u32,
    clock: Option<(i64, i64)>,
    days: Vec<(i64, i64)>,
    base: Texts,
    extra: Texts,
    names: Vec<String>,
    options: Options,
}

impl Call {
    fn run(&self) -> Result<Vec<Chunk>, Error> {
        self.run_with(&Tokenizer::bytes())
    }

    fn log(&self) -> Log<'_> {
        Log {
            batches: self
                .batches
                .iter()
                .map(|rows| Batch {
                    users: rows.users.view(),
                    moments: &rows.moments,
                    behaviors: rows.behaviors.view(),
                    items: rows.items.view(),
                    queries: rows.queries.as_ref().map(Column::view),
                })
                .collect(),
            users: self.users.view(),
            behaviors: self.behaviors.view(),
            items: self.items.view(),
            queries: self.queries.view(),
            nothing: self.nothing,
        }
    }

    fn clock(&self) -> Clock {
        match self.clock {
            Some((now, origin)) => Clock::Times { now, origin },
            None => Clock::Ranks,
        }
    }

    fn run_with(&self, tokenizer: &Tokenizer) -> Result<Vec<Chunk>, Error> {
        let base = self.base.catalogue(tokenizer)?;
        let entries = Entries::new(&base, self.extra.catalogue(tokenizer)?);
        let (log, clock, names) = (self.log(), self.clock(), &self.names);
        let options = &self.options;
        compress(&log, clock, &self.days, &entries, names, tokenizer, options)
    }
}

/// One event: user, age in seconds, behavior, entry (`None`: a search for `"oat"`).
type Event = (i64, i64, i64, Option<i64>);

/// Entries: two items called Tea, Milk, the categories Drinks and Dairy, a query, `-`.
fn call(events: &[Event], cut: usize, options: Options) -> Call {
    let now = (i64::from(today()) * DAY + DAY / 2) * 1_000_000;
    let batches = events
        .chunks(cut.max(1))
        .map(|events| {
            let bits: Vec<u8> = events
                .chunks(8)
                .map(|eight| {
                    eight
                        .iter()
                        .enumerate()
                        .map(|(bit, event)| u8::from(event.3.is_some()) << bit)
                        .sum()
                })
                .collect();
            let column = |of: fn(&Event) -> i64| events.iter().map(of).collect::<Vec<_>>();
            Rows {
                users: Numbers::new(column(|event| event.0), 6),
                moments: events
                    .iter()
                    .map(|event| now - event.1 * 1_000_000)
                    .collect(),
                behaviors: Numbers::new(column(|event| event.2), 0),
                items: Column {
                    values: Numbers::new(column(|event| event.3.unwrap_or(0)), 4),
                    valid: Some((bits, 0)),
                },
                queries: Some(Column {
                    values: Numbers::new(vec![0; events.len()], 2),
                    valid: None,
                }),
            }
        })
        .collect();
    Call {
        batches,
        users: Meaning::plain(4),
        behaviors: Meaning::plain(4),
        items: Meaning::plain(3),
        queries: Meaning {
            base: 0,
            map: Some(vec![5]),
            size: 7,
        },
        nothing: 6,
        clock: Some((now, 0)),
        days: vec![(0, 0)],
        base: Texts::new(
            &["Tea", "Tea", "Milk", "Drinks", "Dairy"],
            &[3, 3, 4, -1, -1],
        ),
        extra: Texts::new(&["\"oat\"", "-"], &[-1, -1]),
        names: ["purchase", "cart", "search", "other"]
            .map(str::to_owned)
            .to_vec(),
        options,
    }
}

/// One user's text, tokens, receipt and layout.
type Told = (i64, String, u32, Vec<i64>, u8);

fn told(chunks: &[Chunk]) -> Vec<Told> {
    let mut all = Vec::new();
    for chunk in chunks {
        for (row, &user) in chunk.users.iter().enumerate() {
            let (from, to) = (chunk.offsets[row] as usize, chunk.offsets[row + 1] as usize);
            all.push((
                user,
                String::from_utf8(chunk.bytes[from..to].to_vec()).unwrap(),
                chunk.tokens[row],
                chunk.receipts[7 * row..7 * row + 7].to_vec(),
                chunk.layouts[row],
            ));
        }
    }
    all
}

#[test]
fn a_history_by_hand() {
    let events = [
        (2, DAY, 0, Some(0)),
        (2, DAY, 1, Some(0)),
        (2, 40 * DAY, 0, Some(2)),
        (2, 40 * DAY, 0, Some(1)),
        (2, 3 * DAY, 2, None),
        (0, 0, 0, Some(1)),
        (0, 1, 0, Some(1)),
    ];
    let options = Options {
        layout: Some(Layout::Item),
        row_ids: true,
        ..options()
    };
    let histories = told(&call(&events, 3, options).run().unwrap());
    assert_eq!(histories.len(), 2, "the user without events is absent");
    assert_eq!(histories[0].1, "r1 17-12-20 (purchase) | Tea");
    let (user, text, tokens, receipt, layout) = &histories[1];
    assert_eq!(
        text,
        "r1 17-11 (purchase) | Tea, Milk\nr2 17-12-17 (search) | \"oat\"\nr3 17-12-19 (purchase, cart) | Tea #2"
    );
    assert_eq!((*user, *layout), (2, Layout::Item as u8));
    assert_eq!(*tokens as usize, text.len());
    let raw = "2017-11-10 (purchase) | Tea\n2017-11-10 (purchase) | Milk\n2017-12-17 (search) | \"oat\"\n2017-12-19 (purchase) | Tea\n2017-12-19 (cart) | Tea";
    assert_eq!(
        receipt,
        &[raw.len() as i64, text.len() as i64, 5, 5, 0, 0, 0]
    );
}

#[test]
fn the_largest_rank_and_an_extreme_day_are_told() {
    let mut wrong = call(&[(0, 0, 0, Some(0))], 1, options());
    wrong.clock = None;
    wrong.days = vec![(0, i64::from(UNDATED))];
    wrong.batches[0].moments = vec![i64::from(u32::MAX)];
    assert!(wrong.run().is_err());
    wrong.batches[0].moments = vec![i64::from(u32::MAX) - 1];
    assert_eq!(told(&wrong.run().unwrap())[0].1, "undated (purchase) | Tea");
    for (start, day) in [(0, i64::from(i32::MAX)), (1 << 32, 0), (0, 1 << 40)] {
        wrong.days = vec![(start, day)];
        assert!(wrong.run().is_err(), "{start} {day}");
    }
}

#[test]
fn no_behavior_names_and_too_many_users_are_told() {
    let mut wrong = call(&[], 1, options());
    wrong.names.clear();
    wrong.behaviors = Meaning::plain(0);
    assert!(wrong.run().is_err());
    let mut wrong = call(&[(0, 0, 0, Some(0))], 1, options());
    wrong.users.size = usize::MAX;
    assert!(wrong.run().is_err());
    (wrong.users.size, wrong.options.threads) = (4, usize::MAX);
    assert!(wrong.run().is_err());
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = (0..4i64, 0..900 * DAY, 0..3i64, prop::option::of(0..3i64));
    prop::collection::vec(event, 1..60)
}

proptest! {
    #[test]
    fn budgets_are_kept_and_more_room_never_shows_less(
        events in events(),
        budget in 0..400u64,
        layout in prop::option::of(0..Layout::ALL.len()),
        (counts, stable, row_ids, long_labels) in any::<(bool, bool, bool, bool)>(),
    ) {
        let options = Options {
            budget: Some(budget),
            layout: layout.map(|row| Layout::ALL[row]),
            counts, stable, row_ids, long_labels,
            ..options()
        };
        let roomy = Options { budget: Some(budget + 50), ..options.clone() };
        let tight = told(&call(&events, 7, options).run().unwrap());
        let roomy = told(&call(&events, 7, roomy).run().unwrap());
        for ((user, text, tokens, receipt, _), (.., more, _)) in tight.iter().zip(&roomy) {
            prop_assert!(u64::from(*tokens) <= budget);
            prop_assert_eq!(*tokens as usize, text.len());
            prop_assert_eq!(receipt[1], i64::from(*tokens));
            prop_assert_eq!(receipt[2], events.iter().filter(|event| event.0 == *user).count() as i64);
            prop_assert_eq!(receipt[3..].iter().sum::<i64>(), receipt[2]);
            prop_assert!(more[6] <= receipt[6] && more[3] >= receipt[3]);
        }
    }

    #[test]
    fn threads_and_batches_make_no_difference(
        events in events(),
        cut in 1..70usize,
        threads in 0..5usize,
        budget in prop::option::of(0..300u64),
    ) {
        let options = Options { budget, ..options() };
        let one = call(&events, events.len(), options.clone()).run().unwrap();
        let many = call(&events, cut, Options { threads, ..options }).run().unwrap();
        prop_assert_eq!(told(&one), told(&many));
    }
}
