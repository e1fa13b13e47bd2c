"""The review page in a real Chromium: labels by keyboard, crashes, two browsers, hostile text, names, focus, looks."""

from __future__ import annotations

import json
import sqlite3
import time

import pytest
from reviewing import ALL, HISTORY, SHOTS, Server, chromium, serving, store_of, tags

from recgpt import judge
from recgpt.judge import Sample
from recgpt.judge.buffer import Label
from recgpt.judge.review.repetition import figures, pair
from recgpt.text import clean

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]
ON = "tags/relevance"


@pytest.fixture(scope="module")
def browser():
    path = chromium()
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    with sync_api.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture
def store(tmp_path):
    return store_of(tmp_path / "buffer.sqlite", tags(30))


@pytest.fixture
def page(browser):
    """A page that notes what should never be: errors, dialogs, refused scripts, requests to elsewhere."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(15_000)
    found = context.new_page()
    listen(found)
    yield found
    context.close()


def listen(page):
    page.wrong = []
    page.on("pageerror", lambda error: page.wrong.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (page.wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("console", lambda said: page.wrong.append(said.text) if "Security Policy" in said.text else None)
    page.on("request", lambda asked: None if ours(asked.url) else page.wrong.append(f"request: {asked.url}"))
    page.add_init_script("addEventListener('securitypolicyviolation', (event) => console.error('Security Policy'))")
    return page


def ours(url):
    return url.startswith(("http://127.0.0.1:", "data:,"))


def until(page, script, arg=None):
    """Wait for something of the page; Playwright's own way is a string that the page's policy does not run."""
    begin = time.monotonic()
    while not page.evaluate(script, arg):
        assert time.monotonic() - begin < 15, script
        page.wait_for_timeout(15)


def enter(page, server, who="ann", view="labels"):
    page.goto(server.address)
    page.fill("#name", who)
    page.keyboard.press("Enter")
    page.wait_for_selector("#view article, #view section")
    if view != "labels":
        page.click(f"nav a[data-view={view}]")
        page.wait_for_selector(f"main.{view}")


def saved(page):
    """Wait until the server has everything."""
    until(page, "document.getElementById('saved').textContent === 'saved'")


def labels(store):
    return store.buffer.labels(ALL).to_pylist()


def output(page):
    return page.locator(".sample h2.output").inner_text()


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


def mugs(arm, count=10):
    return [{"title": f"{arm} mug {place}", "detail": "Mugs · 3.00"} for place in range(count)]


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


SHAPES = (
    "<script>{}</script>", "<ScRiPt>{}</sCrIpT>", "</script><script>{}</script>", "<img src=x onerror={}>",
    "<img src=x onerror='{}'>", '"><img src=x onerror="{}">', "'><svg/onload={}>", "<svg><script>{}</script></svg>",
    "<svg><animate onbegin={} attributeName=x dur=1s>", "<body onload={}>",
    "<iframe srcdoc='<script>parent.{}</script>'>",
    "<iframe src=javascript:parent.{}>", "<a href=javascript:{} autofocus onfocus={}>x</a>", "javascript:{}",
    "<input autofocus onfocus={}>", "<details open ontoggle={}>x</details>", "<video><source onerror={}></video>",
    "<math><mtext><table><mglyph><style><img src=x onerror={}>", "<template><script>{}</script></template>",
    "</title><script>{}</script>", "</textarea><script>{}</script>", "--><script>{}</script>",
    "]]><script>{}</script>",
    "${{{}}}", "{{{{constructor.constructor('{}')()}}}}", "');{};//", "\\u003cscript\\u003e{}\\u003c/script\\u003e",
    "&lt;script&gt;{}&lt;/script&gt;", "<object data='javascript:{}'>",
    "<embed src='data:text/html,<script>{}</script>'>",
    "<form action=javascript:{}><button autofocus>x", "<link rel=stylesheet href='javascript:{}'>",
    "<style>@import 'javascript:{}'</style>", "<meta http-equiv=refresh content='0;url=javascript:{}'>",
    "<base href='javascript:{}//'>", "<dialog open onclose={}>x</dialog>", "<marquee onstart={}>x</marquee>",
    "<audio src onloadstart={}>", "<xss style='animation-name:x' onanimationstart={}>",
    "\u202e<script>{}</script>\u2066",
)  # fmt: skip
CALLS = ("owned()", "alert(1)", "window.owned()", "top.owned()", "fetch('//evil.invalid')")
PAYLOADS = [shape.format(*[call] * shape.count("{}")) for call in CALLS for shape in SHAPES]


@pytest.mark.timeout(240)
def test_no_text_runs_in_any_field(tmp_path, page):
    assert len(set(PAYLOADS)) == 200
    own = tmp_path / "criteria" / "tags"
    own.mkdir(parents=True)
    quoted = json.dumps(PAYLOADS[2])
    for name in ("relevance", "consistency"):
        (own / f"{name}.toml").write_text(
            f'source = "ours"\nversion = 1\nscale = ["Yes", "No"]\npasses = ["Yes"]\ndecided_by = "llm"\n'
            f"question = {quoted}\n[[positive]]\ntext = {quoted}\nwhy = {quoted}\n"
            f"[[negative]]\ntext = {quoted}\nwhy = {quoted}\n",
            encoding="utf-8",
        )
    criteria = judge.load(tmp_path / "criteria")
    made = [Sample("tags", {f"label {text}": text, "reason": text, "tag": text}, user_id=text) for text in PAYLOADS]
    store = store_of(tmp_path / "buffer.sqlite", made, criteria, context=False)
    history = {one.id: [{"id": 1, "when": one.user_id, "items": [one.user_id] * 2, "hits": [0]}] for one in made}
    store.add_contexts({sample: {"history": rows, "cited": [1]} for sample, rows in history.items()})
    bad = [{"title": text, "detail": text} for text in PAYLOADS]
    store.add_pairs(
        [pair(PAYLOADS[0], {"a": bad, "b": bad[::-1]}, attributes=PAYLOADS[1], history=history[made[0].id])]
    )
    for place, one in enumerate(made[:6]):
        # Notes of two people who differ, and of gold questions.
        for who, verdict in (("bob", "Yes"), ("eve", "No")):
            store.say(Label(one.id, ON, who, verdict, PAYLOADS[place], 1.0, 1))
    for place, one in enumerate(made[12:18]):
        store.say(Label(one.id, ON, "zoe", None, f"skip: {PAYLOADS[place]}", 1.0, 1))
    for place, one in enumerate(made[6:12]):
        store.say(Label(one.id, ON, "gold", "No", PAYLOADS[place], 1.0, 1))
    page.add_init_script("window.owned = () => { window.hit = true; }; window.hit = false;")
    options = ("--criteria", str(tmp_path / "criteria"), "--gold-every", "3", "--annotators", "3")
    with serving(store.buffer.path, *options) as server:
        enter(page, server, PAYLOADS[3].replace("/", "")[:40])
        seen = set()
        for _ in range(len(made)):
            seen.add(output(page))
            page.keyboard.press("n")
            page.fill("#note-text", PAYLOADS[len(seen) % 200])
            page.keyboard.press("Enter")
            page.keyboard.press("1")
            page.keyboard.press("1")
            saved(page)
            if page.locator("dialog[open]").count():
                page.keyboard.press("Enter")
            assert not page.evaluate("window.hit")
            until(page, "document.querySelector('.empty h2')?.textContent !== 'One moment'")
            if page.locator(".empty").count():
                break
        assert seen == {clean(text) for text in PAYLOADS}
        page.go_back()
        page.wait_for_selector(".reveal, .sample")
        page.click("nav a[data-view=disputes]")
        page.wait_for_selector(".said-by")
        page.keyboard.press("1")
        page.click("nav a[data-view=lists]")
        page.wait_for_selector(".card")
        page.keyboard.press("1")
        page.fill("#why", PAYLOADS[7])
        page.locator(".questions .primary").click()
        page.click("#more")
        page.wait_for_selector("dialog table")
        tags_ = page.evaluate("[...new Set([...document.querySelectorAll('*')].map((one) => one.localName))]")
        assert not set(tags_) & {"img", "svg", "iframe", "object", "embed", "video", "style", "template", "math"}
        assert page.evaluate("document.querySelectorAll('script').length") == 1
        handlers = "[...document.querySelectorAll('*')].flatMap((one) => one.getAttributeNames())"
        assert not [name for name in page.evaluate(handlers) if name.startswith("on")]
        assert not page.evaluate("window.hit")
    assert page.wrong == []


def unnamed(page):
    """Give what a screen reader would call by no name, from Chromium's own accessibility tree."""
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    found = []
    for node in nodes:
        role = node.get("role", {}).get("value")
        if node.get("ignored") or role not in {
            "button",
            "link",
            "textbox",
            "checkbox",
            "radio",
            "progressbar",
            "dialog",
        }:
            continue
        if not node.get("name", {}).get("value", "").strip():
            found.append(role)
    return found


