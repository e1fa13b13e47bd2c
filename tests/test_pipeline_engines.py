"""The configuration chooses the engine: servers, adapters by stage, and what does not go together."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from recgpt.errors import InvalidConfigError, ModelNotFoundError
from recgpt.llm import FakeEngine
from recgpt.llm.engine import Prompt, Request
from recgpt.pipeline import config, engines, run, servers

STAGES: tuple[config.Stage, ...] = ("interests", "tags", "explanations")
HEAD = 'out = "OUT"\n[data]\ndataset = "world"\n'
SERVER = '[llm]\nengine = "openai"\n[llm.server]\nurl = "http://127.0.0.1:1/v1"\n'


def load(tmp_path: Path, text: str) -> config.Config:
    path = tmp_path / "recgpt.toml"
    path.write_text(HEAD.replace("OUT", str(tmp_path / "out")) + text)
    return config.load(path)


def test_a_server_in_the_configuration(tmp_path: Path) -> None:
    text = SERVER + 'model = "small"\ndialect = "vllm"\napi_key_env = "SHOP_KEY"\ntries = 2\nextra = { top_k = 3 }\n'
    server = load(tmp_path, text + '[llm.adapters]\ntags = "tags-lora"\n').llm.server
    assert server == config.ServerConfig(
        url="http://127.0.0.1:1/v1", model="small", dialect="vllm", api_key_env="SHOP_KEY", tries=2, extra={"top_k": 3}
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[llm]\nengine = "openai"\n', r'engine = "openai" and \[llm.server\] go together'),
        ('[llm.server]\nurl = "http://127.0.0.1:1"\n', r'engine = "openai" and \[llm.server\] go together'),
        (SERVER.replace('"openai"\n', '"openai"\nweights = "q8_0"\n'), "weights concern a model in our own process"),
        (SERVER + 'dialect = "openai"\n', "gives no log-probabilities"),
        (SERVER + "concurrency = 0\n", r"llm.server.concurrency: .* \(came: 0\)"),
        ('[llm.adapters]\nhistory = "h.gguf"\n', "llm.adapters.history"),
    ],
)
def test_what_does_not_go_together(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        load(tmp_path, text)


@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
def test_options_of_a_model_of_our_own(tmp_path: Path) -> None:
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    head = f'[llm]\nmodel = "{tmp_path / "small.gguf"}"\nthreads = 1\n'
    gpu = load(tmp_path, head + 'gpu_layers = -1\nflash_attention = true\nkv_type = "q8_0"\n').llm
    assert ",kv=q8_0,flash=True,gpu=-1," in engines.model(gpu).name
    cpu = load(tmp_path, head + 'weights = "bf16"\n').llm
    assert ",kv=bf16,flash=False,gpu=0,weights=bf16," in engines.model(cpu).name
    with pytest.raises(InvalidConfigError, match=r"llm.kv_type: .* \(came: 'q2'\)"):
        load(tmp_path, head + 'kv_type = "q2"\n')


def test_a_key_in_the_configuration_is_refused_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match=r"llm\.server\.api_key: there is no such setting") as caught:
        load(tmp_path, SERVER + 'api_key = "sk-secret-4711"\nconcurrency = 0\n')
    assert "sk-secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_without_a_tokenizer_histories_are_counted_in_bytes(tmp_path: Path) -> None:
    assert engines.tokenizer(load(tmp_path, SERVER).llm).count(["café"]).tolist() == [5]
    named = load(tmp_path, SERVER + f'tokenizer = "{tmp_path / "gone.gguf"}"\n')
    with pytest.raises(ModelNotFoundError, match=r"gone\.gguf"):
        engines.tokenizer(named.llm)


def adapters(folder: Path, **contents: str) -> str:
    folder.mkdir(exist_ok=True)
    for stage, content in contents.items():
        (folder / f"{stage}.gguf").write_bytes(b"GGUF" + content.encode())
    return "[llm.adapters]\n" + "".join(f'{stage} = "{folder / stage}.gguf"\n' for stage in contents)


def test_a_missing_adapter_is_refused_when_the_engine_opens(tmp_path: Path) -> None:
    text = '[llm]\nengine = "fake"\n' + adapters(tmp_path / "a", interests="1") + f'tags = "{tmp_path}/gone.gguf"\n'
    llm = load(tmp_path, text).llm
    with pytest.raises(ModelNotFoundError, match=r"a LoRA adapter was expected at .*gone\.gguf"):
        engines.open_engine(llm, tmp_path / "ledger")
    # The ledger is free again.
    engines.open_engine(llm.model_copy(update={"adapters": {}}), tmp_path / "ledger").close()


def test_a_missing_adapter_stops_a_run_before_any_work(tmp_path: Path) -> None:
    text = f'out = "{tmp_path}/out"\n[data]\ndataset = "world"\n[llm]\nengine = "fake"\n'
    (tmp_path / "run.toml").write_text(f'{text}[llm.adapters]\ntags = "{tmp_path}/gone.gguf"\n')
    with pytest.raises(ModelNotFoundError, match=r"a LoRA adapter was expected at .*gone\.gguf"):
        run(tmp_path / "run.toml")
    assert not (tmp_path / "out").exists()


def test_a_new_adapter_runs_its_stage_anew_and_no_other(tmp_path: Path) -> None:
    request = Request(Prompt("Name a drink.", "breakfast"), 5)

    def calls(**contents: str) -> dict[str, int]:
        llm = load(tmp_path, '[llm]\nengine = "fake"\n' + adapters(tmp_path / "a", **contents)).llm
        found: dict[str, int] = {}
        with engines.open_engine(llm, tmp_path / "ledger") as opened:
            for stage in STAGES:
                before = opened.calls
                servers.engine_of(llm, opened, stage).generate([request])
                found[stage] = opened.calls - before
            assert opened.calls + opened.reused == 3
            assert set(servers.names(llm, opened)) == set(contents)
        return found

    assert calls(interests="old", tags="old") == {"interests": 1, "tags": 1, "explanations": 1}
    assert calls(interests="old", tags="new") == {"interests": 0, "tags": 1, "explanations": 0}


class Shop(BaseHTTPRequestHandler):
    """A chat server that answers as the scripted engine does."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    engine = FakeEngine()
    keys: set[str | None] = set()  # noqa: RUF012

    def do_GET(self) -> None:
        self.say({"data": [{"id": "shop-7b", "owned_by": "shop"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.keys.add(self.headers["authorization"])
        system, user = (message["content"] for message in body["messages"])
        schema = (body.get("response_format") or {}).get("json_schema", {}).get("schema")
        result = self.engine.generate([Request(Prompt(system, user), body["max_tokens"], with_lengths(schema))])[0]
        message = {"role": "assistant", "content": result.text}
        self.say({"choices": [{"message": message, "finish_reason": "stop"}], "usage": {"prompt_tokens": 7}})

    def say(self, answer: Any) -> None:
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def with_lengths(schema: Any) -> Any:
    """Give strings the length that the dialect leaves out and the scripted engine needs."""
    if isinstance(schema, dict):
        schema = {key: with_lengths(value) for key, value in schema.items()}
        if schema.get("type") == "string" and "enum" not in schema:
            schema.setdefault("maxLength", 40)
        if "enum" in schema:
            schema.pop("type", None)
    return schema


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.skipif(find_spec("httpx2") is None, reason="pip install 'recgpt[openai]'")
@pytest.mark.skipif(find_spec("torch") is None, reason="pip install 'recgpt[train]'")
def test_a_whole_run_through_a_server_keeps_the_key_out_of_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-secret-4711"
    monkeypatch.setenv("SHOP_KEY", key)
    http = ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    text = (
        f'test_days = 14\n[llm]\nengine = "openai"\nmode = "generate"\nhouseholds = 2\nmin_events = 20\n'
        # Counted in bytes, the prompts are long.
        "context_tokens = 16000\n"
        f'[llm.server]\nurl = "http://127.0.0.1:{http.server_address[1]}/v1"\napi_key_env = "SHOP_KEY"\n'
        f"[history]\nbudget = 600\n[retrieval]\nepochs = 1\nsteps = 5\nthreads = 1\n"
        f'[serving]\nbundles = "{tmp_path / "bundles"}"\nexplained = 2\n'
    )
    configuration = load(tmp_path, text)
    first = run(configuration, until="serving")
    asked = engines.open_engine(configuration.llm, tmp_path / "out" / "llm")
    assert asked.name.startswith("openai/openai/shop-7b/")
    asked.close()
    assert Shop.keys == {f"Bearer {key}"}
    assert first.summaries["explanations"]
    # Everything is in the ledger: the second run asks nothing.
    Shop.keys.clear()
    run(configuration, until="serving")
    assert Shop.keys == set()
    http.shutdown()
    http.server_close()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if key.encode() in path.read_bytes()]
