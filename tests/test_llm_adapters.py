"""LoRA adapters by stage: refused when they do not fit, hot-swapped, prefixes forgotten, ledger keys of their own."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from recgpt.errors import EngineError, ModelNotFoundError
from recgpt.llm import FakeEngine, LlamaCpp, Recorded
from recgpt.llm.adapters import adapt
from recgpt.llm.engine import Prompt, Request, ScoreRequest
from recgpt.llm.llama_cpp import COUNTERS

ASK = Request(Prompt("Name a drink.", "breakfast"), max_tokens=5)


def gguf(path: Path, content: bytes = b"GGUF rest") -> str:
    path.write_bytes(content)
    return str(path)


def test_a_stage_with_its_adapter_has_rows_of_its_own(tmp_path: Path) -> None:
    first, second = gguf(tmp_path / "a.gguf"), gguf(tmp_path / "b.gguf", b"GGUF other")

    def calls() -> list[int]:
        found = []
        with Recorded(FakeEngine(), tmp_path / "ledger") as plain:
            for engine in (plain, adapt(plain, first), adapt(plain, second), adapt(plain, first)):
                before = plain.calls
                engine.generate([ASK])
                assert engine.calls == plain.calls  # Views count with their ledger.
                found.append(plain.calls - before)
            assert plain.calls + plain.reused == 4
        return found

    assert calls() == [1, 1, 1, 0]
    assert calls() == [0, 0, 0, 0]
    # The content decides, not the place.
    gguf(tmp_path / "a.gguf", b"GGUF newly trained")
    assert calls() == [0, 1, 0, 0]


def test_a_missing_adapter_is_refused(tmp_path: Path) -> None:
    with Recorded(FakeEngine(), tmp_path / "ledger") as plain:
        with pytest.raises(ModelNotFoundError, match=r"a LoRA adapter was expected at .*gone\.gguf, but there is no"):
            adapt(plain, str(tmp_path / "gone.gguf"))
        with pytest.raises(ModelNotFoundError, match="does not begin with the bytes GGUF but with b'safe'"):
            adapt(plain, gguf(tmp_path / "x.gguf", b"safetensors"))


def test_an_engine_without_adapters_says_so(tmp_path: Path) -> None:
    class Plain:
        name, context_tokens = "plain", 512

        def close(self) -> None:
            """There is nothing to close."""

    with (
        Recorded(Plain(), tmp_path / "ledger") as plain,  # type: ignore[arg-type]
        pytest.raises(EngineError, match="the engine plain knows no adapters"),
    ):
        adapt(plain, gguf(tmp_path / "a.gguf"))


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
def test_hot_swap_on_a_real_model(smollm2_path: Path, tmp_path: Path) -> None:
    import lora

    prompt = Prompt(
        "You name what a shopper wants next. " * 6, "Bought: flour, yeast, baking tin.", "The shopper wants"
    )
    score = [ScoreRequest(prompt, (" bread", " a garden hose", " a baking tray"))]
    text = [Request(prompt, 6)]
    one = lora.write(tmp_path / "one.gguf", smollm2_path, seed=1)
    two = lora.write(tmp_path / "two.gguf", smollm2_path, seed=2)
    same = lora.write(tmp_path / "same.gguf", smollm2_path, seed=1, strength=0.0)
    wrong = lora.write(tmp_path / "wrong.gguf", smollm2_path, seed=1, width=64)
    with LlamaCpp(smollm2_path, context_tokens=512, threads=1, sequences=4) as engine:
        first, second, idle = engine.adapted(one), engine.adapted(two), engine.adapted(same)
        plain = engine.score(score)[0].logprobs
        tuned = first.score(score)[0].logprobs
        assert engine.pid is not None
        child = engine.pid
        # One model, one process: the swap loads nothing but the adapter.
        assert max(abs(a - b) for a, b in zip(plain, tuned, strict=True)) > 0.5
        assert second.score(score)[0].logprobs != tuned
        # A prefix of other weights is never shared: after each swap the prompt is computed anew and the scores return.
        before = engine.stats
        assert engine.score(score)[0].logprobs == pytest.approx(plain, abs=1e-4)
        assert first.score(score)[0].logprobs == pytest.approx(tuned, abs=1e-4)
        spent = {name: engine.stats[name] - before[name] for name in COUNTERS}
        assert spent["computed_tokens"] == spent["prompt_tokens"]
        # Without a swap the prefix is shared as ever.
        before = engine.stats
        first.score(score)
        assert engine.stats["computed_tokens"] - before["computed_tokens"] < 5
        assert idle.score(score)[0].logprobs == pytest.approx(plain, abs=1e-3)
        assert first.generate(text)[0].text != engine.generate(text)[0].text
        assert len({engine.name, first.name, second.name, idle.name}) == 4
        for path in (wrong, smollm2_path):
            with pytest.raises(EngineError, match=r"the adapter .*\.gguf cannot be used: llama.cpp cannot load it"):
                engine.adapted(path).generate(text)
        # The refusal costs nobody anything, and a fresh process takes the adapter on by itself.
        assert engine.pid == child
        engine.close()
        assert first.score(score)[0].logprobs == pytest.approx(tuned, abs=1e-4)
