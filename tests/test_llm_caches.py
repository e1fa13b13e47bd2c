"""Which cache a call takes, on caches that hold nothing."""

import numpy as np
import pytest

from recgpt.llm.jobs import Job

pytest.importorskip("llama_cpp")
from recgpt.llm.caches import Caches


class Empty:
    """A cache without a model; one apart of more than `most` sequences is too large."""

    control = np.array([], np.int32)
    vocabulary = 5
    most = 64

    def __init__(self, *, cells, sequences=256, apart=False):
        if apart and sequences > self.most:
            raise RuntimeError("too little memory?")
        self.cells, self.sequences, self.apart = cells, sequences, apart
        self.adapters, self.closed = [], False

    def adapt(self, path):
        self.adapters.append(path)
        if path == "bad" and self.apart:
            raise RuntimeError("it does not fit")

    def close(self):
        self.closed = True


def caches(most=64):
    make = type("Made", (Empty,), {"most": most})
    return Caches(make, lambda: 0, cells=2048, sequences=32, longest=1024)


def texts(number, size, own):
    """Texts that begin alike but for their last `own` tokens."""
    return [
        Job(at, np.array([*range(1000, 1000 + size - own), *[at] * own], np.int32), room=20) for at in range(number)
    ]


def test_texts_of_unlike_prompts_go_apart_and_all_else_shares():
    held = caches()
    assert not held.choose(texts(24, 900, 10)).model.apart
    assert not held.choose(texts(4, 900, 900)).model.apart
    apart = held.choose(texts(24, 900, 600)).model
    # 920 tokens fill 1,024 cells, of which the room of 16 longest requests has 16.
    assert (apart.apart, apart.cells, apart.sequences) == (True, 1024, 16)
    assert held.choose(texts(24, 400, 300)).model is apart
    scores = [Job(0, np.arange(9, dtype=np.int32), candidates=[[1]]), *texts(24, 900, 600)]
    assert not held.choose(scores).model.apart


def test_a_longer_call_makes_the_cache_anew_with_the_adapter_in_use():
    held = caches()
    held.adapt("lora")
    first = held.choose(texts(24, 400, 300)).model
    assert (first.sequences, first.adapters) == (32, ["lora"])
    second = held.choose(texts(24, 900, 600)).model
    assert (first.closed, second.closed, second.adapters) == (True, False, ["lora"])


def test_where_memory_is_short_fewer_go_apart_or_none():
    assert caches(most=9).choose(texts(24, 400, 300)).model.sequences == 8
    assert not caches(most=3).choose(texts(24, 400, 300)).model.apart


def test_an_adapter_that_fails_is_no_shortage_of_memory():
    held = caches()
    held.adapt("bad")
    with pytest.raises(RuntimeError, match="it does not fit"):
        held.choose(texts(24, 400, 300))
