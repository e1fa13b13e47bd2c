"""How the stages are joined: who is drawn, what a configuration may say, what explains an item."""

import numpy as np
import pyarrow as pa
import pytest

from recgpt import schema
from recgpt.errors import InvalidConfigError
from recgpt.pipeline import config, households


def kept(counts: dict[str, int]) -> pa.Table:
    return pa.table(
        {"user_id": [u for u, n in counts.items() for _ in range(n)], "behavior": ["purchase"] * sum(counts.values())}
    )


def test_the_draw_takes_one_described_buyer_from_each_length_stratum() -> None:
    counts = {f"u{n}": n for n in range(1, 21)}
    users = schema.rows([{"user_id": u, "attributes": None if u == "u20" else "age 30"} for u in counts], schema.USERS)
    buyers = pa.array([u for u in counts if u != "u19"], pa.large_string())
    drawn = households.draw(kept(counts), users, buyers, count=3, min_events=10, seed=0)
    assert len(drawn) == 3
    lengths = [int(u[1:]) for u in drawn]
    assert [10 <= lengths[0] <= 12, 13 <= lengths[1] <= 15, 16 <= lengths[2] <= 18] == [True] * 3
    assert drawn == households.draw(kept(counts), users, buyers, count=3, min_events=10, seed=0)


def test_fewer_eligible_users_than_asked_all_come() -> None:
    users = schema.rows([{"user_id": "a", "attributes": "x"}, {"user_id": "b", "attributes": "y"}], schema.USERS)
    table = kept({"a": 3, "b": 1})
    both = pa.array(["a", "b"], pa.large_string())
    assert households.draw(table, users, both, count=12, min_events=2, seed=0) == ["a"]


def test_users_without_attributes_fill_up() -> None:
    users = schema.rows([{"user_id": "a", "attributes": "x"}, {"user_id": "b", "attributes": None}], schema.USERS)
    both = pa.array(["a", "b"], pa.large_string())
    assert households.draw(kept({"a": 3, "b": 9}), users, both, count=1, min_events=2, seed=0) == ["a"]
    assert households.draw(kept({"a": 3, "b": 9}), users, both, count=2, min_events=2, seed=0) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("out = ", "is not TOML"),
        ('out = "o"\n[data]\n', "needs exactly one of `dataset` and `folder`"),
        ('out = "o"\n[data]\ndataset = "world"\nfolder = "f"\n', "needs exactly one of"),
        ('out = "o"\n[data]\ndataset = "world"\ntime_zone = "UTC"\n', "time_zone only go with `folder`"),
        ('out = "o"\n[data]\ndataset = "world"\n[tags]\nquantity = 0\n', "quantity must be at least 1"),
        ('out = "o"\n[data]\ndataset = "world"\n[tags]\nquantty = 9\n', "unknown: quantty"),
        ('out = "o"\n[data]\ndataset = "world"\n[serving]\nbeta = 2\nbetta = 1\n', "serving.beta.*serving.betta"),
    ],
)
def test_a_wrong_configuration_names_every_defect(tmp_path, text: str, message: str) -> None:
    path = tmp_path / "recgpt.toml"
    path.write_text(text)
    with pytest.raises(InvalidConfigError, match=message):
        config.load(path)


def test_a_missing_configuration_is_named(tmp_path) -> None:
    with pytest.raises(InvalidConfigError, match="was expected at"):
        config.load(tmp_path / "none.toml")


