"""Builds `warehouse.duckdb`: a new file with one table per view, synced and renamed over the old one.

Views are over tables inside the file, so it can be read from any working directory. The columns, their order and types
are those of `contracts.tables`; a frame that does not fit is refused.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pandas as pd

from app.draws import DRAW_TYPES, PERIOD_KEY, RECENT_TYPES, RESPONSE_KEY, Period, to_tables
from app.saved.duck import copy_out, write_table, write_view
from app.saved.files import swap_files, sync_file, sync_folder
from contracts.surface import DynamicResponse
from contracts.tables import BY_NAME, VIEWS

META_TYPES = {"key": "VARCHAR", "value": "VARCHAR"}
PUBLISHED = "published"


@dataclass(frozen=True, slots=True)
class Content:
    """Everything that goes into the file. `views` may lack a view: its table is then empty.

    `views['v_effects_history']` holds the effects of every published run, `views['v_effects']` those to show now.
    """

    views: Mapping[str, pd.DataFrame]
    response: DynamicResponse | None
    meta: dict[str, str]
    period: Period | None = None  # that plans are for


def stamp(
    frame: pd.DataFrame,
    *,
    run_id: str,
    release_id: str,
    model_version: str,
    as_of: object,
    evidence_ids: str | None = None,
) -> pd.DataFrame:
    """`frame` with the stamp columns; its own `evidence_ids` column is kept when no other is given."""
    out = frame.copy()
    out["run_id"], out["release_id"], out["model_version"] = run_id, release_id, model_version
    out["as_of"] = pd.Timestamp(str(as_of))
    if evidence_ids is not None:
        out["evidence_ids"] = evidence_ids
    return out


def build(path: Path, tables: Path, content: Content) -> None:
    """Writes the warehouse and its Parquet copies. Raises PlumblineError when a frame breaks the contract.

    Where people save, the caller holds `app.saved.files.publishing` from reading what was saved until this returns.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    copies = tables.with_name(f".{tables.name}.{os.getpid()}.new")
    fresh.unlink(missing_ok=True)
    shutil.rmtree(copies, ignore_errors=True)
    copies.mkdir(parents=True)
    try:
        with duckdb.connect(str(fresh)) as connection:
            for view in VIEWS:
                write_view(connection, view, content.views.get(view.name))
            facts = _write_response(connection, content)
            meta = pd.DataFrame(sorted((content.meta | facts).items()), columns=["key", "value"])
            write_table(connection, "meta", META_TYPES, meta)
            for name in (*(v.name for v in VIEWS), "response_draws", "response_recent", "meta"):
                copy_out(connection, name, copies)
            connection.execute("CHECKPOINT")
        sync_file(fresh)
        swap_files(copies, tables)
        fresh.replace(path)
        sync_folder(path.parent)
    finally:
        fresh.unlink(missing_ok=True)
        shutil.rmtree(copies, ignore_errors=True)


def _write_response(connection: duckdb.DuckDBPyConnection, content: Content) -> dict[str, str]:
    """Writes the tables of the response, empty ones where there is none; returns what `meta` says of it."""
    tables = None if content.response is None else to_tables(content.response)
    frames = {"response_draws": DRAW_TYPES, "response_recent": RECENT_TYPES}
    parts = (None, None) if tables is None else (tables.draws, tables.recent)
    for (name, types), frame in zip(frames.items(), parts, strict=True):
        write_table(connection, name, types, pd.DataFrame(columns=list(types)) if frame is None else frame)
    if tables is None:
        return {}
    return {RESPONSE_KEY: tables.facts} | ({PERIOD_KEY: content.period.to_json()} if content.period else {})


def read_view(path: Path, name: str) -> pd.DataFrame:
    """One view of a warehouse file, in contract order."""
    with duckdb.connect(str(path), read_only=True) as connection:
        columns = ", ".join(f'"{c}"' for c in BY_NAME[name].names)
        return connection.sql(f"SELECT {columns} FROM {name}").to_arrow_table().to_pandas()
