"""The review server: who may ask what. A matrix of methods, tokens, origins and hosts, and words that fit nowhere."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import random
import socket
from collections import Counter

import pytest
from reviewing import serving, store_of, tags

from recgpt.errors import InvalidConfigError
from recgpt.judge.review import Questions, Settings
from recgpt.judge.review.app import PAGE, build
from recgpt.judge.review.guard import HEADERS, MOST, Access
from recgpt.judge.review.server import _listen

ON = "tags/relevance"


@pytest.fixture
def store(tmp_path):
    return store_of(tmp_path / "buffer.sqlite", tags(30))


def questions(store):
    return Questions(store, Settings(gold_every=0))


def ask(app, method, path, headers, body=b"", query=b""):
    """One request, without a network."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": "",
        "method": method, "path": path, "raw_path": path.encode(), "query_string": query,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], {key.decode(): value.decode() for key, value in sent[0]["headers"]}, sent[-1]["body"]


def test_the_matrix_of_methods_tokens_origins_and_hosts_lets_through_what_it_should_and_nothing_else(store):
    access = Access.of(8765, ["labels.shop.example"])
    app = build(questions(store), access)
    sample = next(iter(store.read().samples))
    body = json.dumps({"name": "ann", "sample": sample, "criterion": ON, "verdict": "Yes"}).encode()
    right = {"host": "127.0.0.1:8765", "cookie": f"{access.cookie}={access.token}", "csrf": access.csrf}
    hosts = {
        "127.0.0.1:8765": True, "localhost:8765": True, "[::1]:8765": True, "LOCALHOST:8765": True,
        "labels.shop.example:8765": True, "127.0.0.1": False, "127.0.0.1:8766": False, "evil.example:8765": False,
        "evil.example": False, "127.0.0.1.nip.io:8765": False, "localhost.evil.example:8765": False,
        "127.0.0.1:8765, evil.example": False, "127.0.0.1:8765@evil.example": False, "": False, None: False,
    }  # fmt: skip
    cookies = {
        right["cookie"]: True, f"a=b; {right['cookie']}; c=d": True, None: False, "": False,
        f"{access.cookie}=": False, f"{access.cookie}={access.token[:-1]}": False, access.token: False,
        f"{access.cookie}={access.token}x": False, f"recgpt-review-8766={access.token}": False,
        f"{access.cookie}={access.csrf}": False,
    }  # fmt: skip
    origins = {
        "http://127.0.0.1:8765": True, "http://localhost:8765": True, "http://labels.shop.example:8765": True,
        None: False, "null": False, "": False, "https://127.0.0.1:8765": False, "http://127.0.0.1:8766": False,
        "http://127.0.0.1": False, "http://evil.example": False, "http://evil.example:8765": False,
        "http://127.0.0.1:8765.evil.example": False, "file://": False,
    }  # fmt: skip
    csrfs = {right["csrf"]: True, None: False, "": False, "0" * 64: False, access.token: False}
    methods = ["GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "FOO"]
    paths = {"/": "GET", "/page/main.js": "GET", "/api/start": "GET", "/api/word": "POST", "/api/compared": "POST"}
    # Each combination but those in which two headers beyond the varied pair are wrong at once: their share is drawn.
    every = list(itertools.product(methods, paths, hosts, cookies, origins, csrfs))
    chosen = [
        one for one in every
        if sum((not hosts[one[2]], not cookies[one[3]], not origins[one[4]], not csrfs[one[5]])) <= 1
    ]  # fmt: skip
    drawn = random.Random(5).sample(every, 6000)
    wrongly, refused, told = [], [], Counter()
    for method, path, host, cookie, origin, csrf in dict.fromkeys(chosen + drawn):
        headers = [("content-type", "application/json")]
        named_ = {"host": host, "cookie": cookie, "origin": origin, "x-csrf-token": csrf}
        headers += [(name, value) for name, value in named_.items() if value is not None]
        may = hosts[host] and cookies[cookie] and method in ("GET", "POST")
        may = may and (method == "GET" or (origins[origin] and csrfs[csrf]))
        # Only what is refused is asked by the thousand: what is let through goes on to the routes, below.
        if may and told["let through"] > 60:
            continue
        status, sent, _ = ask(app, method, path, headers, body if path == "/api/word" else b"{}")
        told["asked"] += 1
        told["let through"] += may
        assert all(sent[name] == value for name, value in HEADERS.items())
        if not may and status < 400:
            wrongly.append((status, method, path, host, cookie, origin, csrf))
        if may and status in (401, 403, 421):
            refused.append((status, method, path, host, cookie, origin, csrf))
        if may:
            # The guard lets it through; a path still has its one method, and an empty comparison is none.
            fits = paths[path] == method
            assert status == (405 if not fits else 422 if path == "/api/compared" else 200), (method, path, status)
    assert told["asked"] > 5000
    assert (wrongly, refused) == ([], [])


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ([("host", "127.0.0.1:8765")], 421),
        ([("origin", "http://evil.example")], 403),
        ([("sec-fetch-site", "cross-site")], 403),
        ([("sec-fetch-site", "same-site")], 403),
        ([("sec-fetch-site", "same-origin")], 200),
        ([("x-csrf-token", "other")], 403),
        ([("content-type", "text/plain")], 415),
    ],
)
def test_doubled_headers_and_what_a_browser_says_of_a_request_count_too(store, more, status):
    access = Access.of(8765)
    sample = next(iter(store.read().samples))
    body = json.dumps({"name": "ann", "sample": sample, "criterion": ON, "verdict": "Yes"}).encode()
    headers = [
        ("host", "127.0.0.1:8765"), ("cookie", f"{access.cookie}={access.token}"), ("x-csrf-token", access.csrf),
        ("origin", "http://127.0.0.1:8765"), ("content-type", "application/json"), *more,
    ]  # fmt: skip
    assert ask(build(questions(store), access), "POST", "/api/word", headers, body)[0] == status
    assert store.buffer.count("labels") == (status == 200)


