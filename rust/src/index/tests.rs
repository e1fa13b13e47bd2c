//! Every kernel against sorting everything once.

use proptest::prelude::*;

use super::*;

fn matrix(values: &[f32], dim: usize) -> Matrix<'_> {
    Matrix { values, dim }
}

fn ask<'a>(
    users: &'a [f32],
    tags: &'a [f32],
    dim: usize,
    offsets: &'a [i64],
    k: usize,
) -> Query<'a> {
    Query {
        users: matrix(users, dim),
        tags: matrix(tags, dim),
        offsets,
        beta: 0.5,
        k,
        fuse: Fuse::Max,
        exclude: None,
        filter: Filter::default(),
        caps: None,
        kernel: "bytes",
    }
}

fn alone<'a>(items: &'a [f32], dim: usize, codes: Option<&'a Codes>) -> [Part<'a>; 1] {
    [Part {
        items: matrix(items, dim),
        codes,
        first: 0,
    }]
}

#[test]
fn the_better_tag_wins_and_both_sides_are_kept() {
    let items = [1.0, 0.0, 0.0, 1.0];
    let codes = Codes::new(matrix(&items, 2));
    let query = ask(&[1.0, 0.0], &[0.5, 0.25, 0.0, 2.0], 2, &[0, 2], 5);
    let hits = search(&alone(&items, 2, codes.as_ref()), &query).unwrap();
    let hit = |item, score, col, sem, tag| Hit {
        item,
        score,
        col,
        sem,
        tag,
        tag_side_alone: false,
    };
    let expected = vec![hit(1, 1.0, 0.0, 2.0, 1), hit(0, 0.75, 1.0, 0.5, 0)];
    assert_eq!(hits, vec![(0, expected)]);
    // For one item only, the user's own row brings the other one.
    let hits = search(&alone(&items, 2, codes.as_ref()), &Query { k: 1, ..query }).unwrap();
    assert_eq!((hits[0].1[0].item, hits[0].1[0].tag_side_alone), (1, true));
}

/// The definition, in one lane: sums in the order of the dimensions, then a sort of everything.
fn plainly(
    items: &[f32],
    user: &[f32],
    tags: &[f32],
    dim: usize,
    k: usize,
) -> Vec<(usize, u32, i32)> {
    let dot = |left: &[f32], right: &[f32]| {
        let products = left.iter().zip(right).map(|(left, right)| left * right);
        products.fold(0.0f32, |sum, product| sum + product)
    };
    let mut scored: Vec<(usize, f32, i32)> = Vec::new();
    for (row, item) in items.chunks_exact(dim).enumerate() {
        let col = dot(user, item);
        let mut best = (f32::NEG_INFINITY, -1);
        for (tag, vector) in tags.chunks_exact(dim).enumerate() {
            let sem = dot(vector, item);
            if sem > best.0 {
                best = (sem, tag as i32);
            }
        }
        let score = if tags.is_empty() {
            col
        } else {
            0.5 * col + 0.5 * best.0
        };
        scored.push((row, score, best.1));
    }
    scored.sort_by(|left, right| right.1.total_cmp(&left.1).then(left.0.cmp(&right.0)));
    scored.truncate(k);
    scored
        .iter()
        .map(|&(row, score, tag)| (row, score.to_bits(), tag))
        .collect()
}

/// Values that make rounding matter: from whole numbers with ties to magnitudes that underflow.
fn values(count: usize, kind: u8, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 * 2.0 - 1.0
    };
    let value = |_| match kind {
        0 => (next() * 2.5).round() + 0.0,
        1 => next(),
        2 => next() * 10f32.powi((next() * 30.0) as i32 - 28),
        3 => 1.0 + next() * 1e-6,
        _ => next() * if next() > 0.98 { 6000.0 } else { 0.01 } + 0.0,
    };
    (0..count).map(value).collect()
}

