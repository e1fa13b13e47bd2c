"""How many verdicts a minute does the judge give, and what sways it that should not: position, length, injected text?

    python benches/judge.py [--only speed,position,length,injections,drifts] [--samples N] [--model PATH] [--threads N]

Samples are tags for shoppers of the generated world, half of them paired with an interest of another shopper. `speed`
counts the model's verdicts; the rules' are free beside them. `position` asks again with the words of the scale and
their examples in the other order. `length` correlates a score with the length of the judged text (Spearman).
`injections` puts 500 hostile strings behind a tag, one each, and counts verdicts that turn. `drifts` needs no model: in
100 seeded planted worlds it injects a drift of behavior, of items, of criteria and none between two milestones with
simulated annotators (`tests/drifts.py`), and counts how often the judge is called degraded. The last line is JSON.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from recgpt import datasets, judge, tags
from recgpt.interests import Pool
from recgpt.judge import Sample, bias
from recgpt.llm import LlamaCpp, default_model_path

sys.path.append(str(Path(__file__).parents[1] / "tests"))
PARTS = ("speed", "position", "length", "injections", "drifts")
SEEDS = 100


def samples(count):
    """Make tags of the generated catalogue for interests of the pool, in a fixed order."""
    items = datasets.load("world", users=1, items=max(60, 4 * count), seed=7).items
    shelf = dict(zip(items["item_id"].to_pylist(), items["category"].to_pylist(), strict=True))
    of = {row["tag"]: shelf[row["item_id"]] for row in tags.item_tags(items).to_pylist()}
    found = sorted(of)
    interests = [entry.name for entry in Pool.load().interests]
    return [
        Sample(
            "tags",
            {
                "shopper": f"age {20 + place % 50}; household of {1 + place % 4}",
                "interest": interests[place * 7 % len(interests)],
                "reason": f"They like {interests[place * 7 % len(interests)]}, so they may use it at home.",
                "category": of[found[place % len(found)]],
                "tag": found[place % len(found)],
            },
            ruled=dict.fromkeys(judge.criteria.RULES["tags"], ""),
        )
        for place in range(count)
    ]


def share(turned):
    """Pool what turned over the criteria."""
    return round(sum(count * part for count, part in turned.values()) / sum(count for count, _ in turned.values()), 4)


def main():
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--samples", type=int, default=150)
    parser.add_argument("--model", default=None)
    parser.add_argument("--threads", type=int, default=None)
    given = parser.parse_args()
    parts, criteria = given.only.split(","), judge.load()
    figures = {
        "samples": given.samples,
        **dict.fromkeys(
            ("verdicts_per_minute", "computed_tokens_a_verdict", "position_flips", "length_spearman", "injection_flips",
             "alarms")
        ),
    }  # fmt: skip
    if "drifts" in parts:
        import drifts

        figures["alarms"] = {drift: drifts.alarms(drift, range(SEEDS)) for drift in drifts.SIZES}
        for drift, caught in figures["alarms"].items():
            print(f"drift of size {drifts.SIZES[drift]:g}: {drift:<9} called degraded in {caught} of {SEEDS} worlds")
    if set(parts) <= {"drifts"}:
        print(json.dumps(figures))
        return
    engine = LlamaCpp(given.model or default_model_path(), threads=given.threads, weights="bf16")
    try:
        judge.judge(samples(2), criteria, engine=engine)  # loads the model
        begun = time.perf_counter()
        plain = judge.judge(samples(given.samples), criteria, engine=engine)
        seconds = time.perf_counter() - begun
        count = plain.counts["llm"]
        figures["verdicts_per_minute"] = round(60 * count / seconds, 1)
        figures["computed_tokens_a_verdict"] = round(plain.counts["computed_tokens"] / count, 1)
        print(f"speed: {count} verdicts of the model in {seconds:.1f} s; {plain.counts['rule']} by rules")
        if "position" in parts:
            other = judge.judge(samples(given.samples), criteria, engine=engine, backward=True)
            figures["position_flips"] = share(bias.turns(plain, other))
            print(f"position: {figures['position_flips']:.1%} of the verdicts turn when the scale is named backward")
        if "length" in parts:
            found = bias.lengths(plain, samples(given.samples))
            figures["length_spearman"] = round(float(np.mean([one or 0.0 for one in found.values()])), 3)
            print(f"length: Spearman {figures['length_spearman']:+.3f} between a tag's length and its score")
        if "injections" in parts:
            from hostile import attacks

            strings = attacks()
            many = samples(len(strings))
            quiet, loud = (judge.judge(each, criteria, engine=engine) for each in (many, bias.injected(many, strings)))
            figures["injection_flips"] = share(bias.turns(quiet, loud))
            print(
                f"injections: {figures['injection_flips']:.1%} of {quiet.counts['llm']} verdicts turn, "
                f"{loud.counts['unscored']} unscored"
            )
    finally:
        engine.close()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
