"""What is new to a judge: interests, tags and categories first seen after it was calibrated."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from recgpt.judge import Buffer, Sample

THINGS = ("interest", "tag", "category")
"""Fields of a sample that can be novel."""


def see(buffer: Buffer, things: set[str]) -> None:
    """Note which interests, tags and categories are there for the first time."""
    new = sorted({text.casefold() for text in things} - first_seen(buffer).keys())
    if new:
        buffer.add_event("seen", {"things": new})


def first_seen(buffer: Buffer) -> dict[str, datetime]:
    """Tell when each interest, tag and category was there first."""
    found: dict[str, datetime] = {}
    for event in buffer.events("seen"):
        for thing in event["things"]:
            found.setdefault(thing, event["time"])
    return found


def novel(buffer: Buffer, samples: Mapping[str, Sample], since: datetime | None) -> set[str]:
    """Find samples that speak of something first seen after a moment; None, a judge never calibrated, finds none."""
    if since is None:
        return set()
    seen = first_seen(buffer)
    return {
        key
        for key, sample in samples.items()
        if any(seen.get(sample.fields[name].casefold(), since) > since for name in THINGS if name in sample.fields)
    }
