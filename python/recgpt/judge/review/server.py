"""Starts the review page: on loopback unless told otherwise, with a new token each time."""

from __future__ import annotations

import socket
import threading
import webbrowser
from collections.abc import Callable, Sequence
from importlib.util import find_spec

from recgpt.errors import InvalidConfigError, MissingExtraError
from recgpt.judge.review.guard import Access
from recgpt.judge.review.questions import Questions

PORT = 8765
"""The same each time, so that a browser finds answers again that it could not send."""


def serve(
    questions: Questions,
    *,
    say: Callable[[str], None],
    port: int = PORT,
    host: str = "127.0.0.1",
    names: Sequence[str] = (),
    browser: bool = True,
) -> None:
    """Serve the review page until the process is told to stop.

    Args:
        questions: what to ask.
        say: gets one line, the address with its token.
        port: 0 takes a free one.
        host: address to listen on.
        names: host names under which people reach the server, beside loopback.
        browser: open the page.

    Raises:
        MissingExtraError: FastAPI or uvicorn is not installed.
        InvalidConfigError: nothing can listen there.
    """
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        raise MissingExtraError('the review page needs FastAPI and uvicorn; pip install "recgpt[judge]"')
    import uvicorn

    from recgpt.judge.review.app import build

    listening = _listen(host, port)
    port = listening.getsockname()[1]
    shown = names[0] if names else host
    access = Access.of(port, [*names, f"[{host}]" if ":" in host else host])
    address = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/?token={access.token}"
    # Neither the date nor uvicorn's name helps anybody; its access log would hold the token.
    config = uvicorn.Config(
        build(questions, access), log_level="warning", access_log=False, server_header=False, ws="none", lifespan="off"
    )
    say(address)
    if browser:
        threading.Timer(0.3, webbrowser.open, [address]).start()
    uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """Take the port at once, so that a browser that is opened now waits instead of failing.

    Raises:
        InvalidConfigError: the port is taken, or the host is not this machine's.
    """
    found = None
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(64)
    except OSError as error:
        if found is not None:
            found.close()
        raise InvalidConfigError(
            f"the review page cannot listen on {host} port {port}: {error.strerror}; name another with --port"
        ) from error
    return found
