//! Any bytes as a call of the history kernel: it answers or tells, and never panics nor reads what is not its own.
//!
//!     cargo install cargo-fuzz && cargo +nightly fuzz run --fuzz-dir rust/fuzz history -- -max_total_time=600

#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use recgpt_core::history::catalogue::{Catalogue, Entries};
use recgpt_core::history::columns::{Batch, Codes, Ints, Log, Nullable, Valid};
use recgpt_core::history::rows::{rows as numbers, Request};
use recgpt_core::history::{compress, Clock, Layout, Options};
use recgpt_core::tokenizer::Tokenizer;

#[derive(Debug)]
enum Numbers {
    I8(Vec<i8>),
    U8(Vec<u8>),
    I16(Vec<i16>),
    U16(Vec<u16>),
    I32(Vec<i32>),
    U32(Vec<u32>),
    I64(Vec<i64>),
}

impl Numbers {
    /// So many small numbers, which mostly mean something, of one width.
    fn small(data: &mut Unstructured<'_>, rows: usize) -> Result<Self> {
        let mut bytes = Vec::new();
        for _ in 0..rows {
            bytes.push(data.int_in_range(0..=7u8)?);
        }
        Ok(match data.int_in_range(0..=3)? {
            0 => Self::I8(bytes.into_iter().map(|byte| byte as i8).collect()),
            1 => Self::U16(bytes.into_iter().map(u16::from).collect()),
            2 => Self::I32(bytes.into_iter().map(i32::from).collect()),
            _ => Self::I64(bytes.into_iter().map(i64::from).collect()),
        })
    }

    fn any(data: &mut Unstructured<'_>, rows: usize) -> Result<Self> {
        if data.ratio(1, 16)? {
            Ok(match data.int_in_range(0..=6)? {
                0 => Self::I8(data.arbitrary()?),
                1 => Self::U8(data.arbitrary()?),
                2 => Self::I16(data.arbitrary()?),
                3 => Self::U16(data.arbitrary()?),
                4 => Self::I32(data.arbitrary()?),
                5 => Self::U32(data.arbitrary()?),
                _ => Self::I64(data.arbitrary()?),
            })
        } else {
            Self::small(data, rows)
        }
    }

    fn view(&self) -> Ints<'_> {
        match self {
            Self::I8(values) => Ints::I8(values),
            Self::U8(values) => Ints::U8(values),
            Self::I16(values) => Ints::I16(values),
            Self::U16(values) => Ints::U16(values),
            Self::I32(values) => Ints::I32(values),
            Self::U32(values) => Ints::U32(values),
            Self::I64(values) => Ints::I64(values),
        }
    }
}

#[derive(Debug)]
struct Rows {
    users: Numbers,
    moments: Vec<i64>,
    behaviors: Numbers,
    items: (Numbers, Option<(Vec<u8>, usize)>),
    queries: Option<(Numbers, Option<(Vec<u8>, usize)>)>,
}

/// Three years before the end of 2017, in days.
const DAYS: i64 = 16_400;

fn rows(data: &mut Unstructured<'_>) -> Result<Rows> {
    let count = data.int_in_range(0..=60usize)?;
    let mut moments = Vec::new();
    for _ in 0..count {
        moments.push(if data.ratio(1, 32)? {
            i64::arbitrary(data)?
        } else {
            (DAYS + i64::from(data.int_in_range(0..=1_200u16)?)) * 86_400_000_000
        });
    }
    let column =
        |data: &mut Unstructured<'_>| Ok((Numbers::any(data, count)?, Arbitrary::arbitrary(data)?));
    Ok(Rows {
        users: Numbers::any(data, count)?,
        behaviors: Numbers::any(data, count)?,
        items: column(data)?,
        queries: data.ratio(1, 2)?.then(|| column(data)).transpose()?,
        moments,
    })
}

fn nullable(column: &(Numbers, Option<(Vec<u8>, usize)>)) -> Nullable<'_> {
    Nullable {
        values: column.0.view(),
        valid: column.1.as_ref().map(|(bits, offset)| Valid {
            bits,
            offset: *offset,
        }),
    }
}

/// Base, map and size: mostly without a map, or one that fits.
type Meaning = (i64, Option<Vec<i32>>, usize);

fn meaning(data: &mut Unstructured<'_>) -> Result<Meaning> {
    if data.ratio(1, 16)? {
        return Arbitrary::arbitrary(data);
    }
    let map = data
        .ratio(1, 2)?
        .then(|| (0..8).map(|_| data.int_in_range(-1..=5)).collect());
    Ok((0, map.transpose()?, 8))
}

fn codes(meaning: &Meaning) -> Codes<'_> {
    Codes {
        base: meaning.0,
        map: meaning.1.as_deref(),
        size: meaning.2,
    }
}

