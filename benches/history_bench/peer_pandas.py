"""pandas, for the smallest log only: group, group again, map to texts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .rules import BITS, BUCKET_OF_DAY, RELIABLE, pieces
from .workload import DAY_US, NOW_US, START_US, Workload


@dataclass
class Prepared:
    frame: pd.DataFrame
    texts: np.ndarray
    pieces: np.ndarray


def prepare(work: Workload) -> Prepared:
    events = work.events
    frame = pd.DataFrame(
        {
            "user": events["user_id"].to_numpy(),
            "time": events["timestamp"].to_numpy().view(np.int64),
            "behavior": events["behavior"].combine_chunks().indices.to_numpy(),
            "item": events["item_id"].to_numpy(),
        }
    )
    return Prepared(frame, np.array(work.texts, object), np.array(pieces(), object))


def compress(data: Prepared) -> pd.Series:
    frame = data.frame
    kept = frame[(frame["behavior"] < RELIABLE) & (frame["time"] < NOW_US)]
    bucket = BUCKET_OF_DAY[((kept["time"] - START_US) // DAY_US).to_numpy()].astype(np.int64)
    who = kept["user"].to_numpy().astype(np.int64) << 19 | kept["item"].to_numpy()
    key = np.unique(who << 9 | bucket << BITS | kept["behavior"].to_numpy())
    who, ctx = key >> 9, key & 511
    goes_on = np.r_[False, (who[1:] == who[:-1]) & (ctx[1:] >> BITS == ctx[:-1] >> BITS)]
    piece = pd.Series(data.pieces[ctx + goes_on * (len(data.pieces) // 2)])
    # A sum of short strings joins them in compiled code; agg("".join) took five times as long.
    label = piece.groupby(who).sum()
    found = label.index.to_numpy()
    items = pd.DataFrame({"user": found >> 19, "label": label.to_numpy(), "name": data.texts[found & (1 << 19) - 1]})
    lines = items.groupby(["user", "label"], sort=False)["name"].agg(", ".join).reset_index()
    lines["line"] = lines["label"].str.slice(3) + ") | " + lines["name"]
    return lines.groupby("user")["line"].agg("\n".join)


def pairs(result: pd.Series) -> list[tuple[int, str]]:
    return list(result.items())
