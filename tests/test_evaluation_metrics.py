"""Metrics of lists: fractions worked out by hand, bounds for any lists, and an independent library's values."""

import doctest
import math

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recgpt.errors import InvalidArrayError
from recgpt.evaluation import metrics
from recgpt.evaluation.metrics import diversity, intervals, ragged, ranking, repetition
from recgpt.evaluation.metrics import lists as ragged_lists

# Lists of the first three tests: user 0 finds truths at ranks 1 and 3, user 1 none, user 2 has no truth, user 3's
# only truth is not in the index.
RANKED = ragged([[5, 6, 7, 8], [1, 2], [3], [4]])
TRUTHS = ragged([[7, 5, 9], [3], [], [-1]])


def test_hit_rate_counts_users_and_leaves_out_those_without_truths():
    score = metrics.hit_rate(RANKED, TRUTHS, k=3)
    assert score.mean == pytest.approx(1 / 3)
    np.testing.assert_array_equal(score.per_user, [1, 0, math.nan, 0])


def test_recall_divides_by_all_truths_even_those_out_of_reach():
    assert metrics.recall(RANKED, TRUTHS, k=3).per_user[0] == pytest.approx(2 / 3)
    assert metrics.recall(RANKED, TRUTHS, k=2).per_user[0] == pytest.approx(1 / 3)
    assert metrics.recall(RANKED, TRUTHS, k=3).mean == pytest.approx((2 / 3 + 0 + 0) / 3)
    # Two different strangers are two misses; the same stranger twice is one.
    assert metrics.recall(ragged([[1]]), ragged([[1, -1, -2, -2]]), k=1).mean == pytest.approx(1 / 3)


def test_ndcg_at_3_and_at_2():
    dcg, ideal = 1 / math.log2(2) + 1 / math.log2(4), 1 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    score = metrics.ndcg(RANKED, TRUTHS, k=3)
    assert score.per_user[0] == pytest.approx(dcg / ideal)
    assert score.mean == pytest.approx((dcg / ideal + 0 + 0) / 3)
    assert metrics.ndcg(RANKED, TRUTHS, k=2).per_user[0] == pytest.approx(1 / (1 + 1 / math.log2(3)))


def test_distinct_categories_ignores_items_without_one():
    categories = np.array([0, 0, 1, -1, 2])
    score = metrics.distinct_categories(ragged([[0, 1, 2, 3], [3], []]), categories, k=4)
    assert score.per_user.tolist() == [2, 0, 0]
    assert score.mean == pytest.approx(2 / 3)
    assert metrics.distinct_categories(ragged([[0, 1, 2]]), categories, k=2).mean == 1


def test_gini_of_exposure():
    # Shown 0, 0, 1, 3 times: sum of (2i - 5) c_i = 1 * 1 + 3 * 3 = 10; divided by 4 * 4.
    assert metrics.gini(ragged([[2, 3], [3], [3]]), items=4, k=2) == pytest.approx(10 / 16)
    assert metrics.gini(ragged([[0, 1], [2, 3]]), items=4, k=2) == 0
    assert math.isnan(metrics.gini(ragged([[], []]), items=4, k=2))


def test_exclusive_recall_counts_what_only_the_tags_bring():
    fused, alone = ragged([[1, 2, 3], [4, 5, 6]]), ragged([[1, 9, 3], [6, 5, 4]])
    truths = ragged([[1, 2], [4, 7, 8]])
    # k = 3: user 0 gains item 2 of two truths; for user 1 nothing is new. k = 1: item 4 stands first only when fused.
    assert metrics.exclusive_recall(fused, alone, truths, k=3).per_user.tolist() == [1 / 2, 0]
    assert metrics.exclusive_recall(fused, alone, truths, k=1).mean == pytest.approx((0 + 1 / 3) / 2)
    assert metrics.exclusive_recall(alone, alone, truths, k=3).mean == 0


def test_interval_is_seeded_and_brackets_the_mean():
    values = np.array([0.0, 1.0] * 50 + [math.nan])
    low, high = metrics.interval(values, seed=3)
    assert (low, high) == metrics.interval(values, seed=3)
    # Standard error of a share of one half with n = 100 is 0.05; 1.96 of them are 0.098.
    assert low == pytest.approx(0.5 - 0.098, abs=0.02)
    assert high == pytest.approx(0.5 + 0.098, abs=0.02)
    assert all(math.isnan(end) for end in metrics.interval(np.array([math.nan])))


@pytest.mark.parametrize(
    ("ranked", "truths", "k", "message"),
    [
        (ragged([[1, 1]]), ragged([[1]]), 2, "the ranked list of user row 0 holds item row 1 twice; rank it once"),
        (ragged([[-1]]), ragged([[1]]), 2, "a ranked list holds a negative item row"),
        (ragged([[1], [2]]), ragged([[1]]), 2, "`ranked` has 2 users but `truths` has 1"),
        (ragged([[1]]), ragged([[1]]), 0, "`k` must be at least 1, but it is 0"),
    ],
)
def test_unusable_lists_are_refused(ranked, truths, k, message):
    with pytest.raises(InvalidArrayError, match=message):
        metrics.ndcg(ranked, truths, k)


