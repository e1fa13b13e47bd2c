"""One model server over HTTP: retries, time limits, and a key that never leaves the request header.

Connection failures, time-outs, 408, 429 and 5xx are tried again, after a random share of a wait that doubles ("full
jitter": clients that failed together do not come back together). Where the server names a wait (`Retry-After`), nobody
asks it before. Other 4xx are answers, not accidents.
"""

from __future__ import annotations

import json
import os
import queue
import random
import re
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

from recgpt.errors import EngineError, InvalidConfigError, MissingExtraError
from recgpt.text import clean

BASE = 0.5
"""Seconds: the longest first wait; it doubles with every try."""
LONGEST = 30.0
"""Seconds: where the doubling ends."""
LONGEST_ASKED = 300.0
"""Seconds: a server that asks for a longer pause than this is given up."""
CONNECT = 10.0
"""Seconds until a connection must stand."""
MAX_BODY = 8_000_000
"""Longest answer that is read, in bytes."""
SHORTEST_KEY = 4
"""A shorter key could not be told from ordinary words where answers are searched for it."""
AGAIN = frozenset({408, 425, 429})
"""4xx that pass with time."""

_T = TypeVar("_T")


class Refused(Exception):
    """The server answered with a 4xx that will not change. `status` is its number."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}" if message else f"HTTP {status}")
        self.status = status
        self.message = message


class Failed(Exception):
    """Every try failed. `answered` tells whether the server spoke at all."""

    def __init__(self, reason: str, *, answered: bool) -> None:
        super().__init__(reason)
        self.answered = answered


class Malformed(Exception):
    """The server said 200 and then nothing usable."""


class Halted(Exception):
    """Nobody waits for this request any more."""


class Remote:
    """A server's address, its key, and how patient we are. Safe to use from many threads."""

    def __init__(self, url: str, *, api_key_env: str | None, timeout: float, tries: int, connections: int) -> None:
        """Check the address and read the key.

        Args:
            url: `http://host:port`, with or without the `/v1` that OpenAI's clients want.
            api_key_env: Name of the environment variable that holds the key; None sends none.
            timeout: Seconds for one try, from sending to the last byte.
            tries: How often a request is sent at most.
            connections: Most connections at once.

        Raises:
            InvalidConfigError: the address or the key cannot be used. Neither is part of the message.
            MissingExtraError: httpx2 is not installed.
        """
        parts = urlsplit(url)
        if parts.username or parts.password:
            raise InvalidConfigError(
                "the server's url must not hold a user or password: name an environment variable in api_key_env"
            )
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise InvalidConfigError(
                f"the server's url must look like http://host:port/v1, not {clean(url.partition('?')[0], limit=100)!r}"
            )
        self.url = re.sub(r"(/v1)?/*$", "", url)
        self._key = _read_key(api_key_env)
        self.tries = tries
        self.timeout = timeout
        self.sent = 0
        """Requests sent, repeats included."""
        self.repeated = 0
        """Requests sent again after a failure."""
        self._random = random.Random()
        self._gate = 0.0
        self._flying = 0
        self._closed = False
        self._lock = threading.Lock()
        try:
            import httpx2
        except ImportError as error:
            raise MissingExtraError("the openai engine needs httpx2: pip install 'recgpt[openai]'") from error
        own = parts.hostname in ("localhost", "127.0.0.1", "::1")
        self._client = httpx2.Client(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
            follow_redirects=False,  # The key goes to the address in the configuration and nowhere else.
            trust_env=not own,  # A proxy has no business between us and our own machine.
            verify=not own or parts.scheme == "https",  # Loading certificates takes 0.1 s.
        )
        weakref.finalize(self, self._client.close)

    def holds_key(self, text: str) -> bool:
        """Tell whether a text holds the key."""
        return bool(self._key) and self._key in text

    def scrub(self, text: str) -> str:
        """Clean a text of the server for a message: one line, short, without the key."""
        # Cleaned first: what is invisible between its letters must not hide the key.
        text = clean(text, limit=2000)
        return (text.replace(self._key, "[key]") if self._key else text)[:300]

    def call(
        self, path: str, body: dict[str, Any] | None = None, halt: threading.Event | None = None
    ) -> dict[str, Any]:
        """Send one request (GET without a body) until it is answered; return the parsed JSON object.

        Raises:
            Refused: a 4xx other than those that pass with time.
            Failed: `tries` tries failed, or the server asks for a pause that is too long.
            Malformed: the answer is no JSON object, or longer than `MAX_BODY`.
            Halted: `halt` was set.
        """
        halt = halt or threading.Event()
        reason, answered = "", False
        for attempt in range(self.tries):
            if halt.wait(max(0.0, self._gate - time.monotonic())):
                raise Halted
            with self._lock:
                self.sent += 1
                self.repeated += attempt > 0
            status, data, pause, failure = self._once(path, body, self.timeout)
            if 200 <= status < 300:
                return _parse(data)
            if 300 <= status < 500 and status not in AGAIN:
                raise Refused(status, self._message(data))
            answered = answered or status > 0
            reason = failure or " ".join(filter(None, [f"HTTP {status}", self._message(data)]))
            if pause is not None and pause > LONGEST_ASKED:
                raise Failed(f"{reason}; the server asks for a pause of {pause:.0f} s", answered=True)
            if attempt + 1 == self.tries:
                break
            if pause is not None:
                with self._lock:
                    self._gate = max(self._gate, time.monotonic() + pause)
            if halt.wait(self._wait(attempt) if pause is None else pause + self._random.uniform(0, BASE)):
                raise Halted
        raise Failed(f"{reason} ({self.tries} tries)", answered=answered)

    def alive(self) -> bool:
        """Tell whether the server answers anything at all, right now."""
        return self._once("/v1/models", None, min(CONNECT, self.timeout))[0] > 0

    def close(self) -> None:
        """Close all connections; those in use when their answer is there. Closing twice is allowed."""
        with self._lock:
            self._closed = True
            idle = not self._flying
        if idle:
            self._client.close()

    def _wait(self, attempt: int) -> float:
        """Draw the seconds to wait after try `attempt`, counted from 0."""
        return self._random.uniform(0.0, min(LONGEST, BASE * 2**attempt))

    def _once(self, path: str, body: dict[str, Any] | None, timeout: float) -> tuple[int, bytes, float | None, str]:
        """Send once; return status, body, the pause that the server asks for, and what failed. Status 0: no answer."""
        with self._lock:
            if self._closed:
                raise EngineError(f"the engine of {self.url} has been closed; open another one")
            self._flying += 1
        try:
            return self._exchange(path, body, timeout)
        finally:
            with self._lock:
                self._flying -= 1
                last = self._closed and not self._flying
            if last:
                self._client.close()

    def _exchange(self, path: str, body: dict[str, Any] | None, timeout: float) -> tuple[int, bytes, float | None, str]:
        import httpx2

        deadline = time.monotonic() + timeout
        limits = httpx2.Timeout(timeout, connect=min(CONNECT, timeout))
        method = "GET" if body is None else "POST"
        try:
            with self._client.stream(method, self.url + path, json=body, timeout=limits) as response:
                data = bytearray()
                for block in response.iter_bytes():
                    data += block
                    if len(data) > MAX_BODY:
                        break
                    if time.monotonic() > deadline:
                        return 0, b"", None, f"no whole answer in {timeout:g} s"
                return response.status_code, bytes(data), _pause(response.headers.get("retry-after")), ""
        except httpx2.TimeoutException:
            return 0, b"", None, f"no answer in {timeout:g} s"
        except httpx2.TransportError as error:
            return 0, b"", None, f"no connection: {type(error).__name__}: {self.scrub(str(error))}"
        except httpx2.DecodingError:
            return 200, b"", None, ""

    def _message(self, data: bytes) -> str:
        """Find the words in an error's body."""
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            found = data.decode("utf-8", "replace")
        for name in ("error", "message", "detail"):
            if isinstance(found, dict):
                found = found.get(name, found)
        return self.scrub(found if isinstance(found, str) else json.dumps(found))


