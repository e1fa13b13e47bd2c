"""Training: what is computed equals a plain computation, what is written is what was trained, and nothing is lost."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_model import write as write_model

from recgpt.alignment import SAMPLES, HeldOut, training
from recgpt.alignment.training import adapters, fit, losses, parity, trees
from recgpt.alignment.training.base import Base
from recgpt.errors import AlignmentError, BundleError, InvalidConfigError, ModelNotFoundError
from recgpt.llm.engine import Prompt, ScoreRequest
from recgpt.llm.llama_cpp import LlamaCpp

pytest.importorskip("peft")
torch = pytest.importorskip("torch")


# A minute and more on a crowded machine: torch and llama.cpp start several times.
pytestmark = pytest.mark.timeout(180)

SMALL = training.Config(rank=4, alpha=8, dtype="f32", row_tokens=128, step_tokens=128, learning_rate=5e-3, save_every=1)
GOODS = ("tent", "lantern", "stove", "camp chair", "rope", "trekking pole")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


def sample(prompt: str, answer: str, others: tuple[str, ...] = (), **rest: Any) -> dict[str, Any]:
    return {
        **{"subtask": "tags", "level": "task", "system": "You advise shoppers.", "prompt": prompt, "beginning": ""},
        **{"answer": answer, "others": list(others), "user_id": "ann", "at": None, "origin": "shop"},
        **{"prompt_digest": "d"},
        **rest,
    }


def samples() -> pa.Table:
    rows = []
    for place, good in enumerate(GOODS):
        wrong = tuple(f" {other}" for other in GOODS if other != good)
        rows.append(sample(f"They bought a {good} and a hat.", f" {good}", wrong, beginning="Next:"))
        rows.append(sample(f"They bought a {good} and a hat.", " hat", wrong, beginning="Next:"))
        rows.append(sample(f"Say what {good} number {place} is for.", f"A {good} is for camping."))
    return pa.Table.from_pylist(rows, SAMPLES)


def plain_means(net: Any, tree: trees.Tree) -> list[float]:
    """The mean log-probability of each answer, each in a text of its own."""
    found = []
    for answer in tree.answers:
        with torch.no_grad():
            logits = net(input_ids=torch.tensor([tree.prompt + answer])).logits[0].double()
        each = torch.log_softmax(logits, -1)
        at = len(tree.prompt) - 1
        found.append(float(np.mean([float(each[at + step, token]) for step, token in enumerate(answer)])))
    return found


def test_packed_answers_score_as_each_in_a_text_of_its_own(model: Path) -> None:
    base = Base(model)
    grown = trees.grow(samples(), base, longest=512)
    assert len(grown) == 2 * len(GOODS)  # two samples of one prompt are one tree
    rows = list(trees.pack(grown, 128))
    assert sum(len(row.trees) for row in rows) == len(grown)
    assert any((row.tree == -1).sum() > 5 for row in rows)  # instructions are shared
    net = fit.built(base, SMALL, None).eval()
    with torch.no_grad():
        for row in rows:
            packed = losses.means(net(*fit.inputs(row, torch.device("cpu"))), row).tolist()
            assert packed == pytest.approx(
                [each for tree in row.trees for each in plain_means(net.model, tree)], abs=2e-5
            )


def test_the_loss_is_the_formula(model: Path) -> None:
    right, wrong = [-1.0, -2.5], [-0.5, -3.0]
    ranking = trees.Tree([1, 2], [[3], [4], [5], [6]], [trees.Wanted(0, (2, 3)), trees.Wanted(1, (2, 3))])
    text = trees.Tree([1, 2], [[3, 4]], [trees.Wanted(0, ())])
    row = trees.lay([ranking, text])
    found = losses.of_trees(torch.tensor([*right, *wrong, -4.0]), row, temperature=0.5, likelihood=0.1)
    first = [-math.log(math.exp(s / 0.5) / sum(math.exp(o / 0.5) for o in (s, *wrong))) - 0.1 * s for s in right]
    assert found.tolist() == pytest.approx([sum(first) / 2, 4.0])
    assert losses.auc(torch.tensor([*right, *wrong, -4.0]), row) == [0.5]


def test_it_learns_and_says_what_it_learned_from(model: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    config = replace(SMALL, epochs=6)
    found = training.train(
        samples(), base=model, out=tmp_path / "tags.gguf", config=config, validation=samples(),
        held_out=HeldOut(["bob"]), progress=lambda done, total, said: seen.append((done, total)),
    )  # fmt: skip
    manifest = json.loads(found.manifest_path.read_text())
    assert manifest == json.loads(json.dumps(found.manifest))
    before, after = manifest["validation"]["before"], manifest["validation"]["after"]
    assert after["loss"] < before["loss"] - 1
    assert after["auc"] > before["auc"] + 0.2
    assert seen[-1][0] == seen[-1][1] == manifest["training"]["steps"] == len(seen)
    assert manifest["training"]["tokens"] == training.plan(samples(), base=model, config=config).tokens
    assert manifest["samples"]["subtasks"] == {"tags": 3 * len(GOODS)}
    assert manifest["samples"]["users"] == 1
    assert not (tmp_path / "tags.state").exists()
    # The file holds what was trained: llama.cpp computes what torch does.
    same = parity.compare(model, found.path, samples(), prompts=3)
    assert same.largest < 0.02 < 0.5 < same.moved
    assert same.same_best > 0.95


def test_a_killed_training_goes_on_and_ends_the_same(model: Path, tmp_path: Path) -> None:
    config = replace(SMALL, epochs=3, shuffle=True, dropout=0.1)
    whole = training.train(samples(), base=model, out=tmp_path / "whole.gguf", config=config)

    class KilledError(Exception):
        pass

    def stop(done: int, total: int, said: str) -> None:
        if done == total // 2:
            raise KilledError

    with pytest.raises(KilledError):
        training.train(samples(), base=model, out=tmp_path / "again.gguf", config=config, progress=stop)
    assert not (tmp_path / "again.gguf").exists()
    assert (tmp_path / "again.state").exists()
    steps: list[int] = []
    again = training.train(
        samples(), base=model, out=tmp_path / "again.gguf", config=config, progress=lambda *said: steps.append(said[0])
    )
    assert steps[0] > 1
    one, two = adapters.read(whole.path, Base(model).shape), adapters.read(again.path, Base(model).shape)
    for key, pair in one.pairs.items():
        assert all(np.array_equal(a, b) for a, b in zip(pair, two.pairs[key], strict=True))


def test_a_state_of_other_samples_is_refused(model: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int, said: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(samples(), base=model, out=tmp_path / "a.gguf", config=SMALL, progress=stop)
    with pytest.raises(BundleError, match="belongs to other input"):
        training.train(samples().slice(3), base=model, out=tmp_path / "a.gguf", config=SMALL)


def test_an_adapter_is_read_back_gone_on_from_and_merged(model: Path, tmp_path: Path) -> None:
    shape = Base(model).shape
    first = training.train(samples(), base=model, out=tmp_path / "first.gguf", config=SMALL)
    lora = adapters.read(first.path, shape)
    adapters.write(tmp_path / "copy.gguf", lora, shape, name="first")
    again = adapters.read(tmp_path / "copy.gguf", shape)
    assert all(np.array_equal(lora.pairs[key][1], again.pairs[key][1]) for key in lora.pairs)
    net = fit.built(Base(model), SMALL, lora)
    taken = fit.lora_of(net, SMALL)
    assert all(np.allclose(lora.pairs[key][1], taken.pairs[key][1]) for key in lora.pairs)
    adapters.merge(model, first.path, tmp_path / "merged.gguf", weights="f32")
    request = ScoreRequest(
        Prompt("You advise shoppers.", "They bought a rope.", "Next:"), tuple(f" {good}" for good in GOODS)
    )
    settings: dict[str, Any] = {"weights": "f32", "kv_type": "f32", "context_tokens": 512, "threads": 1, "sequences": 2}
    with LlamaCpp(model, **settings) as engine, LlamaCpp(tmp_path / "merged.gguf", **settings) as merged:
        plain = engine.score([request])[0].logprobs
        swapped = engine.adapted(first.path).score([request])[0].logprobs
        assert engine.score([request])[0].logprobs == plain  # the adapter is off again
        assert swapped == pytest.approx(merged.score([request])[0].logprobs, abs=1e-3)
        assert max(abs(a - b) for a, b in zip(plain, swapped, strict=True)) > 0.1
    more = training.train(
        samples(), base=model, out=tmp_path / "more.gguf", config=SMALL, start=first.path, validation=samples()
    )
    assert more.manifest["start"]["sha256"] == first.manifest["sha256"]
    assert more.manifest["training"]["curve"][0]["loss"] < first.manifest["training"]["curve"][0]["loss"]
    with pytest.raises(AlignmentError, match="rank 4"):
        training.train(samples(), base=model, out=tmp_path / "x.gguf", config=training.Config(rank=8), start=first.path)


def test_every_weight_can_be_trained(model: Path, tmp_path: Path) -> None:
    config = replace(SMALL, method="full", learning_rate=1e-3)
    found = training.train(samples(), base=model, out=tmp_path / "whole.gguf", config=config, validation=samples())
    assert found.manifest["validation"]["after"]["loss"] < found.manifest["validation"]["before"]["loss"]
    tree = trees.grow(samples(), Base(model), longest=512)[0]
    own = plain_means(Base(found.path).weights(torch.float32), tree)
    before = plain_means(Base(model).weights(torch.float32), tree)
    assert max(abs(a - b) for a, b in zip(own, before, strict=True)) > 0.05
    prompt = Prompt("You advise shoppers.", f"They bought a {GOODS[0]} and a hat.", "Next:")
    texts = tuple(dict.fromkeys(samples()["others"][0].as_py()))
    with LlamaCpp(found.path, weights="f32", kv_type="f32", context_tokens=512, sequences=2) as engine:
        served = engine.score([ScoreRequest(prompt, texts)])[0].means()
    assert served == pytest.approx(own[1 : 1 + len(texts)], abs=2e-3)


def test_a_loss_that_leaves_the_numbers_ends_the_training(model: Path, tmp_path: Path) -> None:
    wild = replace(SMALL, learning_rate=1e30, epochs=4, warmup=0)
    with pytest.raises(AlignmentError, match="the loss must stay finite"):
        training.train(samples(), base=model, out=tmp_path / "a.gguf", config=wild)
    assert not (tmp_path / "a.gguf").exists()


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "there are no samples"),
        ([sample("p", "")], "is empty"),
        ([sample("p", " a", (" a", " b"))], "also among the wrong ones"),
        ([sample("long " * 600, "a")], "longer than 512 tokens"),
        ([sample("p", "a", user_id="bob")], "held out"),
    ],
)
def test_what_cannot_be_learned_is_refused(model: Path, tmp_path: Path, rows: list[dict[str, Any]], says: str) -> None:
    table = pa.Table.from_pylist(rows, SAMPLES)
    with pytest.raises(AlignmentError, match=says):
        training.train(table, base=model, out=tmp_path / "a.gguf", config=SMALL, held_out=HeldOut(["bob"]))


def test_a_base_that_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="there is neither"):
        training.plan(samples(), base=tmp_path / "nothing")
    folder = tmp_path / "gpt"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["GPT2LMHeadModel"]}))
    with pytest.raises(AlignmentError, match="architecture GPT2LMHeadModel"):
        training.plan(samples(), base=folder)
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelNotFoundError, match="pickles"):
        training.plan(samples(), base=folder)
    (tmp_path / "cut.gguf").write_bytes(b"GGUF" + b"\1" * 40)
    with pytest.raises(AlignmentError, match="damaged or cut off"):
        training.plan(samples(), base=tmp_path / "cut.gguf")


def test_settings_are_checked() -> None:
    with pytest.raises(InvalidConfigError, match=r"training\.rank must be at least 1"):
        training.Config(rank=0)
    with pytest.raises(InvalidConfigError, match=r"training\.learning_rate must be above 0"):
        training.Config(learning_rate=math.nan)
    with pytest.raises(InvalidConfigError, match=r"training\.method must be lora or full"):
        training.Config(method="half")  # type: ignore[arg-type]


def test_a_full_disk_is_told(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("recgpt.retrieval.checkpoint.os.replace", full)
    with pytest.raises(AlignmentError, match=r"cannot be written to .*No space left"):
        training.train(samples(), base=model, out=tmp_path / "a.gguf", config=SMALL)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(model: Path, tmp_path: Path) -> None:
    pq.write_table(samples(), tmp_path / "samples.parquet")
    settings = [
        f"--set={name}={getattr(SMALL, name)}" for name in ("rank", "alpha", "dtype", "row_tokens", "step_tokens")
    ]
    command = ["-m", "recgpt", "align", "train", str(tmp_path / "samples.parquet"), "--base", str(model), *settings]
    alone = [sys.executable, *command, "--set=device=cpu", "--set=threads=1", "--out"]
    both = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", *alone[1:]]
    for start, name in ((alone, "one"), (both, "two")):
        subprocess.run([*start, str(tmp_path / f"{name}.gguf")], check=True, capture_output=True, timeout=150)
    one, two = (adapters.read(tmp_path / f"{name}.gguf", Base(model).shape) for name in ("one", "two"))
    for key, pair in one.pairs.items():
        for a, b in zip(pair, two.pairs[key], strict=True):
            assert np.allclose(a, b, atol=2e-3)
    curves = [json.loads((tmp_path / f"{name}.json").read_text())["training"]["curve"] for name in ("one", "two")]
    assert [step["loss"] for step in curves[1]] == pytest.approx([step["loss"] for step in curves[0]], rel=1e-3)
