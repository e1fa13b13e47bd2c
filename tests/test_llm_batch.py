"""The scheduler on a toy model whose logits are a hash of everything a token can see."""

import hashlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recgpt.llm.batch import Scheduler
from recgpt.llm.candidates import Tree, log_sum_exp
from recgpt.llm.jobs import BATCH, Job, crowding

VOCABULARY = 50
END = 0


class Anything:
    """A grammar of even tokens only, that must be at least three long."""

    def __init__(self):
        self.length = 0

    def allowed(self, tokens):
        return tokens[(tokens % 2 == 0) & ((tokens != END) | (self.length >= 3))]

    def accept(self, token):
        assert token % 2 == 0
        assert token != END
        self.length += 1

    def close(self):
        self.length = -1


class Toy:
    """Keeps each sequence's tokens and cells, and refuses what llama.cpp would abort on."""

    vocabulary = VOCABULARY
    sequences = 40
    control = np.array([7], np.int32)

    def __init__(self, cells, apart=False):
        self.cells = cells
        self.apart = apart
        self.passes = 0
        self.kept = {sequence: [] for sequence in range(self.sequences)}
        self.fresh = self.copies = 0
        self.batches = []

    def decode(self, tokens):
        assert 0 < len(tokens) <= BATCH
        self.batches.append(tokens)
        if self.apart:
            # llama.cpp's rule: neighbours in ascending order are one pass.
            rows_of = list(dict.fromkeys(token.sequences for token in tokens))
            assert all(len(sequences) == 1 for sequences in rows_of)
            assert rows_of == sorted(rows_of)
            self.passes += sum(a[0] + 1 != b[0] for a, b in pairwise(rows_of)) + 1
        rows = []
        for token in tokens:
            self.fresh += 1
            for sequence in token.sequences:
                assert len(self.kept[sequence]) == token.position
                self.kept[sequence].append((self.fresh, token.id))
            seen = {tuple(id_ for _, id_ in self.kept[sequence]) for sequence in token.sequences}
            assert len(seen) == 1
            if token.logits:
                rows.append(self.logits(seen.pop()))
        # Apart, `cells` is what each sequence has.
        assert len({cell for kept in self.kept.values() for cell, _ in kept}) <= self.cells or self.apart
        assert max(map(len, self.kept.values())) <= self.cells
        return np.array(rows, np.float32).reshape(len(rows), VOCABULARY)

    def logits(self, tokens):
        return logits(tokens)

    def copy(self, source, target, end):
        assert not self.kept[target]
        assert len(self.kept[source]) >= end
        self.copies += 1
        self.kept[target] = self.kept[source][:end]

    def cut(self, sequence, end):
        self.kept[sequence] = self.kept[sequence][:end]

    def is_end(self, token):
        return token == END

    def piece(self, token):
        return bytes([97 + token % 26])

    def matcher(self, grammar):
        assert grammar == "even"
        return Anything()


def logits(tokens):
    seed = int.from_bytes(hashlib.sha256(repr(tokens).encode()).digest()[:8], "big")
    return np.random.default_rng(seed).normal(size=VOCABULARY).astype(np.float32) * 3


def log_softmax(row):
    return row - np.log(np.exp(row.astype(np.float64)).sum())


def reference_score(prompt, candidate):
    tokens, total = list(map(int, prompt)), 0.0
    for token in candidate:
        total += log_softmax(logits(tuple(tokens)))[token]
        tokens.append(token)
    return total


def reference_text(prompt, room, rule=logits):
    tokens, answer = list(map(int, prompt)), []
    while len(answer) < room:
        row = rule(tuple(tokens)).copy()
        row[7] = -np.inf
        token = int(row.argmax())
        if token == END:
            return answer, "end"
        answer.append(token)
        tokens.append(token)
    return answer, "length"


def run(jobs, cells=3000, slots=4, scheduler=None):
    scheduler = scheduler or Scheduler(Toy(cells), slots=slots)
    how, started = {}, []
    scheduler.run(
        jobs,
        started=lambda job: started.append(job.index),
        finished=lambda job, end: how.__setitem__(job.index, end),
    )
    assert sorted(started) == sorted(how) == sorted(job.index for job in jobs)
    return scheduler, how


PREFIX = list(range(1, 40)) * 2
prompts = st.lists(
    st.tuples(st.integers(0, len(PREFIX)), st.lists(st.integers(1, 5), min_size=1, max_size=30)),
    min_size=1,
    max_size=12,
).map(lambda parts: [np.array(PREFIX[:cut] + tail, np.int32) for cut, tail in parts])


