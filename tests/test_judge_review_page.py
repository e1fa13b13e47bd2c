"""The review page in a real Chromium: labels by keyboard, crashes, two browsers, gold questions, two lists."""

from __future__ import annotations

import sqlite3
import time

import pytest
from reviewing import ALL, HISTORY, Server, enter, listen, mugs, output, saved, serving, store_of, tags, until

from recgpt.judge.buffer import Label
from recgpt.judge.review.repetition import figures, pair

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]
ON = "tags/relevance"


@pytest.fixture
def store(tmp_path):
    return store_of(tmp_path / "buffer.sqlite", tags(30))


def labels(store):
    return store.buffer.labels(ALL).to_pylist()


def test_twenty_samples_are_labeled_by_keyboard_and_end_in_the_buffer(store, page):
    handed = []
    page.on("response", lambda answer: handed.append(answer.text()) if "/api/next" in answer.url else None)
    with serving(store.buffer.path) as server:
        enter(page, server)
        assert "token" not in page.url
        begin, seen = time.monotonic(), []
        for place in range(20):
            seen.append(output(page))
            page.keyboard.press("1")
            page.keyboard.press("2" if place % 4 == 3 else "1")
            until(page, "text => document.querySelector('h2.output')?.textContent !== text", arg=seen[-1])
        saved(page)
        took = time.monotonic() - begin
        until(page, "document.getElementById('count').textContent === '20 of 30'")
        assert "judge 88 %" in page.inner_text("#agreed")
    found = labels(store)
    assert len(found) == 40
    by_output = {one.sample.fields["tag"]: one.sample.id for one in store.read().samples.values()}
    verdicts = {(row["sample"], row["criterion"]): row["verdict"] for row in found}
    for place, text in enumerate(seen):
        assert verdicts[by_output[text], ON] == ("No" if place % 4 == 3 else "Yes")
    assert len(set(seen)) == 20
    assert all(row["annotator"] == "ann" and row["seconds"] is not None and row["round"] == 1 for row in found)
    assert "0.81" not in "".join(handed), "the judge's verdicts are not even sent before people have answered"
    assert took < 60, "what the page itself costs of the five minutes"
    assert page.wrong == []


def test_a_held_key_gives_one_verdict(store, page):
    with serving(store.buffer.path) as server:
        enter(page, server)
        for _ in range(5):
            page.keyboard.down("1")
        page.keyboard.up("1")
        saved(page)
    assert len(labels(store)) == 1


def test_kill_in_the_middle_loses_nothing(store, page):
    server = Server(store.buffer.path)
    enter(page, server)
    given = 0

    def answer(count):
        nonlocal given
        for _ in range(count):
            page.wait_for_selector(".sample")
            page.keyboard.press("1")
            given += 1

    for round_ in range(3):
        answer(4)
        server.kill()
        # The page goes on with what it holds; its words wait in the browser.
        answer(2)
        page.wait_for_selector("#banner:not([hidden])")
        assert "kept in this browser" in page.inner_text("#banner")
        assert len(labels(store)) <= given
        server = Server(store.buffer.path, port=server.port)
        if round_ == 1:
            page.reload()
            until(page, "document.body.textContent.includes('open the address')")
        page.goto(server.address)
        page.wait_for_selector(".sample")
        saved(page)
        assert len(labels(store)) == given
    server.close()
    assert given == 18
    assert store.buffer.count("labels") == given, "and nothing twice"


def test_two_browsers_at_once_share_the_work_and_both_are_kept(store, page, browser):
    other = listen(browser.new_context().new_page())
    with serving(store.buffer.path) as server:
        enter(page, server, "ann")
        enter(other, server, "bob")
        for _ in range(16):
            for one, letter in ((page, "1"), (other, "2")):
                one.wait_for_selector(".sample")
                one.keyboard.press(letter)
        saved(page)
        saved(other)
        # The same person in a second tab.
        tab = listen(page.context.new_page())
        tab.goto(server.origin)
        tab.wait_for_selector(".sample")
        tab.keyboard.press("1")
        page.keyboard.press("1")
        saved(tab)
        saved(page)
    found = labels(store)
    people = {who: {row["sample"] for row in found if row["annotator"] == who} for who in ("ann", "bob")}
    assert not people["ann"] & people["bob"]
    assert sum(row["annotator"] == "bob" for row in found) == 16
    assert sum(row["annotator"] == "ann" for row in found) in (17, 18)
    other.context.close()
    assert page.wrong == other.wrong == tab.wrong == []