lists = st.lists(st.lists(st.integers(0, 8), unique=True, max_size=6), min_size=1, max_size=5)


@settings(deadline=None)
@given(lists, lists, st.integers(1, 6))
def test_metrics_stay_in_their_bounds_and_agree_on_zero(ranked, truths, k):
    users = min(len(ranked), len(truths))
    found, wanted = ragged(ranked[:users]), ragged(truths[:users])
    hit, part, gain = (
        measure(found, wanted, k).per_user for measure in (metrics.hit_rate, metrics.recall, metrics.ndcg)
    )
    for user in range(users):
        if not truths[user]:
            assert np.isnan([hit[user], part[user], gain[user]]).all()
            continue
        both = set(ranked[user][:k]) & set(truths[user])
        assert hit[user] == bool(both)
        assert part[user] == len(both) / len(truths[user])
        assert (gain[user] > 0) == bool(both)
        assert gain[user] <= 1 + 1e-12


def test_mrr_takes_the_first_hit_within_the_cut():
    # User 0 finds 7 at rank 3 and 5 at rank 1: the first counts. User 3's truth has no row.
    assert metrics.mrr(RANKED, TRUTHS, k=3).per_user[[0, 1, 3]].tolist() == [1, 0, 0]
    assert math.isnan(metrics.mrr(RANKED, TRUTHS, k=3).per_user[2])
    assert metrics.mrr(ragged([[1, 2, 3]]), ragged([[3, 2]]), k=3).mean == 1 / 2
    assert metrics.mrr(ragged([[1, 2, 3]]), ragged([[3]]), k=2).mean == 0


def test_average_precision_divides_by_all_truths():
    # Truths at ranks 1 and 3 of three: (1/1 + 2/3) / 3; within two places only the first: (1/1) / 3.
    assert metrics.average_precision(RANKED, TRUTHS, k=3).per_user[0] == pytest.approx((1 + 2 / 3) / 3)
    assert metrics.average_precision(RANKED, TRUTHS, k=2).per_user[0] == pytest.approx(1 / 3)


def test_coverage_and_entropy_of_exposure():
    shown = ragged([[2, 3], [3], [3, 0]])  # counts within one place: item 2 once, item 3 twice
    assert metrics.coverage(shown, items=4, k=1) == 2 / 4
    assert metrics.coverage(shown, items=4, k=2) == 3 / 4
    assert metrics.entropy(shown, items=4, k=1) == pytest.approx(-(1 / 3 * math.log2(1 / 3) + 2 / 3 * math.log2(2 / 3)))
    assert metrics.entropy(ragged([[1], [1]]), items=4, k=1) == 0
    assert math.isnan(metrics.entropy(ragged([[]]), items=4, k=1))
    with pytest.raises(InvalidArrayError, match="holds item row 3, but there are 3 items"):
        metrics.coverage(shown, items=3, k=2)


def test_intra_list_similarity_is_the_mean_cosine_of_pairs():
    vectors = np.array([[1.0, 0], [0, 2], [3, 3], [0, 0]])
    score = metrics.intra_list_similarity(ragged([[0, 1, 2], [0, 3], [1], [0, 1, 2]]), vectors, k=3)
    root = 1 / math.sqrt(2)  # cosine of (1, 0) and (3, 3)
    assert score.per_user[0] == pytest.approx((0 + root + root) / 3)
    assert score.per_user[1] == 0
    assert math.isnan(score.per_user[2])
    assert metrics.intra_list_similarity(ragged([[0, 1, 2]]), vectors, k=2).mean == pytest.approx(0)


def test_novelty_is_in_bits_and_counts_strangers_as_known_by_one():
    score = metrics.novelty(ragged([[0, 1, 2], []]), np.array([8, 2, 0]), users=8, k=3)
    assert score.per_user[0] == pytest.approx((0 + 2 + 3) / 3)
    assert math.isnan(score.per_user[1])
    with pytest.raises(InvalidArrayError, match="count users, not events"):
        metrics.novelty(ragged([[0]]), np.array([9]), users=8, k=1)


def test_redundancy_counts_places_that_repeat_an_earlier_one():
    codes = np.array([7, 7, 8, 7, -1, -1])
    pages = ragged([[0, 1, 2, 3], [2, 0], [4, 5], []])
    assert metrics.redundancy(pages, codes, k=4).per_user[:3].tolist() == [2 / 4, 0, 0]
    assert math.isnan(metrics.redundancy(pages, codes).per_user[3])
    assert metrics.redundancy(pages, codes, k=2).per_user[0] == 1 / 2
    # An item shown twice repeats itself.
    assert metrics.redundancy(ragged([[2, 2, 2]]), codes).mean == 2 / 3


