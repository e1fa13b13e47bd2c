"""A scripted OpenAI-compatible server for tests, and engines that ask it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from recgpt.llm import OpenAI
from recgpt.llm.engine import Prompt, Request

KEY = "sk-secret-4711"
ASK = Request(Prompt("Name a drink.", "breakfast"), max_tokens=5)
SCHEMA = {
    "type": "object",
    "properties": {"tag": {"type": "string", "minLength": 1, "maxLength": 9}, "kind": {"enum": ["new", "old"]}},
    "required": ["tag", "kind"],
    "additionalProperties": False,
}
Reply = tuple[int, Any] | tuple[int, Any, dict[str, str]] | str


def chat(text: Any = "tea", ending: str | None = "stop", **message: Any) -> dict[str, Any]:
    """What a chat call answers."""
    usage = {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}
    return {
        "choices": [
            {"index": 0, "finish_reason": ending, "message": {"role": "assistant", "content": text, **message}}
        ],
        "usage": usage,
    }


class Server:
    """Answers by a function of (path, body); counts what it sees."""

    def __init__(self) -> None:
        self.owner = "somebody"
        self.models: list[dict[str, Any]] | None = None
        self.answer: Callable[[str, dict[str, Any]], Reply] = lambda path, body: (200, chat())
        self.seen: list[tuple[str, dict[str, Any], dict[str, str], float]] = []
        self.flying = self.most = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.serve(self, {})

            def do_POST(self) -> None:
                outer.serve(self, json.loads(self.rfile.read(int(self.headers["content-length"]))))

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

            # One packet an answer: two would wait 40 ms for each other's acknowledgement.
            wbufsize = -1

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.handle_error = lambda *_: None  # type: ignore[method-assign]  # Clients that left on purpose.
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    @property
    def asked(self) -> list[dict[str, Any]]:
        """Bodies of all requests but the list of models."""
        return [body for path, body, _, _ in self.seen if path != "/v1/models"]

    def serve(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        with self._lock:
            self.seen.append((handler.path, body, dict(handler.headers), time.monotonic()))
            self.flying += 1
            self.most = max(self.most, self.flying)
        reply: Reply
        if handler.path == "/v1/models":
            reply = (200, {"data": self.models or [{"id": "small", "owned_by": self.owner, "max_model_len": 2000}]})
        else:
            reply = self.answer(handler.path, body)
        with self._lock:
            self.flying -= 1
        if isinstance(reply, str):
            if reply == "trickle":
                handler.send_response(200)
                handler.send_header("content-length", "1000")
                handler.end_headers()
                for _ in range(100):
                    handler.wfile.write(b" ")
                    handler.wfile.flush()
                    time.sleep(0.03)
            handler.close_connection = True
            handler.connection.close()
            return
        status, content, headers = reply[0], reply[1], reply[2] if len(reply) > 2 else {}
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        handler.send_response(status)
        for name, value in {"content-length": str(len(data)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)


def engine(server: Server, **settings: Any) -> OpenAI:
    return OpenAI(server.url, **{"timeout": 20.0, **settings})


def script(*replies: Reply) -> Callable[[str, dict[str, Any]], Reply]:
    """Give one reply after the other, the last one for ever."""
    left = iter(replies)
    lock = threading.Lock()

    def answer(path: str, body: dict[str, Any]) -> Reply:
        with lock:
            return next(left, replies[-1])

    return answer


def prompts(count: int) -> list[Request]:
    return [Request(Prompt("Name a drink.", f"meal {at:03d}"), 5) for at in range(count)]