def focus(page, count):
    """Press Tab and give what has the focus each time."""
    found = []
    for _ in range(count):
        page.keyboard.press("Tab")
        found.append(
            page.evaluate(
                "() => { const one = document.activeElement; "
                "return one.getAttribute('aria-label') ?? one.textContent.trim(); }"
            )
        )
    return found


def test_everything_has_a_name_and_the_focus_goes_in_the_order_of_reading(store, page):
    store.add_pairs([pair("u1", {"a": mugs("blue", 3), "b": mugs("red", 3)}, history=HISTORY)])
    with serving(store.buffer.path) as server:
        page.goto(server.address)
        page.wait_for_selector("dialog[open]")
        assert unnamed(page) == []
        assert page.evaluate("document.activeElement.id") == "name"
        page.keyboard.type("ann")
        page.keyboard.press("Enter")
        page.wait_for_selector(".sample")
        assert unnamed(page) == []
        page.evaluate("document.activeElement.blur()")
        assert focus(page, 14) == [
            "Samples", "Adjudicate", "Lists", "Agreement so far, key P", "Keys, key ?", "You are ann: change the name",
            "History, oldest first", "consistencyopen", "relevanceopen", "Yes, key 1", "No, key 2", "Skip, key S",
            "Note, key N", "Undo, key U",
        ]  # fmt: skip
        # A button that was pressed by keyboard keeps the focus while the sample stays.
        page.get_by_role("button", name="Yes, key 1").focus()
        page.keyboard.press("Space")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Yes, key 1"
        assert page.get_by_role("button", name="relevance").get_attribute("aria-current") == "step"
        assert page.evaluate("document.getElementById('live').textContent").startswith("Would somebody")
        assert page.get_by_role("region", name="Would somebody with the stated interest buy this for it?").count() == 1
        for key in ("s", "n", "?"):
            page.keyboard.press(key)
            page.wait_for_selector("dialog[open]")
            assert unnamed(page) == [], key
            page.keyboard.press("Escape")
            page.wait_for_selector("dialog:not([open])", state="attached")
        page.keyboard.press("1")
        page.keyboard.press("p")
        page.wait_for_selector("dialog[open] table")
        assert unnamed(page) == []
        page.keyboard.press("Escape")
        page.click("nav a[data-view=lists]")
        page.wait_for_selector(".card")
        page.keyboard.press("1")
        assert unnamed(page) == []
        assert page.get_by_role("button", name="red mug 2, place 3: repeats an earlier item").count() == 1
        assert page.get_by_role("group", name="1. Looking at both lists: does anything repeat itself?").count() == 1
    assert page.wrong == []