def test_served_items_are_paired_with_the_interests_that_go_with_them_whatever_tag_won() -> None:
    from recgpt.evaluation import Queries
    from recgpt.index import ExactIndex
    from recgpt.pipeline import served

    axes = np.eye(3, dtype=np.float32)
    index = ExactIndex(axes, ["hose", "tea", "pot"])
    asked = Queries(np.array([True]), np.ones((1, 3), np.float32), axes, np.array([0, 3]))
    going = {("u", "hose"): ["cooking", "gardening"], ("u", "tea"): [], ("u", "pot"): ["cooking"]}
    found = served.pairs(index, asked, lambda user, item: going[user, item], ["u"], beta=0.5, k=3).to_pylist()
    assert [(row["item_id"], row["interest"]) for row in found] == [
        ("hose", None),
        ("hose", "cooking"),
        ("hose", "gardening"),
        ("pot", None),
        ("pot", "cooking"),
        ("tea", None),  # a tag of gardening may have won it, but nothing says that tea has to do with that
    ]
    assert served.pairs(index, asked, lambda user, item: [], ["u"], beta=0.5, k=1).num_rows == 1


def test_an_item_is_explained_by_the_user_s_own_interests_and_by_the_pool_s_words() -> None:
    from recgpt import tags
    from recgpt.interests import Pool
    from recgpt.pipeline import served, tables

    pool = Pool.load()
    terms = tables.terms(pool)
    assert "cat litter" in terms["cat ownership"]
    assert "frozen vegetable" in terms[tags.STAPLES]
    assert set(terms) == {entry.name for entry in pool.interests} | {tags.STAPLES}
    mined = schema.rows(
        [
            {
                "user_id": "u",
                "rank": rank,
                "interest": text,
                "listed": True,
                "stage": "long-term",
                "evidence": [1],
                "source": "rank",
            }
            for rank, text in enumerate(("cat ownership", "soups and stews"), start=1)
        ],
        schema.INTERESTS,
    )
    items = schema.rows(
        [
            {"item_id": "1", "title": "CAT LITTER - CLUMPING, 20 LB", "category": "PETS"},
            {"item_id": "2", "title": "GASOLINE UNLEADED", "category": "FUEL"},
            {"item_id": "3", "title": "CHICKEN BROTH", "category": "SOUP"},
        ],
        schema.ITEMS,
    )
    predicted = tags.Predicted(
        schema.TAGS.empty_table(),
        schema.REJECTIONS.empty_table(),
        {},
        tags.Associations(["cat ownership", "soups and stews"], None, terms=terms),
    )
    explaining = served.explaining(predicted, mined, items, tags.item_tags(items), least=0.3)
    assert [explaining("u", item) for item in "123"] == [["cat ownership"], [], ["soups and stews"]]
    assert explaining("somebody else", "1") == []


def test_seen_lists_each_bought_item_once() -> None:
    from recgpt.pipeline import served

    events = schema.rows(
        [
            {"user_id": "u", "item_id": item, "behavior": behavior}
            for item, behavior in (("1", "purchase"), ("1", "purchase"), ("2", "click"), (None, "purchase"))
        ],
        schema.EVENTS,
    )
    assert served.seen(events, "purchase").to_pylist() == [{"user_id": "u", "item_id": "1"}]


def test_a_fingerprint_tells_content_and_not_chunks() -> None:
    from recgpt.pipeline.fingerprint import fingerprint

    whole = pa.table({"a": [1, 2, 3]})
    chunked = pa.concat_tables([whole.slice(0, 1), whole.slice(1)])
    assert fingerprint(whole, "x") == fingerprint(chunked, "x")
    assert fingerprint(whole, "x") != fingerprint(whole, "y")
    assert fingerprint(whole) != fingerprint(pa.table({"a": [1, 2, 4]}))


def test_a_fingerprint_does_not_read_what_lies_under_a_null() -> None:
    from recgpt.pipeline.fingerprint import fingerprint

    def masked(below: float, text: str) -> pa.Table:
        mask = np.array([False, True])
        stamp = pa.array(np.array([0, int(below)], "datetime64[us]"), mask=mask)
        return pa.table(
            {"price": pa.array(np.array([1.0, below]), mask=mask), "text": pa.array(["a", text], mask=mask), "t": stamp}
        )

    assert fingerprint(masked(2.0, "b")) == fingerprint(masked(3.0, "c"))
    assert fingerprint(pa.table({"a": [0, None]})) != fingerprint(pa.table({"a": [0, 0]}))