def test_reload_back_undo_change_note_and_skip(store, page):
    with serving(store.buffer.path) as server:
        enter(page, server)
        first = output(page)
        page.keyboard.press("1")
        page.reload()
        page.wait_for_selector(".sample")
        assert output(page) == first
        assert page.locator(".steps .said").count() == 1
        page.keyboard.press("n")
        page.fill("#note-text", "only the word")
        page.keyboard.press("Enter")
        page.keyboard.press("2")
        until(page, "text => document.querySelector('h2.output').textContent !== text", arg=first)
        second = output(page)
        saved(page)
        page.go_back()
        until(page, "text => document.querySelector('h2.output').textContent === text", arg=first)
        page.wait_for_selector(".reveal")
        assert "judge: Yes (81 % that it passes)" in page.inner_text(".reveal")
        page.keyboard.press("2")  # the first of the two criteria, said otherwise
        saved(page)
        assert output(page) == first
        page.keyboard.press("ArrowRight")
        assert output(page) == second
        page.keyboard.press("s")
        page.keyboard.press("2")
        page.keyboard.press("s")
        page.fill("#other", "two tags in one")
        page.keyboard.press("Enter")
        until(page, "text => document.querySelector('h2.output').textContent !== text", arg=second)
        saved(page)
        rows = {(row["criterion"], row["verdict"], row["note"]) for row in labels(store)}
        assert rows == {("tags/consistency", "No", ""), (ON, "No", "only the word")}
        with sqlite3.connect(store.buffer.path) as database:
            notes = [note for (note,) in database.execute("SELECT note FROM labels ORDER BY row")]
        assert notes[-2:] == ["skip: Broken or unreadable", "skip: two tags in one"]
        page.keyboard.press("u")
        until(page, "text => document.querySelector('h2.output').textContent === text", arg=second)
        page.keyboard.press("Control+z")
        page.keyboard.press("1")
        page.keyboard.press("1")
        page.keyboard.press("u")
        page.keyboard.press("2")
        saved(page)
        page.reload()
        page.wait_for_selector(".sample")
    by_output = {one.sample.fields["tag"]: one.sample.id for one in store.read().samples.values()}
    found = {row["criterion"]: row["verdict"] for row in labels(store) if row["sample"] == by_output[second]}
    assert found == {"tags/consistency": "Yes", ON: "No"}
    assert page.wrong == []


def test_what_one_person_skipped_another_is_asked_with_the_reason(tmp_path, page, browser):
    store = store_of(tmp_path / "buffer.sqlite", tags(2))
    with serving(store.buffer.path) as server:
        enter(page, server, "ann")
        skipped = output(page)
        place = page.get_by_role("button", name="Yes, key 1").bounding_box()
        page.keyboard.press("s")
        page.keyboard.press("1")
        page.keyboard.press("1")
        until(page, "text => document.querySelector('h2.output').textContent !== text", arg=skipped)
        page.keyboard.press("1")
        page.keyboard.press("1")
        page.wait_for_selector(".empty")
        saved(page)
        other = listen(browser.new_context(viewport={"width": 1280, "height": 800}).new_page())
        enter(other, server, "bob")
        assert output(other) == skipped
        assert other.locator(".skipped").inner_text() == "Somebody skipped this: Cannot be told from what is shown"
        assert other.get_by_role("button", name="Yes, key 1").bounding_box() == place, "the buttons stay where they are"
        assert "ann" not in other.inner_text("#view").split()
        other.keyboard.press("1")
        assert other.locator(".skipped").count() == 0, "the other question was answered"
        other.keyboard.press("1")
        other.wait_for_selector(".empty")
        saved(other)
        other.context.close()
    given = [(row["annotator"], row["sample"] == min(store.read().samples)) for row in labels(store)]
    assert sorted(given) == [("ann", False), ("ann", False), ("ann", True), ("bob", True), ("bob", True)]
    assert page.wrong == other.wrong == []


