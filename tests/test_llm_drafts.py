"""Guessed tokens: they save passes where texts repeat themselves, and change no answer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_llm_batch import Toy, logits, reference_text, run

from recgpt.llm.batch import Scheduler
from recgpt.llm.drafts import Guesses, worthwhile
from recgpt.llm.jobs import Job

TEXTS = st.lists(st.integers(1, 6), min_size=1, max_size=9)


def forgetful(tokens):
    """Logits that depend on the last two tokens alone, so that texts come back to where they were."""
    return logits(tokens[-2:])


class Forgetful(Toy):
    def logits(self, tokens):
        return forgetful(tokens)


def test_a_guess_is_what_came_the_last_time_after_three_tokens_or_two():
    guesses = Guesses(np.array([1, 2, 3, 4, 9, 2, 3, 5, 1, 2], np.int32))
    # Nothing has come after `5 1 2` yet; `1 2` came once, at the very beginning, where three were not known yet.
    assert guesses.guess(3) == []
    guesses.add(3)
    # After `1 2 3` came 4, and 4 9 2 after that; after `2 3` alone it was 5 the last time.
    assert guesses.guess(3) == [4, 9, 2]
    for token in (8, 2, 3):
        guesses.add(token)
    assert guesses.guess(4) == [8, 2, 3, 8]


def test_the_rate_follows_the_hits():
    guesses = Guesses(np.array([1, 2, 3] * 5, np.int32))
    before = guesses.rate
    for token in (1, 2, 3, 1):
        guesses.add(token)
    assert before < guesses.rate < 1
    good = guesses.rate
    guesses.add(9)
    assert guesses.rate == pytest.approx(0.8 * good)


def test_few_texts_try_sooner_than_many_and_one_alone_late():
    rates = [rate / 50 for rate in range(51)]
    least = {number: next(rate for rate in rates if worthwhile([(rate, 3)] * number)) for number in (1, 2, 4, 16, 64)}
    # One row alone is multiplied by quicker kernels, which a guess would give up.
    assert 0.6 < least.pop(1) < 0.8
    assert sorted(least.values()) == list(least.values())
    assert least[2] < 0.4 < 0.6 < least[64] < 0.8
    assert worthwhile([(1.0, 3)] * 64) == 3
    assert worthwhile([(1.0, 0)] * 4) == worthwhile([(0.0, 3)] * 4) == worthwhile([]) == 0


@pytest.mark.parametrize("apart", [False, True])
@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.integers(1, 6), min_size=1, max_size=9), st.integers(1, 60)), min_size=1, max_size=9)
)
def test_answers_are_those_without_guesses(apart, wanted):
    jobs = [Job(index, np.array(prompt, np.int32), room=room) for index, (prompt, room) in enumerate(wanted)]
    toy = Forgetful(80 if apart else 800, apart=apart)
    _, how = run(jobs, scheduler=Scheduler(toy, slots=6))
    for job in jobs:
        assert (job.answer, how[job.index]) == reference_text(job.prompt, job.room, forgetful)


@pytest.mark.parametrize("apart", [False, True])
def test_texts_that_repeat_themselves_take_fewer_passes(apart):
    jobs = [Job(index, np.array([index + 1, 2, 3], np.int32), room=150) for index in range(8)]
    toy = Forgetful(160 if apart else 1600, apart=apart)
    scheduler, _ = run(jobs, scheduler=Scheduler(toy, slots=8))
    longest = max(len(job.answer) for job in jobs)
    assert longest > 100
    assert scheduler.decodes < longest / 2
    if apart:
        # All sequences bring as many rows, so that they are one pass.
        for batch in toy.batches[8:]:
            rows = {}
            for token in batch:
                rows[token.sequences] = rows.get(token.sequences, 0) + 1
            assert len(set(rows.values())) == 1 or min(rows.values()) < 4


def test_chance_draws_the_same_with_guesses_as_without(monkeypatch):
    def written():
        jobs = [Job(at, np.array([at + 1, 2, 3], np.int32), room=150, temperature=0.1, seed=(at,)) for at in range(8)]
        scheduler, _ = run(jobs, scheduler=Scheduler(Forgetful(1600), slots=8))
        return [job.answer for job in jobs], scheduler.decodes

    answers, passes = written()
    monkeypatch.setattr("recgpt.llm.batch.MOST", 0)
    assert written()[0] == answers
    assert written()[1] > passes
