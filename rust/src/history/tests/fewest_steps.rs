//! The search down the ladder against all texts of all steps.

use proptest::prelude::*;

use super::any_input::cases;
use crate::calendar::day_number;
use crate::history::catalogue::{Catalogue, Entries};
use crate::history::dates::Dates;
use crate::history::partition::Record;
use crate::history::pieces::Pieces;
use crate::history::readings::Layout;
use crate::history::user::Worker;
use crate::history::write::Buffer;
use crate::history::Options;
use crate::tokenizer::{bpe::Bpe, Tokenizer};

/// Items with ends that join a comma or a line break, two of them equal, then their categories.
const TEXTS: [&str; 11] = [
    "Tea",
    "Tea",
    "Oat milk (1l)",
    "Hose 2%",
    "Käse",
    "x",
    "A long name of one thing",
    "17",
    "Drinks",
    "Dairy (all)",
    "-",
];
const CATEGORIES: [i32; 11] = [8, 8, 8, -1, 9, 9, 9, 8, -1, -1, -1];

/// Merges that make some ends of lines cheaper and some dearer than what stands inside.
fn merging() -> Tokenizer {
    let letters =
        "\u{120}\u{10a}(),|#-%x abcdefghijklmnopqrstuvwyzATODHKm0123456789\u{c3}\u{a4}\u{a5}";
    let merges = [
        ") ,",
        "\u{120} |",
        "\u{120} 1",
        "\u{120}1 7",
        "1 7",
        "\u{120} (",
        "c a",
        "ca r",
        "car t",
        "( cart",
        "e r",
        "\u{120} x",
        "l )",
        "l) ,",
        "% \u{10a}",
        "1 2",
        "\u{120} #",
        "\u{120}# 2",
        "T e",
        "\u{120} Te",
        "\u{120}Te a",
        "a ,",
    ];
    let joined = merges.iter().map(|pair| pair.replace(' ', ""));
    let mut tokens: Vec<String> = letters.chars().map(String::from).chain(joined).collect();
    tokens.sort();
    tokens.dedup();
    let kinds = vec![1; tokens.len()];
    Tokenizer::bpe(Bpe::new(tokens, &kinds, &merges.map(str::to_owned), "smollm").unwrap())
}

// Switches of one call, not states of a machine.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone)]
struct Case {
    /// Days before today, entry, behavior.
    events: Vec<(u32, u32, u32)>,
    layout: usize,
    counts: bool,
    stable: bool,
    row_ids: bool,
    merges: bool,
}

fn any_case() -> impl Strategy<Value = Case> {
    let day = prop_oneof![0..35u32, 0..400u32, 0..1_500u32];
    let events = prop::collection::vec((day, 0..8u32, 0..4u32), 1..40);
    (events, 0..=Layout::ALL.len(), any::<[bool; 4]>()).prop_map(
        |(events, layout, [counts, stable, row_ids, merges])| Case {
            events,
            layout,
            counts,
            stable,
            row_ids,
            merges,
        },
    )
}

proptest! {
    #![proptest_config(cases())]

    /// Against all texts of all steps, one by one, for every budget at which the answer changes, and one less.
    #[test]
    fn nothing_fits_earlier_and_more_budget_never_leads_further(case in any_case()) {
        let tokenizer = if case.merges { merging() } else { Tokenizer::bytes() };
        let mut offsets = vec![0i64];
        for text in TEXTS {
            offsets.push(offsets[offsets.len() - 1] + text.len() as i64);
        }
        let base = Catalogue::new(&offsets, &TEXTS.concat(), &CATEGORIES, &tokenizer).unwrap();
        let none = Catalogue::new(&[0], "", &[], &tokenizer).unwrap();
        let entries = Entries::new(&base, none);
        let options = Options {
            today: day_number(2017, 12, 20),
            budget: None,
            layout: Layout::ALL.get(case.layout).copied(),
            counts: case.counts,
            long_labels: false,
            stable: case.stable,
            row_ids: case.row_ids,
            threads: 1,
            count: true,
        };
        let end = (i64::from(options.today) + 1) * 86_400;
        let origin = end - 1_600 * 86_400;
        let dates = Dates::of_times(&[(0, 0)], origin, end, options.today, case.stable).unwrap();
        let names = ["purchase", "cart", "search", "favorite", "other"].map(str::to_owned);
        let pieces = Pieces::new(&tokenizer, &dates, &names, &options);
        let mut worker = Worker::new(&dates, &entries, &options, pieces, 4);
        prop_assert!(worker.additive);
        let mut records: Vec<Record> = case
            .events
            .iter()
            .map(|&(back, entry, behavior)| Record::new((1_599 - back) * 86_400, entry, behavior))
            .collect();
        records.sort_unstable();
        let whole = worker.compress(&mut records, &mut Buffer::default()).tokens;
        let mut all = worker.ladder(&records);
        all.order_folds();
        all.order_drops();
        let mut tokens = vec![whole];
        for steps in 1..=all.steps() {
            worker.descend(&all, steps);
            tokens.push(worker.shortest(true, false).tokens);
        }
        let mut budgets: Vec<u64> = tokens.iter().flat_map(|&tokens| [tokens, tokens.saturating_sub(1)]).collect();
        budgets.sort_unstable();
        budgets.dedup();
        let mut further = tokens.len();
        for budget in budgets.into_iter().filter(|&budget| budget < whole) {
            let wanted = tokens.iter().position(|&tokens| tokens <= budget).unwrap();
            let mut ladder = worker.ladder(&records);
            let (steps, choice) = worker.search(&mut ladder, budget);
            prop_assert_eq!((steps, choice.tokens), (wanted, tokens[wanted]));
            prop_assert!(steps <= further);
            further = steps;
            prop_assert_eq!(ladder.fate(steps), all.fate(steps));
        }
    }
}