@settings(max_examples=60, deadline=None)
@given(prompts, st.data())
def test_company_and_order_change_no_answer(texts, data):
    jobs = []
    for index, prompt in enumerate(texts):
        if data.draw(st.booleans()):
            candidates = data.draw(
                st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=5), min_size=1, max_size=60)
            )
            jobs.append(Job(index, prompt, candidates=candidates))
        else:
            jobs.append(Job(index, prompt, room=data.draw(st.integers(1, 9))))
    scheduler, how = run(jobs, cells=1200)
    assert sorted(scheduler.scratch) == list(range(4, 40))
    for job in jobs:
        if job.candidates is None:
            assert (job.answer, how[job.index]) == reference_text(job.prompt, job.room)
        else:
            expected = [reference_score(job.prompt, candidate) for candidate in job.candidates]
            np.testing.assert_allclose(job.tree.totals, expected, atol=1e-4)


def test_shared_prefix_is_computed_once_and_stays():
    prefix = list(range(1, 50)) * 20
    jobs = [Job(index, np.array([*prefix, index + 1], np.int32), room=6) for index in range(8)]
    scheduler, _ = run(jobs, slots=8)
    assert sum(job.fresh for job in jobs) == len(prefix) + 8
    # 981 tokens take two batches, the other seven prompts' last tokens ride with the next, then five more steps.
    together = scheduler.decodes
    alone = sum(run([Job(0, job.prompt, room=6)])[0].decodes for job in jobs)
    assert together < alone / 2
    later = Job(99, np.array([*prefix, 49], np.int32), room=2)
    run([later], scheduler=scheduler)
    assert later.fresh == 1


def test_finished_places_are_refilled_and_room_is_respected():
    jobs = [Job(index, np.array([index + 1] * 200, np.int32), room=20) for index in range(30)]
    scheduler, how = run(jobs, cells=500, slots=8)
    assert len(how) == 30
    assert max(len({s for token in batch for s in token.sequences}) for batch in scheduler.model.batches) >= 2


def test_a_long_idle_prompt_gives_way():
    first = Job(0, np.array([5] * 900, np.int32), room=5)
    scheduler, _ = run([first], cells=1000)
    second = Job(1, np.array([5] * 300 + [6] * 600, np.int32), room=5)
    run([second], scheduler=scheduler)
    assert second.fresh == 600
    assert second.answer == reference_text(second.prompt, 5)[0]
    with pytest.raises(RuntimeError, match="does not fit"):
        run([Job(2, np.array([9] * 1001, np.int32), room=5)], scheduler=scheduler)


@settings(max_examples=60, deadline=None)
@given(prompts, st.data())
def test_apart_too_company_changes_no_answer(texts, data):
    jobs = [Job(index, prompt, room=data.draw(st.integers(1, 9))) for index, prompt in enumerate(texts)]
    _, how = run(jobs, scheduler=Scheduler(Toy(200, apart=True), slots=4))
    for job in jobs:
        assert (job.answer, how[job.index]) == reference_text(job.prompt, job.room)


def test_apart_gaps_are_closed_so_that_one_pass_takes_all():
    jobs = [Job(index, np.array([index + 1] * 3, np.int32), room=4 + 3 * (index % 4)) for index in range(12)]
    scheduler = Scheduler(Toy(40, apart=True), slots=12)
    run(jobs, scheduler=scheduler)
    assert scheduler.model.passes == scheduler.decodes


def test_apart_finished_prompts_stay_for_the_next_call():
    prompts = [np.array([number] * 300, np.int32) for number in range(1, 5)]
    scheduler = Scheduler(Toy(400, apart=True), slots=4)
    for prompt in prompts:
        run([Job(0, prompt, room=5)], scheduler=scheduler)
    again = [Job(index, prompt, room=5) for index, prompt in enumerate(prompts)]
    run(again, scheduler=scheduler)
    assert [job.fresh for job in again] == [1] * 4


def test_apart_an_idle_slot_goes_on_without_a_copy():
    prefix = list(range(1, 50)) * 4
    scheduler = Scheduler(Toy(400, apart=True), slots=6)
    jobs = [Job(index, np.array(prefix + [index + 1] * 150, np.int32), room=1) for index in range(20)]
    run(jobs, scheduler=scheduler)
    assert sum(job.fresh for job in jobs) == len(prefix) + 20 * 150
    # Each slot gets the prefix once; the later prompts find one that holds it.
    assert scheduler.model.copies <= 5


def test_crowding_counts_what_neighbours_do_not_share():
    alike = [np.array([*range(90), *[number] * 10], np.int32) for number in range(20)]
    assert crowding(alike, 8) == pytest.approx(1 + 7 * (100 + 19 * 10) / 2000)
    assert crowding(alike[::-1], 8) == crowding(alike, 8)
    unlike = [np.array([number] * 100, np.int32) for number in range(20)]
    assert crowding(unlike, 8) == 8
    assert crowding(unlike[:1], 8) == 1