def spread(
    tasks: Sequence[Callable[[], _T]], threads: int, finished: Callable[[int, _T], None], halt: threading.Event
) -> None:
    """Run tasks in order on at most `threads` threads; `finished(index, result)` runs in the caller's thread.

    The first exception ends all: `halt` is set and the threads, which are daemons, find out when their server answers.
    So Ctrl-C does not wait for anyone.
    """
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, _T | None, BaseException | None]] = queue.SimpleQueue()
    for index in range(len(tasks)):
        todo.put(index)

    def work() -> None:
        while not halt.is_set():
            try:
                index = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((index, tasks[index](), None))
            except BaseException as error:
                halt.set()  # At once: the caller's thread may take a while to hear of it.
                done.put((index, None, error))

    try:
        for _ in range(min(threads, len(tasks))):
            threading.Thread(target=work, daemon=True).start()
        for _ in tasks:
            index, result, error = done.get()
            if error is not None:
                raise error
            finished(index, result)  # type: ignore[arg-type]
    finally:
        halt.set()


def _parse(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_BODY:
        raise Malformed(f"malformed answer: more than {MAX_BODY} bytes")
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError):
        raise Malformed("malformed answer: no JSON") from None
    if isinstance(parsed, list):
        return {"data": parsed}  # /lora-adapters answers with a bare list.
    if not isinstance(parsed, dict):
        raise Malformed(f"malformed answer: a JSON object was expected, not a {type(parsed).__name__}")
    return parsed


def _read_key(variable: str | None) -> str:
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise InvalidConfigError(
            f"an API key was expected in the environment variable {variable}, which is empty or not set"
        )
    if len(key) < SHORTEST_KEY or not re.fullmatch(r"[!#-\[\]-~]+", key):
        raise InvalidConfigError(
            f"the API key in {variable} must be at least {SHORTEST_KEY} ASCII characters without spaces, quotes and "
            "backslashes"
        )
    return key


def _pause(header: str | None) -> float | None:
    """Read `Retry-After`: seconds, or a date; None when there is none that can be read."""
    if header is None:
        return None
    try:
        pause = float(header)
    except ValueError:
        try:
            at = parsedate_to_datetime(header)
        except ValueError:
            return None
        pause = (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(0.0, pause) if pause == pause else None
