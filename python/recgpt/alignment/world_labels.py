"""Labels that the truth of planted worlds gives, for a judge where nobody has labeled yet; their annotator is `world`.

Right outputs are the truth-teller's; wrong ones are put together from two shoppers' outputs or name no good at all. A
label says what can be seen in the output itself, never what stands in a log that a judge is not shown:

    tags/relevance          the tag names a ware of the stated interest
    tags/consistency        what the reason says was done is for the interest that the tag serves
    interests/correlation   everything that was done is for the interest (Excellent), or nothing of it (Bad)
    explanations/relevance  the item is for the stated interest, and the text names the item's ware
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from recgpt.alignment import worlds
from recgpt.alignment.harvest import NOTHING
from recgpt.alignment.truth import Truth
from recgpt.errors import AlignmentError
from recgpt.judge import Buffer, Criterion, Sample
from recgpt.judge.buffer import Label
from recgpt.pipeline import judging
from recgpt.pipeline.config import Config
from recgpt.pipeline.watch import Watch

WORLD = "world"
"""The annotator. Its labels carry the name of their world as note."""
LEARNED, JUDGED = 1, 2
"""Rounds: labels of training worlds, and those of the judging world."""
OUTPUTS: Mapping[str, int] = {"tags": 75, "interests": 40, "explanations": 40}
"""Outputs of each world that are labeled, by task."""
MADE: Mapping[str, Mapping[str, float]] = {
    "tags": {"own": 60, "other tag": 12, "other goods": 12, "other interest": 10, "no good": 6},
    "interests": {"own": 65, "other interest": 35},
    "explanations": {"own": 65, "other text": 20, "other interest": 15},
}
"""How often an output is left as it is, or gets parts of another shopper's: most pass, as in the report's Table 9."""
_MAY = ", so they may use "
_PARTS = re.compile(r"[;,]")


def buffer(
    config: Config,
    folder: Path,
    criteria: Mapping[str, Criterion],
    *,
    seed: int = worlds.SEED,
    count: int = 3,
    users: int = 120,
    watch: Watch | None = None,
) -> Buffer:
    """Make worlds, let the truth-teller answer for their shoppers, spoil some of it, and label all by what is true.

    Args:
        config: of the run; its `data.world` is the judging world.
        folder: where worlds and buffer go; an older buffer there is made anew.
        criteria: by key.
        seed: of the first training world.
        count: how many training worlds.
        users: of all training worlds together; the judging world has as many as one of them.
        watch: told of every stage.

    Raises:
        AlignmentError: a world to learn from is the one to judge on, or too small to label anything.
    """
    if count < 1 or users < 2 * count:
        raise AlignmentError(f"at least one world with two users each is needed, but there are {count} and {users}")
    path = folder / "world.sqlite"
    for old in folder.glob("world.sqlite*"):
        old.unlink()
    found, each, judged = Buffer(path), -(-users // count), config.data.world.seed
    made = [
        (worlds.world_of(config, folder, seed=seed + at, users=each, turn=at / count), LEARNED) for at in range(count)
    ]
    made.append((worlds.at_seed(config, folder, seed=judged, users=each, turn=0.0), JUDGED))
    for one, number in made:
        # What the truth-teller chooses, it chooses as an aligned model does.
        mining = replace(one.interests, reference=NOTHING.strip())
        stages = worlds.prepared(one.model_copy(update={"interests": mining}), watch)
        origin = worlds.origin_of(one.data)
        with stages.clock.stage("labels", "labeling outputs by what is true") as summary:
            worlds.told(stages, mode="rank")
            tables, truth = judging.Tables(stages.config), worlds.truth_of(stages)
            labels: list[Label] = []
            for task in OUTPUTS:
                own = [sample for _, sample in judging.written(tables, task)]
                chosen = labeled(task, own, truth, seed=one.data.world.seed)
                found.add_samples([sample for sample, _ in chosen], source="pre-alignment", round=number)
                labels += [
                    Label(sample.id, f"{task}/{name}", WORLD, verdict, note=origin, round=number)
                    for sample, said in chosen
                    for name, verdict in said.items()
                    if f"{task}/{name}" in criteria
                ]
            found.add_labels(labels, criteria)
            summary.append(f"{origin}: {len(labels)} labels by the world's truth, none by people")
    return found


def labeled(task: str, own: Sequence[Sample], truth: Truth, *, seed: int) -> list[tuple[Sample, dict[str, str]]]:
    """Draw outputs of a task, spoil some, and give each with its verdicts by name of criterion.

    Args:
        task: of `OUTPUTS`.
        own: outputs that the truth-teller gave.
        truth: of their world.
        seed: decides what is drawn and how it is spoiled.
    """
    chance = random.Random(f"{seed}/{task}")
    rows = sorted((one for one in own if _stated(one)), key=lambda one: one.id)
    chance.shuffle(rows)
    kinds, weights = list(MADE[task]), list(MADE[task].values())
    say = {"tags": _say_tag, "interests": _say_interest, "explanations": _say_text}[task]
    found: dict[str, tuple[Sample, dict[str, str]]] = {}
    for row in rows:
        if len(found) >= OUTPUTS[task]:
            break
        others = [one for one in rows if one.fields["interest"] != row.fields["interest"]]
        if not others:
            break
        made = _made(chance.choices(kinds, weights)[0], row, chance.choice(others))
        if made is not None and (said := say(made.fields, truth)):
            found[made.id] = (made, said)
    return list(found.values())


def _made(kind: str, row: Sample, other: Sample) -> Sample | None:
    """Leave an output as it is, or put it together from two; None where that cannot be."""
    a, b = row.fields, other.fields
    if kind == "own":
        return Sample(row.task, dict(a), user_id=row.user_id)
    if row.task == "interests":
        return Sample(row.task, {**a, "interest": b["interest"]}, user_id=row.user_id)
    if row.task == "explanations":
        return Sample(row.task, {**a, **({"text": b["text"]} if kind == "other text" else {"interest": b["interest"]})})
    if _MAY not in a["reason"] or _MAY not in b["reason"]:
        return None
    tag, category = b["tag"], b["category"]
    if kind == "no good":
        # A department, or words that describe and name nothing.
        department = b["category"].partition(" > ")[0].lower()
        tag = department if int(row.id[0], 16) % 2 else f"{a['tag'].split()[0]} {b['tag'].split()[0]}"
        category = b["category"].partition(" > ")[0]
    goods = b if kind == "other interest" else a
    liked = a if kind in ("other interest", "other tag", "no good") else b
    did = goods["reason"].partition(_MAY)[0].removesuffix(f" and like {goods['interest']}")
    purpose = b["reason"].partition(_MAY)[2].partition(" to ")[2]
    return Sample(
        "tags",
        {
            "shopper": goods["shopper"],
            "interest": liked["interest"],
            "reason": f"{did} and like {liked['interest']}{_MAY}{tag} to {purpose}",
            "category": category,
            "tag": tag,
        },
        user_id=(other if goods is b else row).user_id,
    )


def _stated(one: Sample) -> bool:
    return one.fields["interest"] not in ("none", "none stated")


def _theme(text: str, truth: Truth) -> str:
    return truth.themes.get(truth.ware(text), "")


def _say_tag(fields: Mapping[str, str], truth: Truth) -> dict[str, str]:
    served = _theme(fields["tag"], truth)
    did = _theme(fields["reason"].partition(_MAY)[0].removesuffix(f" and like {fields['interest']}"), truth)
    said = {"relevance": _word(served == fields["interest"])}
    # Of words that name no good nobody can say whether they follow from what was done.
    return {**said, "consistency": _word(served == did)} if served and did else said


def _say_interest(fields: Mapping[str, str], truth: Truth) -> dict[str, str]:
    themes = {_theme(part, truth) for part in _PARTS.split(fields["what was done"])} - {""}
    if themes == {fields["interest"]}:
        return {"correlation": "Excellent"}
    # What was done for several things is between the two; how far, no truth says.
    return {"correlation": "Bad"} if themes and fields["interest"] not in themes else {}


def _say_text(fields: Mapping[str, str], truth: Truth) -> dict[str, str]:
    item, text = truth.ware(fields["item"].partition(" ; ")[0]), truth.ware(fields["text"])
    right = truth.themes.get(item, "") == fields["interest"] and text == item
    return {"relevance": _word(right)} if item and text else {}


def _word(passes: bool) -> str:
    return "Yes" if passes else "No"
