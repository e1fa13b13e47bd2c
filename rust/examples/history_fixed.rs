//! The kernel on a small log that never changes, for counting instructions.
//!
//! `tests/test_instructions.py` runs it under valgrind. Given a number it compresses so many times, so that two runs tell
//! what one time costs.

use recgpt_core::history::catalogue::{Catalogue, Entries};
use recgpt_core::history::columns::{Batch, Codes, Ints, Log, Nullable};
use recgpt_core::history::{compress, Clock, Options};
use recgpt_core::tokenizer::Tokenizer;

const ROWS: usize = 20_000;
const ITEMS: usize = 2_000;
const USERS: usize = 200;
const NOW: i64 = 1_513_771_200;

/// A fixed sequence of numbers (`SplitMix64`).
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }
}

fn main() -> Result<(), recgpt_core::error::Error> {
    let times: usize = std::env::args()
        .nth(1)
        .and_then(|times| times.parse().ok())
        .unwrap_or(1);
    let mut draw = Draw(7);
    let texts: Vec<String> = (0..ITEMS + 2)
        .map(|row| match row {
            ITEMS => "Drinks".to_owned(),
            row if row > ITEMS => "-".to_owned(),
            row => format!("Tea no {row} in a {} g tin", 50 + draw.below(900)),
        })
        .collect();
    let mut offsets = vec![0i64];
    for text in &texts[..=ITEMS] {
        offsets.push(offsets[offsets.len() - 1] + text.len() as i64);
    }
    let mut categories = vec![ITEMS as i32; ITEMS];
    categories.push(-1);
    let tokenizer = Tokenizer::bytes();
    let base = Catalogue::new(&offsets, &texts[..=ITEMS].concat(), &categories, &tokenizer)?;
    // The square makes some users heavy and some items liked.
    let mut skewed = |end: usize| {
        let number = draw.below(1 << 20) as usize;
        ((number * number / (1 << 20)) * end) >> 20
    };
    let users: Vec<i32> = (0..ROWS).map(|_| skewed(USERS) as i32).collect();
    let items: Vec<i32> = (0..ROWS).map(|_| skewed(ITEMS) as i32).collect();
    let moments: Vec<i64> = (0..ROWS)
        .map(|row| (NOW - 86_400 * 700 + (row * 86_400 * 700 / ROWS) as i64) * 1_000_000)
        .collect();
    let behaviors: Vec<i8> = (0..ROWS).map(|_| skewed(3) as i8).collect();
    let plain = |size| Codes {
        base: 0,
        map: None,
        size,
    };
    let names = ["purchase", "cart", "favorite", "other"].map(str::to_owned);
    let mut bytes = 0;
    for time in 0..times {
        let log = Log {
            batches: vec![Batch {
                users: Ints::I32(&users),
                moments: &moments,
                behaviors: Ints::I8(&behaviors),
                items: Nullable {
                    values: Ints::I32(&items),
                    valid: None,
                },
                queries: None,
            }],
            users: plain(USERS),
            behaviors: plain(4),
            items: plain(ITEMS),
            queries: plain(0),
            nothing: ITEMS as u32 + 1,
        };
        let extra = Catalogue::new(&[0, 1], "-", &[-1], &tokenizer)?;
        let options = Options {
            today: (NOW / 86_400) as i32,
            // Every other time the ladder is climbed down too.
            budget: (time % 2 == 1).then_some(1_000),
            layout: None,
            counts: false,
            long_labels: false,
            stable: false,
            row_ids: false,
            threads: 1,
            count: true,
        };
        let clock = Clock::Times {
            now: NOW * 1_000_000,
            origin: 0,
        };
        let entries = Entries::new(&base, extra);
        let chunks = compress(
            &log,
            clock,
            &[(0, 0)],
            &entries,
            &names,
            &tokenizer,
            &options,
        )?;
        bytes += chunks.iter().map(|chunk| chunk.bytes.len()).sum::<usize>();
    }
    // An exit code that depends on the texts, so that nothing is optimized away: 0 if there are any.
    std::process::exit(i32::from(bytes == 0 && times > 0));
}
