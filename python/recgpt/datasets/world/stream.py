"""A world on disk: Parquet written shard by shard, so that memory holds a thousand users however many there are."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from pyarrow import parquet

from recgpt.datasets.folder import SETTINGS
from recgpt.datasets.world.config import TIME_ZONE, Config
from recgpt.datasets.world.generate import World

# Ids and texts are dictionaries already; times of one user rise, which differences write in two bytes.
_OPTIONS = {"compression": "zstd", "compression_level": 3, "dictionary_pagesize_limit": 1 << 26}
_TIMES = "timestamp"


class Streamed(NamedTuple):
    """What was written."""

    folder: Path
    users: int
    events: int
    bytes: int


def stream(
    config: Config,
    folder: str | Path,
    *,
    now: datetime | None = None,
    size: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> Streamed:
    """Write a world as Parquet: `events`, `items`, `users`, `reviews`, and the tables of the truth below `truth/`.

    Args:
        config: the world.
        folder: made if it is not there; `recgpt.datasets.read` reads it. A file gets its name when it is whole.
        now: what is wanted next as of this moment; None: the log's end.
        size: users held at a time; they are one row group of each file.
        progress: called with (users done, users) after each shard.

    Returns:
        Counts. Users stand by number, each user's events in the order of time, `truth/causes` row by row beside them.

    Raises:
        NaiveTimestampError: `now` has no time zone.
        InvalidConfigError: it lies outside the log.
        OSError: the folder cannot be written.
    """
    world = World(config)
    world.last_day(now)
    root = Path(folder)
    (root / "truth").mkdir(parents=True, exist_ok=True)
    writers: dict[Path, parquet.ParquetWriter] = {}
    rows = done = 0
    try:
        for shard in world.shards(now, size=size):
            tables = {"events": shard.events, "users": shard.users, "reviews": shard.reviews}
            tables |= {f"truth/{key}": table for key, table in shard.truth.items()}
            for key, table in tables.items():
                _write(writers, root / f"{key}.parquet", table)
            rows += shard.events.num_rows
            done += shard.users.num_rows
            if progress is not None:
                progress(done, config.users)
        for key, table in {"items": world.items, **{f"truth/{k}": t for k, t in world.fixed.items()}}.items():
            _write(writers, root / f"{key}.parquet", table)
    finally:
        for writer in writers.values():
            writer.close()
    for path in writers:
        _part(path).replace(path)
    (root / SETTINGS).write_text(f'time_zone = "{TIME_ZONE}"\n', encoding="utf-8")
    return Streamed(root, done, rows, sum(path.stat().st_size for path in writers))


def _part(path: Path) -> Path:
    return path.with_suffix(".part")


def _write(writers: dict[Path, parquet.ParquetWriter], path: Path, table: pa.Table) -> None:
    if path not in writers:
        times = [name for name in table.column_names if name == _TIMES]
        writers[path] = parquet.ParquetWriter(
            _part(path),
            table.schema,
            use_dictionary=[name for name in table.column_names if name not in times],
            column_encoding=dict.fromkeys(times, "DELTA_BINARY_PACKED") or None,
            **_OPTIONS,
        )
    writers[path].write_table(table, row_group_size=max(1, table.num_rows))