proptest! {
    // Under Miri a case takes minutes.
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 120 }))]

    /// All kernels, bytes and floats, items in one part and in three, give the same bits as the definition.
    #[test]
    fn every_kernel_equals_the_definition(
        seed in any::<u64>(), kind in 0u8..5, dim in prop::sample::select(vec![1usize, 3, 8, 17, 64, 70]),
        rows in prop::sample::select(vec![1usize, 31, 33, 100, 700]), tags in 0usize..20,
        k in prop::sample::select(vec![1usize, 7, 60, 1000]),
    ) {
        let items = values(rows * dim, kind, seed);
        let user = values(dim, kind, seed ^ 1);
        let tags = values(tags * dim, kind, seed ^ 2);
        let offsets = [0, (tags.len() / dim) as i64];
        let expected = plainly(&items, &user, &tags, dim, k);
        let codes = Codes::new(matrix(&items, dim));
        let cuts = [0, rows / 3, rows / 2, rows];
        let pieces: Vec<(usize, &[f32])> =
            cuts.windows(2).map(|cut| (cut[0], &items[cut[0] * dim..cut[1] * dim])).collect();
        let coded: Vec<Option<Codes>> =
            pieces.iter().map(|(_, values)| Codes::new(matrix(values, dim))).collect();
        let parts: Vec<Part<'_>> = pieces.iter().zip(&coded).map(|(&(first, values), codes)| Part {
            items: matrix(values, dim), codes: codes.as_ref(), first,
        }).collect();
        for kernel in available() {
            for way in ["bytes", "floats"] {
                let name = format!("{} {way}", kernel.name);
                let query = Query { kernel: &name, ..ask(&user, &tags, dim, &offsets, k) };
                for parts in [&alone(&items, dim, codes.as_ref())[..], &parts[..]] {
                    let hits = search(parts, &query).unwrap().remove(0).1;
                    let came: Vec<_> = hits.iter().map(|hit| (hit.item, hit.score.to_bits(), hit.tag)).collect();
                    prop_assert_eq!(&came, &expected, "{}", name);
                }
            }
        }
    }

    /// Enough items for cells, in clusters or without any: what is left out by blocks and tags is in no list.
    #[test]
    fn leaving_out_blocks_changes_nothing(
        seed in any::<u64>(), kind in 0u8..5, clusters in 1usize..60, spread in 0f32..2.0,
        rows in 1024usize..5000, tags in 0usize..9, k in 1usize..80, lists in any::<bool>(), against in any::<bool>(),
    ) {
        let dim = 6;
        let centers = values(clusters * dim, kind, seed ^ 5);
        let mut items = values(rows * dim, kind, seed);
        for (place, value) in items.iter_mut().enumerate() {
            let (row, dimension) = (place / dim, place % dim);
            *value = centers[row % clusters * dim + dimension] + spread * *value;
        }
        let user = values(dim, kind, seed ^ 1);
        let mut tags = values(tags * dim, kind, seed ^ 2);
        if against {
            // Nearly nothing is left of a user and such a tag, so the bound is made of roundings.
            for (place, value) in tags.iter_mut().enumerate() {
                *value = -user[place % dim] * (1.0 + 1e-3 * value.clamp(-1.0, 1.0));
            }
        }
        let offsets = [0, (tags.len() / dim) as i64];
        let codes = Codes::new(matrix(&items, dim));
        for kernel in ["bytes", "floats"] {
            let fuse = if lists { Fuse::Lists } else { Fuse::Max };
            let query = Query { fuse, kernel, ..ask(&user, &tags, dim, &offsets, k) };
            let answers = search(&alone(&items, dim, codes.as_ref()), &query).unwrap();
            for (place, (_, hits)) in answers.iter().enumerate() {
                let mine = if lists && !tags.is_empty() { &tags[place * dim..(place + 1) * dim] } else { &tags[..] };
                let expected = plainly(&items, &user, mine, dim, k);
                let came = hits.iter().map(|hit| (hit.item, hit.score.to_bits()));
                prop_assert!(came.eq(expected.iter().map(|hit| (hit.0, hit.1))), "{} {}", kernel, place);
            }
        }
    }

    /// Many small scores make ties; the plain way is to sort everything and walk it once.
    #[test]
    fn filters_and_caps_equal_sorting_once(
        scores in prop::collection::vec(0u8..20, 0..6000), k in 1usize..40, limit in 1usize..5, skip in 0usize..50,
        allow in any::<bool>(),
    ) {
        let items: Vec<f32> = scores.iter().map(|&score| f32::from(score)).collect();
        let categories: Vec<i32> = (0..items.len() as i32).map(|row| row * row % 7).collect();
        let exclude: Vec<i64> = (0..items.len() as i64).step_by(skip + 1).collect();
        let ends = [0, exclude.len() as i64];
        let third: Vec<i64> = (0..items.len() as i64).step_by(3).collect();
        let filter = if allow {
            Filter { allow: Some(&third), removed: &exclude, deny: &[] }
        } else {
            Filter { allow: None, removed: &[], deny: &third }
        };
        let codes = Codes::new(matrix(&items, 1));
        let query = Query {
            exclude: (!allow).then_some(Ragged { values: &exclude, offsets: &ends }),
            caps: Some(Caps { categories: &categories, limit }),
            filter,
            ..ask(&[1.0], &[], 1, &[0, 0], k)
        };
        let hits = search(&alone(&items, 1, codes.as_ref()), &query).unwrap();
        let mut rows: Vec<usize> = (0..items.len()).collect();
        rows.retain(|row| row % (skip + 1) != 0 && (row % 3 == 0) == allow);
        rows.sort_by_key(|&row| (std::cmp::Reverse(scores[row]), row));
        let mut taken = [0; 7];
        rows.retain(|&row| {
            taken[categories[row] as usize] += 1;
            taken[categories[row] as usize] <= limit
        });
        rows.truncate(k);
        prop_assert_eq!(hits[0].1.iter().map(|hit| hit.item).collect::<Vec<_>>(), rows);
    }
}