CONTRAST = """() => {
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((one) => one / 255)
    .map((one) => (one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
    .reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const found = parts(getComputedStyle(at).backgroundColor);
      if (found.length === 3 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const one of document.querySelectorAll("header *, main *, footer *")) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    const hidden = one.className === "sr" || !one.checkVisibility({ visibilityProperty: true });
    if (!own || hidden || one.localName === "kbd") continue;
    const [a, b] = [light(parts(getComputedStyle(one).color)), light(ground(one))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) bad.push([one.textContent, (a + 0.05) / (b + 0.05)]);
  }
  return bad;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1440, 900), (900, 1100), (390, 844)])
def test_it_fits_stays_put_and_can_be_read(store, browser, width, height, scheme):
    """Screenshots are kept in out/review; people looked at them, this test holds what can be measured."""
    store.add_pairs([pair("u1", {"a": mugs("blue"), "b": mugs("red")}, attributes="age 35", history=HISTORY)])
    sample = min(store.read().samples)
    for who, verdict in (("bob", "Yes"), ("eve", "No")):
        store.say(Label(sample, ON, who, verdict, "only the word is the same" if verdict == "No" else "", 1.0, 1))
    SHOTS.mkdir(parents=True, exist_ok=True)
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = listen(context.new_page())

    def shot(name):
        page.screenshot(path=SHOTS / f"{name}-{width}-{scheme}.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{name} is wider than the window"
        assert page.evaluate(CONTRAST) == [], name

    with serving(store.buffer.path) as server:
        enter(page, server)
        places = set()
        for _ in range(6):
            box = page.get_by_role("button", name="Yes, key 1").bounding_box()
            assert box["height"] >= 44, "large enough for a thumb"
            assert box["y"] + box["height"] <= height
            places.add((box["x"], box["y"]))
            page.keyboard.press("1")
        assert len(places) == 1, "the buttons stay where they are from sample to sample"
        saved(page)
        until(page, "document.getElementById('count').textContent.startsWith('3 of')")
        shot("samples")
        page.keyboard.press("u")
        page.click("nav a[data-view=disputes]")
        page.wait_for_selector(".said-by")
        shot("adjudication")
        page.click("nav a[data-view=lists]")
        page.wait_for_selector(".card")
        page.keyboard.press("1")
        page.locator(".list button.card").nth(2).click()
        shot("lists")
        page.keyboard.press("?")
        page.wait_for_selector("dialog[open]")
        shot("keys")
    context.close()
    assert page.wrong == []