def test_gold_questions_give_feedback_and_adjudication_makes_them(store, page, browser):
    one = next(iter(sorted(store.read().samples)))
    for who, verdict in (("bob", "Yes"), ("eve", "No")):
        for criterion in ("tags/consistency", ON):
            word = verdict if criterion == ON else "Yes"
            store.say(Label(one, criterion, who, word, "only the word" if word == "No" else "", 1.0, 1))
    with serving(store.buffer.path, "--gold-every", "1") as server:
        enter(page, server, "ann", "disputes")
        page.wait_for_selector(".said-by")
        assert page.locator(".said-by li").all_inner_texts() == ["No\nonly the word", "Yes\nno note"]
        assert not {"bob", "eve"} & set(page.inner_text("#view").split())
        page.keyboard.press("g")
        page.keyboard.press("n")
        page.fill("#note-text", "nobody buys this for it")
        page.keyboard.press("Enter")
        page.keyboard.press("2")
        page.wait_for_selector(".empty")
        saved(page)
        found = {(row["annotator"], row["verdict"], row["note"]) for row in labels(store) if row["criterion"] == ON}
        reason = "nobody buys this for it"
        assert found >= {("adjudication/ann", "No", reason), ("gold", "No", reason), ("bob", "Yes", "")}
        other = listen(browser.new_context().new_page())
        enter(other, server, "kim")
        assert other.locator("dialog[open]").count() == 0
        other.keyboard.press("1")
        other.keyboard.press("1")
        other.wait_for_selector("dialog[open]")
        assert "You said Yes; the answer is No, because: nobody buys this for it" in other.inner_text("dialog")
        other.keyboard.press("Enter")
        until(other, "document.getElementById('agreed').textContent.includes('gold 0 of 1')")
        other.context.close()
    assert page.wrong == other.wrong == []


def test_two_lists_are_compared_by_three_people(store, page, browser):
    pairs = [
        pair(f"u{at}", {"base": mugs("blue"), "recgpt": mugs("red")}, attributes="age 35", history=HISTORY)
        for at in range(2)
    ]
    store.add_pairs(pairs)
    with serving(store.buffer.path) as server:
        for who in ("ann", "bob", "eve"):
            context = browser.new_context()
            tab = listen(context.new_page())
            enter(tab, server, who, "lists")
            for _ in range(2):
                tab.wait_for_selector(".questions")
                shown = tab.locator("#view").inner_text()
                assert "base" not in shown, "unnamed"
                assert "recgpt" not in shown
                blue = 0 if tab.locator(".list").nth(0).inner_text().count("blue mug") else 1
                assert tab.locator("fieldset:visible").count() == 1
                tab.keyboard.press("1")
                assert tab.locator("fieldset:visible").count() == 3
                # Place 3 repeats; the list is named by the mark alone.
                tab.locator(".list").nth(blue).locator("button.card").nth(1).click()
                assert tab.locator("fieldset:visible").count() == 5
                tab.locator("fieldset:visible").nth(2).get_by_label("One color").check()
                if who == "ann":
                    tab.reload()
                    tab.wait_for_selector(".card[aria-pressed=true]")
                    assert tab.locator("fieldset:visible").nth(2).get_by_label("One color").is_checked()
                tab.fill("#why", "all mugs")
                heading = tab.url
                tab.locator(".questions .primary").click()
                until(tab, "url => location.href !== url || document.querySelector('.empty')", arg=heading)
            saved(tab)
            assert tab.wrong == []
            context.close()
    (found,) = figures(store.read())
    assert found["answered"] == 2
    for row in found["repetition"]:
        assert row["base"] == {"repeats": 2, "unanimous": 2, "share": 1.0}
        assert row["recgpt"]["share"] == 0.0
    answer = next(iter(store.read().answers.values()))
    assert answer["why"] == "all mugs"
    assert ["color"] in (answer["left_what"], answer["right_what"])
