"""A folder of `events`, `items`, `users` and `reviews` files, each Parquet or CSV, with the shop's own column names.

What the files mean may stand beside them in `recgpt-data.toml`:

    time_zone = "Europe/London"
    [behaviors]
    buy = "purchase"
    [columns]
    sku = "item_id"
    "users.country" = "attributes"
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
from pyarrow import csv, parquet
from pydantic import BaseModel, ConfigDict, ValidationError

from recgpt.datasets.dataset import Dataset
from recgpt.errors import DatasetNotFoundError, InputError, InvalidConfigError, InvalidTableError, together
from recgpt.schema import EVENTS, ITEMS, REVIEWS, USERS

SETTINGS = "recgpt-data.toml"
TABLES = {"events": EVENTS, "items": ITEMS, "users": USERS, "reviews": REVIEWS}
SUFFIXES = (".parquet", ".csv")


class Settings(BaseModel):
    """`recgpt-data.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    time_zone: str | None = None
    behaviors: dict[str, str] = {}
    columns: dict[str, str] = {}


def read(
    folder: str | Path,
    *,
    time_zone: str | None = None,
    behaviors: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
) -> Dataset:
    """Read a folder; values are judged by `recgpt.logs.normalize`, not here.

    Args:
        folder: holds `events` and maybe `items`, `users`, `reviews`, each as `.parquet` or `.csv` (comma, header,
            UTF-8). Links that lead out of the folder are not followed.
        time_zone: IANA zone of times that carry none; over the one in `recgpt-data.toml`.
        behaviors: own event names -> recgpt's; added to those in `recgpt-data.toml`.
        columns: own column names -> recgpt's, such as `{"sku": "item_id"}`; `users.country` means one table only.

    Raises:
        DatasetNotFoundError: if the folder or its events file is not there.
        InvalidConfigError: if `recgpt-data.toml` has unknown keys, or a renamed column is in no table.
        InvalidTableError: naming every file that cannot be read and every column that would stand there twice; and
            whenever there are errors of several kinds: one message names all.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DatasetNotFoundError(
            f"there is no folder {root}; expected one with events.parquet or events.csv, "
            "and maybe items, users, reviews"
        )
    root = root.resolve()
    errors: list[InputError] = []
    settings = _settings(root, errors)
    names = {**settings.columns, **(columns or {})}
    zone = time_zone or settings.time_zone
    tables: dict[str, pa.Table] = {}
    used: set[str] = set()
    unread = False
    for table, schema in TABLES.items():
        path = _find(root, table, errors)
        if path is None:
            continue
        own = {name.removeprefix(f"{table}."): to for name, to in names.items() if "." not in name}
        own |= {name.removeprefix(f"{table}."): to for name, to in names.items() if name.startswith(f"{table}.")}
        try:
            came = _read_csv(path, own, schema) if path.suffix == ".csv" else _read_parquet(path)
            header = came.column_names
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            errors.append(
                InvalidTableError(f"{path} cannot be read: {error}; write it again as {path.suffix[1:]} (UTF-8)")
            )
            unread = True
            continue
        used |= {name for name in names if name.removeprefix(f"{table}.") in header}
        renamed = [own.get(name, name) for name in header]
        for twice in sorted({name for name in renamed if renamed.count(name) > 1}):
            both = [name for name, to in zip(header, renamed, strict=True) if to == twice]
            errors.append(
                InvalidTableError(
                    f"{path.name} has column `{twice}` twice (from {', '.join(both)}); rename only one to it"
                )
            )
        tables[table] = came.rename_columns(renamed)
    if not any((root / f"events{suffix}").exists() for suffix in SUFFIXES):
        came_files = ", ".join(sorted(entry.name for entry in root.iterdir())[:10]) or "nothing"
        errors.append(DatasetNotFoundError(f"{root} has no events.parquet or events.csv; it holds {came_files}"))
    # A file that cannot be read may have had the column.
    if not unread and (missing := [name for name in names if name not in used]):
        errors.append(
            InvalidConfigError(
                f"`columns` renames {', '.join(map(repr, missing))}, which no table of {root} has; the tables have "
                + "; ".join(f"{name}: {', '.join(table.column_names)}" for name, table in tables.items())
                + "; give one of these, or take the line out"
            )
        )
    if errors:
        raise together(errors)
    return Dataset(
        name=root.name,
        events=tables["events"],
        items=tables.get("items", ITEMS.empty_table()),
        users=tables.get("users", USERS.empty_table()),
        reviews=tables.get("reviews"),
        time_zone=zone,
        notes=f"read from the folder {root.name}",
        behaviors={**settings.behaviors, **(behaviors or {})},
    )


def _settings(root: Path, errors: list[InputError]) -> Settings:
    path = _inside(root, root / SETTINGS, errors)
    try:
        return Settings.model_validate(tomllib.loads(path.read_text("utf-8"))) if path else Settings()
    except ValidationError as error:
        wrong = "; ".join(f"`{'.'.join(map(str, e['loc']))}`: {e['msg']}" for e in error.errors())
        errors.append(InvalidConfigError(f"{SETTINGS} may have time_zone, [behaviors] and [columns], but {wrong}"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        errors.append(InvalidConfigError(f"{SETTINGS} is not TOML: {error}; mend that line"))
    return Settings()


def _inside(root: Path, path: Path, errors: list[InputError]) -> Path | None:
    """The file, if it is there; a link out of the folder is refused."""
    if not path.exists():
        return None
    if not path.resolve().is_relative_to(root):
        errors.append(
            DatasetNotFoundError(f"{path.name} is a link that leads out of {root}; copy the file into the folder")
        )
        return None
    return path


def _find(root: Path, table: str, errors: list[InputError]) -> Path | None:
    found = [path for suffix in SUFFIXES if (path := _inside(root, root / f"{table}{suffix}", errors))]
    if len(found) > 1:
        errors.append(InvalidTableError(f"{root} has both {found[0].name} and {found[1].name}; keep one of them"))
    return found[0] if found else None


def _read_parquet(path: Path) -> pa.Table:
    # Row groups one by one: reading through a Dataset held 2.5 times the file in memory. Checksums are used if written.
    with parquet.ParquetFile(path, page_checksum_verification=True) as file:
        return pa.Table.from_batches(file.iter_batches(), schema=file.schema_arrow)


def _read_csv(path: Path, renamed: Mapping[str, str], schema: pa.Schema) -> pa.Table:
    # Guessing would make 7 of the id 007 and null of the title "NA": what recgpt knows as text or time stays text.
    # Prices and positions too: `logs` names the row that is no number, a guess would fail without one.
    text = {field.name: pa.large_string() for field in schema}
    text |= {own: pa.large_string() for own, name in renamed.items() if name in schema.names}
    return csv.read_csv(
        path,
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(column_types=text, null_values=[""], strings_can_be_null=True),
    )
