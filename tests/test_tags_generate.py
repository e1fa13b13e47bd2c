"""Stage 5, mode `generate`: every triplet that a model wrote is judged again."""

from __future__ import annotations

import pytest
from tagging import USERS, Scripted, answered, predict

from recgpt.llm.engine import Result

# --- generate


GOOD = ("Mild salsa", "Salsa dancing", "Bought tortilla chips, salsa goes along.")


@pytest.mark.parametrize(
    ("triplet", "reason"),
    [
        (("salsa", "salsa dancing", "Bought tortilla chips."), "too_broad"),
        (("acme salsa dip", "salsa dancing", "Bought tortilla chips."), "brand"),
        (("tostitos salsa dip", "salsa dancing", "Bought tortilla chips."), "brand"),
        (("mild mexican", "salsa dancing", "Bought tortilla chips."), "no_good"),
        (("salsa dip 500", "salsa dancing", "Bought tortilla chips."), "model"),
        (("salsa dip set", "salsa dancing", "Bought tortilla chips."), "vague_word"),
        (("potato chips", "salsa dancing", "Bought tortilla chips."), "past_month"),
        (("salsa dip", "sailing", "Bought tortilla chips."), "unknown_interest"),
        (("rye cracker", "bread baking", "Bought tortilla chips."), "irrelevant"),
        (("salsa dip", "salsa dancing", "Owns a red boat."), "ungrounded"),
        (("salsa dip", "salsa dancing", "Bought tortilla chips 7 times."), "invented_number"),
        (("mild salsa", "salsa dancing", "Bought tortilla chips."), "duplicate"),
    ],
)
def test_generate_validates_every_triplet_again(triplet, reason):
    engine = Scripted(lambda request: answered(GOOD, triplet))
    predicted = predict(engine, users=USERS.slice(0, 1), mode="generate")
    rows = predicted.table.to_pylist()
    assert [(row["tag"], row["interest"], row["source"]) for row in rows] == [
        ("mild salsa", "salsa dancing", "generate")
    ]
    assert predicted.counts["rejected"] == {reason: 1}
    assert (predicted.counts["answers_total"], predicted.counts["answers_valid"]) == (2, 1)


def test_first_answers_are_every_triplet_with_what_is_wrong_with_its_reason():
    poor = ("salsa", "salsa dancing", "Owns a red boat.")
    engine = Scripted(lambda request: answered(GOOD, poor))
    first = predict(engine, users=USERS.slice(0, 1), mode="generate").first
    assert [(one.user, one.tag, one.interest, one.fault) for one in first] == [
        ("ann", "mild salsa", "Salsa dancing", ""),
        ("ann", "salsa", "salsa dancing", "ungrounded"),
    ]


def test_generate_keeps_what_cannot_be_read():
    results = [Result("unscored", "[{", reason="parse: end of text"), answered(GOOD)]
    # What the engine says that its text means is not believed.
    results[1].value["tags"].append({"tag": "x"})
    engine = Scripted(lambda request: results[request.key == "tags/ann"])
    predicted = predict(engine, mode="generate")
    assert predicted.counts["unscored"] == {"parse: end of text": 1}
    assert predicted.rejections["raw"].to_pylist()[0] is not None
    assert predicted.table.num_rows == 1
    broken = Result("ok", '{"tags": [{"tag": "x"}]}', results[1].value)
    (said,) = predict(Scripted(lambda request: broken), users=USERS.slice(0, 1), mode="generate").counts["unscored"]
    assert said == "schema: answer.tags[0] must be an object with tag, interest, reason"


def test_the_generate_prompt_carries_the_paper_s_points():
    engine = Scripted(lambda request: answered(GOOD))
    predict(engine, users=USERS.slice(0, 1), mode="generate")
    request = engine.generated[0][0]
    system = request.prompt.system
    for point in ("50", "brand or model", "smart", "modular", "set", "last month", "season", "interest", "reason"):
        assert point in system
    assert request.schema["properties"]["tags"]["maxItems"] >= 50
    assert "tortilla chip" in request.prompt.user