def test_many_branching_candidates_need_more_sequences_than_there_are():
    candidates = [[1, a, b, c] for a in range(1, 9) for b in range(1, 9) for c in range(1, 5)]
    job = Job(0, np.array([3, 4], np.int32), candidates=candidates)
    scheduler, _ = run([job])
    expected = [reference_score(job.prompt, candidate) for candidate in candidates]
    np.testing.assert_allclose(job.tree.totals, expected, atol=1e-4)
    # 1 + 8 + 64 inner tokens, a little repeated where the one branch is cut in pieces; not 256 x 3.
    assert scheduler.decoded < 100


def test_tree_counts_duplicates_and_prefixes():
    tree = Tree([[1, 2], [1, 2], [1], [1, 2, 3]])
    assert [[node.token for node in branch] for branch in tree.branches] == [[1, 2]]
    rows = np.stack([logits((0,)), logits((0, 1)), logits((0, 1, 2))])
    tree.observe([tree.root], rows[:1])
    tree.observe(tree.branches[0], rows[1:])
    assert tree.totals[0] == tree.totals[1] == pytest.approx(reference_score([0], [1, 2]), abs=1e-5)
    assert tree.totals[3] == pytest.approx(reference_score([0], [1, 2, 3]), abs=1e-5)
    assert log_sum_exp(np.full((1, 4), 1000.0, np.float32)) == pytest.approx(1000 + np.log(4))


def test_grammar_stop_and_sampling():
    jobs = [Job(index, np.array([index + 1], np.int32), room=40, grammar="even") for index in range(6)]
    run(jobs)
    for job in jobs:
        assert all(token % 2 == 0 for token in job.answer)
        assert 3 <= len(job.answer) <= 40
    (text, _) = reference_text([9], 5)
    stop = bytes([97 + text[1] % 26]).decode()
    job = Job(0, np.array([9], np.int32), room=5, stop=(stop,))
    assert run([job])[1] == {0: "stop"}
    assert stop not in job.raw.decode()
    sampled = [Job(0, np.array([9], np.int32), room=5, temperature=1.5, seed=(0, seed)) for seed in range(20)]
    for job in sampled:
        run([job])
    again = Job(0, np.array([9], np.int32), room=5, temperature=1.5, seed=(0, 4))
    run([again, Job(1, np.array([9, 9], np.int32), room=5, temperature=1.5, seed=(0, 4))])
    assert again.answer == sampled[4].answer
    assert len({tuple(job.answer) for job in sampled}) > 10
    assert all(7 not in job.answer for job in sampled)


class Spelling:
    """A grammar of `{"reasoning": "` + any letters + `"}`, a token a byte."""

    head = b'{"reasoning": "'

    def __init__(self):
        self.text = b""

    def allowed(self, tokens):
        if len(self.text) < len(self.head):
            return tokens[tokens == self.head[len(self.text)]]
        if self.text.endswith(b'"') and len(self.text) > len(self.head):
            return tokens[tokens == ord("}")]
        if self.text.endswith(b"}"):
            return tokens[tokens == END]
        # Like the middle of a character: after five letters no quote.
        quote = len(self.text) - len(self.text.rstrip(b"a")) != 5
        return tokens[(tokens == ord("a")) | ((tokens == ord('"')) & quote)]

    def accept(self, token):
        self.text += bytes([token])

    def close(self):
        self.text = b""


class Typist(Toy):
    """Prefers `a` above all; a token is a byte."""

    vocabulary = 128
    control = np.array([], np.int32)

    def decode(self, tokens):
        count = super().decode(tokens).shape[0]
        rows = np.zeros((count, 128), np.float32)
        rows[:, ord("a")] = 5
        return rows

    def piece(self, token):
        return bytes([token])

    def matcher(self, grammar):
        return Spelling()


def test_reasoning_ends_with_its_own_tokens_and_leaves_the_answer_its_room():
    def answer(thoughts):
        job = Job(0, np.array([1, 2], np.int32), room=40, grammar="spelling", thoughts=thoughts, quote=ord('"'))
        how = {}
        Scheduler(Typist(500), slots=2).run([job], started=lambda _: None, finished=lambda _, end: how.update(end=end))
        return job.raw.decode(), how["end"]

    assert answer(0) == ('{"reasoning": "' + "a" * 25, "length")
    assert answer(18) == ('{"reasoning": "aaa"}', "end")
    # Where the quote may not come after the last allowed token, it comes as soon as it may.
    assert answer(20) == ('{"reasoning": "aaaaaa"}', "end")
    assert answer(5) == ('{"reasoning": ""}', "end")