fn call(data: &mut Unstructured<'_>) -> Result<()> {
    let tokenizer = Tokenizer::bytes();
    let texts: Vec<String> = (0..8).map(|_| data.arbitrary()).collect::<Result<_>>()?;
    let mut offsets = vec![0];
    for text in &texts {
        offsets.push(offsets[offsets.len() - 1] + text.len() as i64);
    }
    let categories: Vec<i32> = (0..8)
        .map(|_| data.int_in_range(-1..=7))
        .collect::<Result<_>>()?;
    let base = Catalogue::new(&offsets, &texts.concat(), &categories, &tokenizer);
    let extra = Catalogue::new(&[0, 1], "-", &[-1], &tokenizer);
    let (Ok(base), Ok(extra)) = (base, extra) else {
        return Ok(());
    };
    let entries = Entries::new(&base, extra);
    let batches: Vec<Rows> = (0..data.int_in_range(0..=3)?)
        .map(|_| rows(data))
        .collect::<Result<_>>()?;
    let meanings = [
        meaning(data)?,
        meaning(data)?,
        meaning(data)?,
        meaning(data)?,
    ];
    let batches = batches.iter().map(|rows| Batch {
        users: rows.users.view(),
        moments: &rows.moments,
        behaviors: rows.behaviors.view(),
        items: nullable(&rows.items),
        queries: rows.queries.as_ref().map(nullable),
    });
    let log = Log {
        batches: batches.collect(),
        users: codes(&meanings[0]),
        behaviors: codes(&meanings[1]),
        items: codes(&meanings[2]),
        queries: codes(&meanings[3]),
        nothing: 8,
    };
    let names = [
        "purchase", "cart", "favorite", "view", "review", "search", "coupon", "other",
    ]
    .map(str::to_owned);
    let layout = data.int_in_range(0..=Layout::ALL.len())?;
    let options = Options {
        today: if data.ratio(1, 32)? {
            data.arbitrary()?
        } else {
            (DAYS + 1_200) as i32
        },
        budget: data
            .ratio(1, 2)?
            .then(|| data.int_in_range(0..=2_000))
            .transpose()?,
        layout: Layout::ALL.get(layout).copied(),
        counts: data.arbitrary()?,
        long_labels: data.arbitrary()?,
        stable: data.arbitrary()?,
        row_ids: data.arbitrary()?,
        threads: data.int_in_range(1..=2)?,
        count: true,
    };
    let (clock, days) = match data.int_in_range(0..=15)? {
        0 => (
            Clock::Times {
                now: data.arbitrary()?,
                origin: data.arbitrary()?,
            },
            data.arbitrary()?,
        ),
        1 => (Clock::Ranks, data.arbitrary::<Vec<(i64, i64)>>()?),
        _ => (
            Clock::Times {
                now: (DAYS + 1_200) * 86_400_000_000,
                origin: 0,
            },
            vec![(0, 0)],
        ),
    };
    // A table of days from the beginning of time has millions of rows, each of them as good as the others.
    if days.len() > 20 {
        return Ok(());
    }
    if let Ok(chunks) = compress(&log, clock, &days, &entries, &names, &tokenizer, &options) {
        for chunk in chunks {
            assert_eq!(
                chunk.bytes.len() as i64,
                chunk.offsets[chunk.offsets.len() - 1]
            );
            for (text, &tokens) in chunk.offsets.windows(2).zip(&chunk.tokens) {
                assert_eq!(text[1] - text[0], i64::from(tokens), "a token is a byte");
            }
            for receipt in chunk.receipts.chunks(7) {
                assert_eq!(
                    receipt[2],
                    receipt[3..].iter().sum::<i64>(),
                    "receipts add up"
                );
            }
        }
    }
    let request = Request {
        items: data.int_in_range(0..=9)?,
        entries: 9,
        behaviors: names.len(),
        today: options.today,
        stable: options.stable,
        threads: options.threads,
    };
    if let Ok((labels, found)) = numbers(&log, clock, &days, request) {
        for rows in found {
            let ends = rows.offsets[rows.offsets.len() - 1] as usize;
            assert_eq!(rows.offsets.len(), rows.users.len() + 1);
            assert_eq!(
                [rows.buckets.len(), rows.behaviors.len(), rows.items.len()],
                [ends; 3]
            );
            assert!(rows
                .buckets
                .iter()
                .all(|&row| usize::from(row) < labels.len()));
            assert!(rows
                .items
                .iter()
                .all(|&item| (item as usize) < request.items));
            assert!(rows.behaviors.iter().all(|&mask| mask > 0));
        }
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    let _ = call(&mut Unstructured::new(data));
});
