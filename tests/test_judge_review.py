"""The review server: who may ask what, which sample whom, and what two lists come to. Pages are in the next file."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import random
import socket
import sqlite3
import threading
from collections import Counter

import pytest
from command import say
from reviewing import ALL, serving, store_of, tags

from recgpt import judge
from recgpt.errors import InvalidConfigError, JudgeError
from recgpt.judge.buffer import GOLD, Label
from recgpt.judge.review import Questions, Settings
from recgpt.judge.review.app import PAGE, build
from recgpt.judge.review.guard import HEADERS, MOST, Access
from recgpt.judge.review.questions import HELD, named
from recgpt.judge.review.repetition import QUESTIONS, checked, figures, pair
from recgpt.judge.review.server import _listen

ON = "tags/relevance"
TWO = ("tags/consistency", ON)


@pytest.fixture
def store(tmp_path):
    return store_of(tmp_path / "buffer.sqlite", tags(30))


def questions(store, **settings):
    return Questions(store, Settings(**{"gold_every": 0, **settings}))


def label(sample, who, verdict="Yes", criterion=ON, note=""):
    return Label(sample, criterion, who, verdict, note, 2.0, round=1)


def finish(store, sample, who, verdict="Yes"):
    for criterion in TWO:
        store.say(label(sample, who, verdict, criterion))


def ids(found):
    return [one["id"] for one in found]


# Who may ask what.


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


# Which sample whom.


def test_two_people_get_different_samples_and_two_a_sample_the_same(store):
    one = questions(store)
    ann, bob = ids(one.next("ann")), ids(one.next("bob"))
    assert len(ann) == len(bob) == 5
    assert not set(ann) & set(bob)
    assert ids(one.next("ann", have=ann)) == []
    both = questions(store, annotators=2)
    assert ids(both.next("ann")) == ids(both.next("bob"))
    assert not set(ids(both.next("eve"))) & set(ids(both.next("ann")))


def test_what_was_handed_out_and_not_answered_comes_back_after_a_while(store):
    now = [0.0]
    found = Questions(store, Settings(gold_every=0), clock=lambda: now[0])
    ann = ids(found.next("ann", ahead=30))
    assert len(ann) == 30
    assert found.next("bob") == []
    now[0] = HELD + 1
    assert ids(found.next("bob")) == ann[:5]


def test_what_was_begun_comes_first_after_a_reload(store):
    begun = ids(questions(store).next("ann"))[3]
    store.say(label(begun, "ann"))
    (first, *_) = questions(store).next("ann")
    assert (first["id"], first["answers"]) == (begun, {ON: {"verdict": "Yes", "skip": None, "note": ""}})


def test_samples_of_an_open_milestone_come_before_others(store):
    due = ids(questions(store).next("x", ahead=30))[20:24]
    with store.buffer.transaction() as database:
        database.execute(
            "CREATE TABLE IF NOT EXISTS events (row INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, "
            "data TEXT NOT NULL, time TEXT NOT NULL)"
        )

    def befall(kind, **data):
        with store.buffer.transaction() as database:
            database.execute("INSERT INTO events (kind, data, time) VALUES (?, ?, '')", (kind, json.dumps(data)))

    befall("milestone opened", cases=[{"sample": one} for one in due])
    later = store_of(store.buffer.path, [])
    assert set(ids(questions(later).next("ann", ahead=4))) == set(due)
    befall("milestone closed")
    assert not set(ids(questions(later).next("ann", ahead=4))) & set(due)


def test_the_judge_and_gold_are_hidden_until_everything_is_answered(store):
    (first, *_) = (found := questions(store)).next("ann")
    store.say(label(first["id"], GOLD, "No", note="only the word"))
    assert first["reveal"] is None
    assert "0.81" not in json.dumps(found.next("ann"))
    store.say(label(first["id"], "ann"))
    assert found.show(store.read(), first["id"], "ann")["reveal"] is None
    store.say(label(first["id"], "ann", criterion="tags/consistency"))
    reveal = found.show(store.read(), first["id"], "ann")["reveal"]
    assert reveal[ON] == {
        "judge": {"verdict": "Yes", "score": 0.81, "reason": ""},
        "gold": {"verdict": "No", "note": "only the word"},
    }
    assert found.show(store.read(), first["id"], "bob")["reveal"] is None


def test_gold_questions_come_at_their_turn_and_to_everybody(store):
    golds = ids(questions(store).next("x", ahead=30))[10:14]
    for one in golds:
        store.say(label(one, GOLD, "No"))
    found = questions(store, gold_every=4)
    for who in ("ann", "bob"):
        dealt = ids(found.next(who, ahead=12))
        assert [place for place, one in enumerate(dealt, start=1) if one in golds] == [4, 8, 12]
    assert not set(ids(questions(store).next("eve", ahead=30))) & set(golds), "none is asked where none is wanted"
    told = found.progress("ann")
    assert told["left"] == 26 - 9 + 4, "what bob holds is not ann's"
    dealt = ids(found.next("ann", ahead=12))
    for place, one in enumerate(dealt):
        finish(store, one, "ann", "No" if place == 3 else "Yes")
    told = found.progress("ann")
    assert told["gold"] == {"same": 1, "of": 3}
    assert told["mine"] == 12
    assert told["seconds"] == 4.0
    assert told["judge"] == {"same": 22, "of": 24}


def test_a_careless_annotator_is_found_by_gold_questions(store):
    """Somebody who errs on one question of five is told apart from one who errs on one of fifty, in 20 gold samples."""
    found = questions(store, gold_every=1)
    golds = list(store.read().samples)[:20]
    for one in golds:
        store.say(label(one, GOLD, "No"))
    draw = random.Random(3)
    for who, rate in (("careful", 0.02), ("careless", 0.2)):
        for one in golds:
            finish(store, one, who, "Yes" if draw.random() < rate else "No")
    careful, careless = (found.progress(who)["gold"] for who in ("careful", "careless"))
    assert careful["of"] == careless["of"] == 20
    assert careful["same"] > careless["same"]


def test_differences_are_decided_once_and_can_become_gold(store):
    found = questions(store, annotators=2)
    sample = next(iter(store.read().samples))
    finish(store, sample, "ann")
    store.say(label(sample, "bob", "No", note="only the word is the same"))
    store.say(label(sample, "bob", "Yes", criterion="tags/consistency"))
    (one,) = found.disputes(store.read())
    assert one["criterion"] == ON
    assert [row["verdict"] for row in one["said"]] == ["No", "Yes"]
    assert "ann" not in json.dumps(found.dispute(store.read(), one, "eve"))
    assert found.dispute(store.read(), one, "ann")["own"]
    store.say(label(sample, "adjudication/eve", "No"))
    assert found.disputes(store.read()) == []
    store.say(label(sample, "adjudication/eve", None, note="undo"))
    assert len(found.disputes(store.read())) == 1
    assert found.progress("ann")["people"] == {"same": 1, "of": 2}


def test_saying_it_again_adds_nothing_and_changing_it_takes_the_first_back(store):
    sample = next(iter(store.read().samples))
    for _ in range(3):
        store.say(label(sample, "ann"))
    assert store.buffer.count("labels") == 1
    store.say(label(sample, "ann", "No"))
    assert store.buffer.count("labels") == 3
    assert [row["verdict"] for row in store.buffer.labels(ALL).to_pylist()] == ["No"]
    store.say(label(sample, "ann", None, note="undo"))
    store.say(label(sample, "ann", None, note="undo"))
    assert store.buffer.count("labels") == 4
    assert store.buffer.labels(ALL).num_rows == 0
    store.say(label(sample, "ann", None, note="skip: broken"))
    assert questions(store).show(store.read(), sample, "ann")["answers"][ON]["skip"] == "broken"
    assert store.buffer.labels(ALL).num_rows == 0


def test_threads_and_another_process_are_seen_at_once_and_nothing_is_lost(store):
    samples = list(store.read().samples)

    def work(who):
        for one in samples:
            store.say(label(one, who))

    other = store_of(store.buffer.path, [])
    threads = [threading.Thread(target=work, args=(who,)) for who in ("ann", "bob", "eve")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(other.read().said) == 90
    assert other.buffer.labels(ALL).num_rows == 90
    with sqlite3.connect(store.buffer.path) as database, pytest.raises(sqlite3.IntegrityError, match="only grows"):
        database.execute("DELETE FROM contexts")


def test_labels_of_another_wording_are_asked_again(store):
    sample = next(iter(store.read().samples))
    finish(store, sample, "ann")
    text = (judge.criteria.resources.files("recgpt") / "prompts/criteria/tags/relevance.toml").read_text()
    other = judge.criteria.parse("tags", "relevance", text.replace("stated", "given"))
    later = store_of(store.buffer.path, [], ALL | {ON: other})
    shown = questions(later).show(later.read(), sample, "ann")
    assert set(shown["answers"]) == {"tags/consistency"}
    assert shown["reveal"] is None


@pytest.mark.parametrize("name", ["", "  ", "gold", "Gold", "a/b", "x" * 41, "\u202e"])
def test_names_that_stand_for_something_else_are_refused(name):
    with pytest.raises(JudgeError, match="a name has 1 to 40 characters"):
        named(name)
    assert named("  Zoë\u202e  Müller ") == "Zoë Müller"


# Two lists.


def lists(count=10):
    return {arm: [{"title": f"{arm} {place}", "detail": ""} for place in range(count)] for arm in ("base", "recgpt")}


def said(left=(), right=(), seen="yes", where=("left",)):
    return {"seen": seen, "where": list(where), "marks": [list(left), list(right)]}


def test_the_questionnaire_has_seven_questions_and_arms_stand_left_and_right_by_chance():
    assert len(QUESTIONS) == 7
    assert len({key for key, *_ in QUESTIONS}) == 7
    left = Counter(pair(f"u{user}", lists()).arms[0] for user in range(400))
    assert min(left.values()) > 150
    assert pair("u1", lists()) == pair("u1", dict(reversed(lists().items())))
    with pytest.raises(JudgeError, match="two arms with items were expected"):
        pair("u1", {"base": [], "recgpt": [{}]})


def test_answers_that_no_question_has_are_refused_and_void_ones_left_out():
    two = pair("u1", lists()).lists
    found = checked(said([4, 2, 4], [3], where=["left"]) | {"right_kind": ["same"], "why": "all  mugs"}, two)
    assert found["marks"] == [[2, 4], []]
    assert (found["right_kind"], found["why"]) == ([], "all mugs")
    assert checked(said([2], seen="no"), two)["marks"] == [[], []]
    for wrong in (
        said(seen="maybe"), said(seen=""), said([1]), said([11]), said([True]), said(where=["middle"]),
        said() | {"marks": 3}, said() | {"marks": [[2]]}, said() | {"left_what": "size"}, said() | {"where": ["up"]},
    ):  # fmt: skip
        with pytest.raises(JudgeError):
            checked(wrong, two)


def test_only_unanimous_answers_of_three_count(store, capsys):
    pairs = [pair(f"u{user}", lists()) for user in range(4)]
    assert store.add_pairs(pairs) == 4
    assert store.add_pairs(pairs) == 0
    for one in pairs[:3]:
        side = one.arms.index("base")
        marks = [[], []]
        for place, who in enumerate(("ann", "bob", "eve")):
            # The first pair repeats from place 3 on, the second from place 6; about the third people differ.
            marks[side] = [[3], [6], [6] if place else []][pairs.index(one)]
            where = [("left", "right")[side]] if marks[side] else []
            answer = said(*marks, seen="yes" if marks[side] else "no", where=where)
            store.answer(one.id, who, checked(answer, one.lists), 30.0)
    store.answer(pairs[3].id, "ann", checked(said(seen="skip"), pairs[3].lists), 3.0)
    found = figures(store.read())
    assert (found["pairs"], found["answered"]) == (4, 3)
    by_depth = {row["depth"]: row for row in found["repetition"]}
    assert by_depth["top 4"]["base"] == {"repeats": 1, "unanimous": 3, "share": 1 / 3}
    assert by_depth["top 8"]["base"] == {"repeats": 2, "unanimous": 2, "share": 1.0}
    assert by_depth["all"]["base"] == {"repeats": 2, "unanimous": 2, "share": 1.0}
    assert by_depth["all"]["recgpt"] == {"repeats": 0, "unanimous": 3, "share": 0.0}
    printed = say(capsys, "judge", "repetition", str(store.buffer.path))
    assert "3 of 4 pairs have 3 answers" in printed
    for piece in ("top 4", "top 8", "all", "33.3% of 3", "100.0% of 2", "0.0% of 3"):
        assert piece in printed
    assert json.loads(say(capsys, "judge", "repetition", str(store.buffer.path), "--json")) == found
    store.answer(pairs[0].id, "eve", None, None)
    assert figures(store.read())["answered"] == 2


def test_who_could_not_tell_makes_a_pair_count_for_nothing(store):
    one = pair("u1", lists())
    store.add_pairs([one])
    for who in ("ann", "bob", "eve"):
        store.answer(one.id, who, checked(said(seen="skip"), one.lists), 3.0)
    assert [row["base"]["share"] for row in figures(store.read())["repetition"]] == [None, None, None]
    with pytest.raises(JudgeError, match="is not in the buffer"):
        store.answer("none", "ann", None, None)


# The commands.


def test_review_says_what_it_cannot_do(store, tmp_path, capsys):
    missing = tmp_path / "none.sqlite"
    assert "a buffer was expected at" in say(capsys, "judge", "review", str(missing), status=1)
    assert not missing.exists()
    assert "--task is one of" in say(capsys, "judge", "review", str(store.buffer.path), "--task", "x", status=1)
    taken = _listen("127.0.0.1", 0)
    port = str(taken.getsockname()[1])
    printed = say(capsys, "judge", "review", str(store.buffer.path), "--port", port, "--no-browser", status=1)
    assert "name another with --port" in printed
    taken.close()