def test_the_token_becomes_a_strict_cookie_and_leaves_the_address(store):
    access = Access.of(8765)
    app = build(questions(store), access)
    host = [("host", "127.0.0.1:8765")]
    status, headers, _ = ask(app, "GET", "/", host, query=f"token={access.token}".encode())
    assert (status, headers["location"]) == (303, "/")
    assert headers["set-cookie"] == f"{access.cookie}={access.token}; Path=/; HttpOnly; SameSite=Strict"
    for query in (b"token=", b"token=x", b"token=" + access.csrf.encode(), f"token={access.token}&token=x".encode()):
        status, headers, _ = ask(app, "GET", "/", host, query=query)
        assert status in (401, 403)
        assert "set-cookie" not in headers
    assert ask(app, "GET", "/api/start", host, query=f"token={access.token}".encode())[0] == 401
    assert Access.of(8765).token != access.token
    assert len(access.token) >= 32


def test_nothing_but_the_page_is_served_and_long_bodies_are_refused(store):
    access = Access.of(8765)
    app = build(questions(store), access)
    cookie = [("host", "127.0.0.1:8765"), ("cookie", f"{access.cookie}={access.token}")]
    for path in ("/docs", "/redoc", "/openapi.json", "/page/", "/page/app.py", "/page/..", "/page/review.html",
                 "/page/../store.py", "/page/%2e%2e/store.py", "/page//etc/passwd", "/static/main.js"):  # fmt: skip
        assert ask(app, "GET", path, cookie)[0] == 404, path
    for name in PAGE:
        if name != "review.html":
            assert ask(app, "GET", f"/page/{name}", cookie)[0] == 200
    write = [*cookie, ("origin", "http://127.0.0.1:8765"), ("x-csrf-token", access.csrf)]
    write.append(("content-type", "application/json"))
    assert ask(app, "POST", "/api/word", write, b" " * (MOST + 1))[0] == 413


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 200),
        ({"verdict": "Maybe"}, 409),
        ({"criterion": "tags/taste"}, 409),
        ({"sample": "none"}, 409),
        ({"name": "gold"}, 409),
        ({"name": "a/b"}, 409),
        ({"name": " "}, 409),
        ({"name": "x" * 41}, 409),
        ({"skip": "why"}, 409),
        ({"gold": True}, 409),
        ({"seconds": -1}, 422),
        ({"seconds": float("nan")}, 422),
        ({"seconds": 1e9}, 422),
        ({"kind": "gold"}, 422),
        ({"note": "x" * 1001}, 422),
        ({"annotator": "bob"}, 422),
        ({"verdict": ["Yes"]}, 422),
        ({"sample": "\ud800"}, 422),
        ({"note": "\u202e"}, 200),
    ],
)
def test_words_that_fit_nowhere_are_refused(store, change, status):
    access = Access.of(8765)
    sample = next(iter(store.read().samples))
    body = {"name": "ann", "sample": sample, "criterion": ON, "verdict": "Yes", "seconds": 1.5} | change
    headers = [
        ("host", "127.0.0.1:8765"), ("cookie", f"{access.cookie}={access.token}"), ("x-csrf-token", access.csrf),
        ("origin", "http://127.0.0.1:8765"), ("content-type", "application/json"),
    ]  # fmt: skip
    found, _, answer = ask(build(questions(store), access), "POST", "/api/word", headers, json.dumps(body).encode())
    assert found == status, answer
    assert store.buffer.count("labels") == (status == 200)


def test_the_started_server_holds_the_same_over_a_real_socket(store):
    with serving(store.buffer.path) as server:
        assert server.address.startswith(f"http://127.0.0.1:{server.port}/?token=")

        def get(path, **headers):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            found = answer.status, dict(answer.getheaders()), answer.read()
            connection.close()
            return found

        assert get("/")[0] == 401
        assert get("/", Host="evil.example")[0] == 421
        status, headers, _ = get(f"/?token={server.token}")
        assert status == 303
        cookie = headers["set-cookie"].split(";")[0]
        status, headers, page = get("/", Cookie=cookie)
        assert status == 200
        assert b"<script>" not in page
        assert headers["content-security-policy"] == HEADERS["content-security-policy"]
        # Only loopback: no other address of this machine is listened on.
        other = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        other.settimeout(2)
        assert other.connect_ex(("127.0.0.2", server.port)) != 0
        other.close()
        with pytest.raises(InvalidConfigError, match="cannot listen on"):
            _listen("127.0.0.1", server.port)
        printed = server.close()
    assert server.token not in printed
    assert "Traceback" not in printed
