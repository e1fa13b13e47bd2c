"""The review page's text and looks in a real Chromium: hostile text that never runs, names, focus, contrast, widths."""

from __future__ import annotations

import json

import pytest
from reviewing import HISTORY, SHOTS, enter, listen, mugs, output, saved, serving, store_of, tags, until

from recgpt import judge
from recgpt.judge import Sample
from recgpt.judge.buffer import Label
from recgpt.judge.review.repetition import pair
from recgpt.text import clean

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]
ON = "tags/relevance"


@pytest.fixture
def store(tmp_path):
    return store_of(tmp_path / "buffer.sqlite", tags(30))


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
        # The figures are asked for behind the answers that are still on their way, this one among them.
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
