"""Long and short requests in one call, against the same requests apart; straight and through the ledger."""

import tempfile

from llm_bench.setting import cpu, history, in_vain, timed
from recgpt.llm import Recorded, ledger
from recgpt.llm.engine import Prompt, Request

LONG, SHORT = (8, 560, 48), (24, 40, 12)
"""Requests, tokens of each own prompt and of each answer."""


def through_ledger(setting, requests):
    """Answer all requests on a new engine through a new ledger.

    Returns:
        Seconds, processor seconds, those of the ledger itself, and the engine's counters.
    """
    own = []
    # Answers are cut by this bench's own limits; asking for them again would be other work.
    ledger.RETRIES = 0
    with tempfile.TemporaryDirectory() as folder, setting.engine() as engine, Recorded(engine, folder) as asking:
        keep, ask = asking._keep, engine.generate
        asking._keep = lambda *parts: own.append(timed(lambda: keep(*parts))[0])
        inside = []

        def generate(part, progress=None):
            spent, answers = timed(lambda: ask(part, progress))
            inside.append(spent)
            return answers

        engine.generate = generate
        before, begun = engine.stats, cpu(engine)
        spent, _ = timed(lambda: asking.generate(requests))
        busy = cpu(engine) - begun
        tokens = {key: value - before[key] for key, value in engine.stats.items()}
    return spent, busy, spent - sum(inside) + sum(own), tokens


def directly(setting, requests):
    """Answer all requests on a new engine: seconds, processor seconds, and the engine's counters."""
    with setting.engine() as engine:
        before, begun = engine.stats, cpu(engine)
        spent, _ = timed(lambda: engine.generate(requests))
        return spent, cpu(engine) - begun, {key: value - before[key] for key, value in engine.stats.items()}


def requests_of(setting):
    """Make long and short requests; nothing of their own prompts is shared."""
    with setting.engine() as engine:
        count = engine.count_tokens
        long, short = (
            [
                Request(Prompt("You say what a shopper wants.", f"{seed + at} {history(count, seed + at, size)}"), room)
                for at in range(number)
            ]
            for seed, (number, size, room) in ((100, LONG), (500, SHORT))
        )
    return long, short


def mixed(setting):
    """Time long ones alone, short ones alone, and all in one call."""
    long, short = requests_of(setting)
    # In the order of a shop: whoever comes.
    together = [request for at in range(len(long)) for request in (long[at], *short[3 * at : 3 * at + 3])]
    apart = {name: directly(setting, group) for name, group in (("long", long), ("short", short))}
    spent, busy, tokens = directly(setting, together)
    ledgered, ledger_busy, own, ledger_tokens = through_ledger(setting, together)
    both = [sum(found[place] for found in apart.values()) for place in (0, 1)]
    passes = sum(found[2]["decodes"] for found in apart.values())
    for name, found in (*apart.items(), ("together", (spent, busy, tokens))):
        must = found[2]["computed_tokens"] + found[2]["answer_tokens"]
        print(
            f"mixed, {name:8}: {found[0]:.1f} s, {found[1]:.1f} CPU s, {found[2]['decodes']} passes, {must} tokens "
            f"that must be computed, {in_vain(found[2])} more"
        )
    print(
        f"  together {spent / both[0]:.3f} of the time apart ({busy / both[1]:.3f} by CPU), {tokens['decodes']} passes "
        f"instead of {passes}; through the ledger {ledger_tokens['decodes']} passes, {ledgered:.1f} s "
        f"({ledger_busy:.1f} CPU), {own:.3f} s of them its own"
    )
    return {
        "mixed_vs_apart": round(spent / both[0], 3),
        "mixed_vs_apart_cpu": round(busy / both[1], 3),
        "mixed_passes": tokens["decodes"],
        "mixed_passes_apart": passes,
        "mixed_passes_through_ledger": ledger_tokens["decodes"],
        "mixed_ledger_own": round(own / ledgered, 4),
    }
