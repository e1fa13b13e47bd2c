"""What a grammar costs by itself: the time of choosing each token with it and without, on the same logits and text."""

import statistics
import time

import llama_cpp.llama_cpp as C
import numpy as np

from llm_bench.raw import raw_decode
from llm_bench.setting import interest_requests
from recgpt.llm import grammar
from recgpt.llm.batch import Token
from recgpt.llm.chat import Chat
from recgpt.llm.context import Context
from recgpt.llm.jobs import BATCH, Job
from recgpt.llm.native import Model
from recgpt.llm.sampling import sample

WIDTH = 16
"""Sequences whose raw decoding a token's choice is held against."""
USERS, TOKENS = 4, 120
"""Texts that are written, and most tokens of each. One at a time, without guesses."""


class Counted:
    """A grammar's state that counts how far it was asked: the best token, the best few, the whole vocabulary."""

    def __init__(self, matcher):
        self.matcher, self.asked = matcher, 0

    def allowed(self, tokens):
        self.asked += len(tokens)
        return self.matcher.allowed(tokens)

    def accept(self, token):
        self.matcher.accept(token)

    def close(self):
        self.matcher.close()


def choosing(setting):
    """Write a few interest answers under the grammar and choose each token in three ways."""
    with setting.engine() as engine:
        path, requests = engine.computed_path, interest_requests(engine, USERS)
    raw = raw_decode(setting, path, (WIDTH,), 64)[WIDTH]
    C.llama_backend_init()
    model = Model(str(path), n_gpu_layers=setting.options["n_gpu_layers"])
    context = Context(
        model, cells=2048, sequences=1, threads=setting.threads, kv_type=setting.kv or setting.chosen_kv(),
        flash_attention=setting.options["flash_attention"] or setting.kv == "q8_0",
    )  # fmt: skip
    chat = Chat(model.chat_template(), model.tokenize, bos=model.text("bos"), eos=model.text("eos"))
    every = np.arange(model.vocabulary, dtype=np.int32)
    checked, plain, masked, tiers = [], [], [], []

    def written(request, forced):
        """Write one answer, under the grammar, or, without, the `forced` one; yield each row before it is judged."""
        tokens, position = chat.encode(request.prompt), 0
        for at in range(TOKENS):
            for begin in range(0, len(tokens), BATCH):
                part = tokens[begin : begin + BATCH]
                last = begin + len(part) == len(tokens)
                rows = context.decode(
                    [Token(t, position + at, (0,), last and at == len(part) - 1) for at, t in enumerate(part)]
                )
                position += len(part)
            if forced is not None:
                if at == len(forced):
                    break
                rows[0][forced[at]] = rows[0].max() + 1
            tokens = yield rows[0]
        context.cut(0, 0)

    for request in requests:
        gbnf = grammar.to_gbnf(request.schema)
        job, free = (Job(0, np.empty(0, np.int32), room=TOKENS) for _ in range(2))
        job.matcher = Counted(model.matcher(gbnf))
        # Each way in a pass of its own: what comes first after a decode pays for cold caches.
        for one, forced, times in ((job, None, checked), (free, job.answer, plain)):
            rows = written(request, forced)
            row = next(rows)
            while True:
                if one is job:
                    job.matcher.asked = 0
                begun = time.perf_counter()
                how = sample(model, one, row)
                spent = time.perf_counter() - begun
                if how != "end":
                    times.append(spent)
                if one is job and how != "end":
                    tiers.append(job.matcher.asked)
                    if len(tiers) % 8 == 0 and not how:
                        # As engines do that apply the grammar first.
                        begun = time.perf_counter()
                        job.matcher.matcher.allowed(every)
                        masked.append(time.perf_counter() - begun)
                try:
                    if how:
                        break
                    row = rows.send(one.answer[-1:])
                except StopIteration:
                    break
            rows.close()
            context.cut(0, 0)
        assert free.answer == job.answer
        job.matcher.close()
    context.close()
    with_it, without, whole = (1e6 * statistics.mean(times) for times in (checked, plain, masked))
    asked = ", ".join(f"{top} for {tiers.count(top) / len(tiers):.1%}" for top in sorted(set(tiers)))
    cost = (with_it - without) / (1e6 / raw + without)
    print(
        f"choosing a token, {len(checked)} of the same texts: {with_it:.0f} us under the grammar "
        f"(median {1e6 * statistics.median(checked):.0f}), {without:.0f} without, {whole:.0f} more if the whole "
        f"vocabulary were masked each time; asked were the best {asked}; a token takes {1e6 / raw:.0f} us to decode at "
        f"{WIDTH} sequences"
    )
    return {
        "choosing_us": round(with_it),
        "choosing_us_without_grammar": round(without),
        "masking_us": round(whole),
        "grammar_cost": round(cost, 3),
        "masking_cost": round(whole / (1e6 / raw + without), 3),
    }