#[test]
fn lists_are_one_search_for_each_tag() {
    let (dim, rows) = (5, 900);
    let (items, users, tags) = (
        values(rows * dim, 1, 7),
        values(3 * dim, 1, 8),
        values(6 * dim, 1, 9),
    );
    let codes = Codes::new(matrix(&items, dim));
    let offsets = [0, 4, 4, 6];
    let query = Query {
        fuse: Fuse::Lists,
        ..ask(&users, &tags, dim, &offsets, 20)
    };
    let answers = search(&alone(&items, dim, codes.as_ref()), &query).unwrap();
    assert_eq!(
        answers.iter().map(|(user, _)| *user).collect::<Vec<_>>(),
        [0, 0, 0, 0, 1, 2, 2]
    );
    let mut tag = 0;
    for (user, hits) in answers {
        let mine = if user == 1 {
            &[]
        } else {
            tag += 1;
            &tags[(tag - 1) * dim..tag * dim]
        };
        let expected = plainly(&items, &users[user * dim..(user + 1) * dim], mine, dim, 20);
        let came: Vec<_> = hits
            .iter()
            .map(|hit| (hit.item, hit.score.to_bits()))
            .collect();
        assert_eq!(
            came,
            expected
                .iter()
                .map(|hit| (hit.0, hit.1))
                .collect::<Vec<_>>()
        );
    }
}

/// Items in rising order of goodness are the worst order for a floor; a bound on sizes keeps scoring rare even then.
#[test]
fn any_order_of_items_and_any_number_of_threads_give_the_same() {
    let (dim, rows) = (16, 40_000);
    let mut items = values(rows * dim, 1, 3);
    let user = values(dim, 1, 4);
    let tags = values(5 * dim, 1, 5);
    let mut order: Vec<Vec<f32>> = items.chunks_exact(dim).map(<[f32]>::to_vec).collect();
    let dot = |row: &[f32]| row.iter().zip(&user).map(|(a, b)| a * b).sum::<f32>();
    order.sort_by(|left, right| dot(left).total_cmp(&dot(right)));
    items = order.concat();
    let codes = Codes::new(matrix(&items, dim));
    let expected = plainly(&items, &user, &tags, dim, 50);
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let query = ask(&user, &tags, dim, &[0, 5], 50);
        let hits = pool
            .install(|| search(&alone(&items, dim, codes.as_ref()), &query))
            .unwrap()
            .remove(0)
            .1;
        let came: Vec<_> = hits
            .iter()
            .map(|hit| (hit.item, hit.score.to_bits(), hit.tag))
            .collect();
        assert_eq!(came, expected);
    }
}

/// A thousand items that no byte can tell apart: the scan must give up on bytes, and still be exact.
#[test]
fn items_that_differ_by_less_than_a_byte_are_told_apart() {
    let (dim, rows) = (16, 20_000);
    let noise = values(rows * dim, 1, 11);
    let items: Vec<f32> = noise.iter().map(|value| 1.0 + value * 1e-4).collect();
    let (user, tags) = (values(dim, 1, 12), values(3 * dim, 1, 13));
    let codes = Codes::new(matrix(&items, dim));
    let hits = search(
        &alone(&items, dim, codes.as_ref()),
        &ask(&user, &tags, dim, &[0, 3], 30),
    )
    .unwrap();
    let came: Vec<_> = hits[0]
        .1
        .iter()
        .map(|hit| (hit.item, hit.score.to_bits(), hit.tag))
        .collect();
    assert_eq!(came, plainly(&items, &user, &tags, dim, 30));
}

#[test]
fn sum_is_the_mean_of_the_tags_and_names_the_tag_that_gives_most() {
    let items = [1.0, 0.0, 0.0, 1.0];
    let codes = Codes::new(matrix(&items, 2));
    let query = Query {
        fuse: Fuse::Sum,
        ..ask(
            &[1.0, 0.0],
            &[0.5, 0.25, 0.0, 2.0, 0.25, 0.0],
            2,
            &[0, 3],
            5,
        )
    };
    let hits = search(&alone(&items, 2, codes.as_ref()), &query)
        .unwrap()
        .remove(0)
        .1;
    let came: Vec<_> = hits
        .iter()
        .map(|hit| (hit.item, hit.score, hit.sem, hit.tag))
        .collect();
    assert_eq!(came, [(0, 0.625, 0.25, 0), (1, 0.375, 0.75, 1)]);
}

#[test]
fn an_unknown_kernel_is_refused_by_name() {
    let error = search(
        &[],
        &Query {
            kernel: "sse9 bytes",
            ..ask(&[1.0], &[], 1, &[0, 0], 1)
        },
    )
    .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("portable before them, but row 0 is sse9 bytes"),
        "{error}"
    );
}