def test_without_ads_the_places_close_up():
    codes, pages = np.array([7, 8, 7, 7]), ragged([[0, 1, 2, 3], [1]])
    ads = np.array([True, False, False, False, True])
    # Without its ad the first page is codes 8, 7, 7; its first two places do not repeat. The second page is empty.
    assert metrics.redundancy(pages, codes, k=2, skip=ads).per_user[0] == 0
    assert metrics.redundancy(pages, codes, k=3, skip=ads).per_user[0] == 1 / 3
    assert math.isnan(metrics.redundancy(pages, codes, skip=ads).per_user[1])
    with pytest.raises(InvalidArrayError, match="`skip` has 1 rows but `lists` has 5 places"):
        metrics.redundancy(pages, codes, skip=np.array([True]))


def test_title_redundancy_compares_sets_of_words():
    titles = ["Red Wool Scarf", "red scarf, wool, long", "Blue hat", "", "亚麻长裤", "亚麻短裤"]
    # Shared 3 of 4 words; 3 of 5 characters.
    assert metrics.title_redundancy(ragged([[0, 2, 1]]), titles).mean == 1 / 3
    assert metrics.title_redundancy(ragged([[0, 2, 1]]), titles, like=0.8).mean == 0
    assert metrics.title_redundancy(ragged([[4, 5]]), titles, like=0.6).mean == 1 / 2
    assert metrics.title_redundancy(ragged([[3, 3]]), titles).mean == 0
    with pytest.raises(InvalidArrayError, match="`like` must lie above 0 and at most at 1, but it is 0"):
        metrics.title_redundancy(ragged([[0]]), titles, like=0)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 8), max_size=6), min_size=1, max_size=4),
    st.lists(st.integers(-1, 3), min_size=9, max_size=9),
    st.none() | st.integers(1, 7),
    st.randoms(use_true_random=False),
)
def test_redundancy_equals_reading_the_page(pages, codes, k, random):
    skip = [[random.random() < 0.3 for _ in page] for page in pages]
    score = metrics.redundancy(ragged(pages), np.array(codes), k, skip=np.array([s for row in skip for s in row], bool))
    for user, (page, ads) in enumerate(zip(pages, skip, strict=True)):
        seen = [codes[item] for item, ad in zip(page, ads, strict=True) if not ad][:k]
        if not seen:
            assert math.isnan(score.per_user[user])
            continue
        repeats = sum(code >= 0 and code in seen[:place] for place, code in enumerate(seen))
        assert score.per_user[user] == repeats / len(seen)


@settings(deadline=None, max_examples=60)
@given(lists, lists, st.integers(1, 7))
def test_metrics_equal_trec_eval(ranked, truths, k):
    """`ir_measures` runs trec_eval's own code; it knows no user without truths, and no list without items."""
    users = [user for user, (own, wanted) in enumerate(zip(ranked, truths, strict=False)) if own and wanted]
    if not users:
        return
    qrels = [ir_measures.Qrel(str(user), str(item), 1) for user in users for item in truths[user]]
    run = [
        ir_measures.ScoredDoc(str(user), str(item), float(-place))
        for user in users
        for place, item in enumerate(ranked[user])
    ]
    theirs = {
        metrics.hit_rate: ir_measures.Success @ k,
        metrics.recall: ir_measures.R @ k,
        metrics.ndcg: ir_measures.nDCG @ k,
        metrics.mrr: ir_measures.RR @ k,
        metrics.average_precision: ir_measures.AP @ k,
    }
    found, wanted = ragged([ranked[user] for user in users]), ragged([truths[user] for user in users])
    values = {
        (row.measure, row.query_id): row.value for row in ir_measures.iter_calc(list(theirs.values()), qrels, run)
    }
    for ours, measure in theirs.items():
        expected = [values[measure, str(user)] for user in users]
        np.testing.assert_allclose(ours(found, wanted, k).per_user, expected, atol=1e-9, err_msg=str(measure))


def test_golden_vector_of_a_thousand_lists():
    """Values of this seed, computed once; a change of any formula or of tie handling shows here."""
    random = np.random.default_rng(7)
    found = ragged([random.permutation(50)[: random.integers(1, 30)] for _ in range(1000)])
    wanted = ragged([random.permutation(50)[: random.integers(0, 6)] for _ in range(1000)])
    came = [
        measure(found, wanted, 10).mean
        for measure in (metrics.hit_rate, metrics.recall, metrics.ndcg, metrics.mrr, metrics.average_precision)
    ]
    known = np.bincount(found.values, minlength=50)
    came += [
        metrics.coverage(found, 50, 1),
        metrics.gini(found, 50, 10),
        metrics.entropy(found, 50, 10),
        metrics.novelty(found, known, 1000, 10).mean,
        metrics.redundancy(found, np.arange(50) % 9, 8).mean,
    ]
    golden = [
        0.4019370460048426,
        0.16577885391444713,
        0.10635859708493693,
        0.13501767938813944,
        0.0541230286841667,
        1.0,
        0.037729806665875935,
        5.640359704086972,
        1.7570729711411308,
        0.24729642857142858,
    ]
    np.testing.assert_allclose(came, golden, rtol=1e-12)


@pytest.mark.parametrize("module", [diversity, intervals, ragged_lists, ranking, repetition])
def test_examples_in_the_docs_are_true(module):
    outcome = doctest.testmod(module, extraglobs=vars(metrics))
    assert outcome.attempted
    assert not outcome.failed
