"""Who may ask the review server what: decided here, before any route, for every method alike.

A request is let through only if its host is one of ours (a foreign name that resolves to this machine is not), its
method is GET or POST, and its cookie holds the token. One that writes must also come from our own page: its `Origin` is
ours, and it repeats a second token that only a script of our own origin can read.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST = 64 * 1024
"""Longest body of a request, in bytes."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Access:
    """What a server demands of a request."""

    hosts: frozenset[str]
    """`Host` headers that are let through, with their port."""
    port: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    @classmethod
    def of(cls, port: int, names: Iterable[str] = ()) -> Access:
        """Let through loopback and further names, all with this port."""
        return cls(frozenset(f"{name}:{port}".lower() for name in ("127.0.0.1", "localhost", "[::1]", *names)), port)

    @property
    def cookie(self) -> str:
        """Name of the cookie; browsers do not keep the cookies of two ports apart."""
        return f"recgpt-review-{self.port}"

    @property
    def csrf(self) -> str:
        """The token that every write repeats in `X-CSRF-Token`."""
        return hmac.new(self.token.encode(), b"csrf", hashlib.sha256).hexdigest()

    @property
    def origins(self) -> frozenset[str]:
        """Origins from which a write may come."""
        return frozenset(f"http://{host}" for host in self.hosts)


class Guard:
    """Stands before the application."""

    def __init__(self, app: App, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, answer it with the cookie, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers = _headers(scope)
        status, text, more = self._judge(scope, headers)
        if status:
            await _answer(send, status, text, more)
            return
        body = await _body(receive)
        if body is None:
            await _answer(send, 413, f"a request has at most {MOST} bytes", {})
            return

        async def dressed(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_raw(HEADERS)]
            await send(message)

        async def again() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, again, dressed)

    def _judge(self, scope: Scope, headers: dict[str, list[str]]) -> tuple[int, str, dict[str, str]]:
        """Give status, text and headers of the answer; 0 lets the request through."""
        access = self._access
        if len(headers.get("host", ())) != 1 or headers["host"][0].lower() not in access.hosts:
            return 421, "this host name is not one of the server's; start it with --allow-host NAME", {}
        method = scope["method"]
        if method not in ("GET", "POST"):
            return 405, "only GET and POST are known here", {"allow": "GET, POST"}
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        if method == "GET" and scope["path"] == "/" and asked:
            if len(asked) != 1 or not _same(asked[0], access.token):
                return 403, "this token is not the server's: open the address that it printed last", {}
            # Strict: no other site's link or form carries it along. The token leaves the address bar at once.
            cookie = f"{access.cookie}={access.token}; Path=/; HttpOnly; SameSite=Strict"
            return 303, "", {"location": "/", "set-cookie": cookie}
        if not _same(_cookie(headers, access.cookie), access.token):
            return 401, "open the address that the server printed, token and all", {}
        if method == "POST":
            origin, csrf = headers.get("origin", []), headers.get("x-csrf-token", [])
            if len(origin) != 1 or origin[0].lower() not in access.origins:
                return 403, "a write comes from the server's own page, but this one's origin is another", {}
            if len(csrf) != 1 or not _same(csrf[0], access.csrf):
                return 403, "a write repeats the page's own token, but this one does not: reload the page", {}
            if headers.get("sec-fetch-site", ["same-origin"]) != ["same-origin"]:
                return 403, "a write comes from the server's own page", {}
            if [one.split(";")[0].strip().lower() for one in headers.get("content-type", [])] != ["application/json"]:
                return 415, "a write is JSON", {}
        return 0, "", {}


def _headers(scope: Scope) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def _cookie(headers: dict[str, list[str]], name: str) -> str:
    try:
        jar = SimpleCookie("; ".join(headers.get("cookie", ())))
    except CookieError:
        return ""
    return jar[name].value if name in jar else ""


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode())


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


async def _body(receive: Receive) -> bytes | None:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b""
        part: bytes = message.get("body", b"")
        body += part
        if len(body) > MOST:
            return None
        if not message.get("more_body", False):
            return body


async def _answer(send: Send, status: int, text: str, more: dict[str, str]) -> None:
    headers = _raw(HEADERS | {"content-type": "text/plain; charset=utf-8"} | more)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
