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
import numpy as np
import pandas as pd

from contracts.errors import PlumblineError
from contracts.response import SteadyResponse
from contracts.tables import BY_NAME, VIEWS, View
from workflow.artifacts import sync_file, sync_folder

RESPONSE_TYPES = {
    "channel": "VARCHAR", "geo": "VARCHAR", "draw": "INTEGER", "weight": "DOUBLE", "amplitude": "DOUBLE",
    "half_saturation": "DOUBLE", "slope": "DOUBLE", "unit": "DOUBLE", "current_spend": "DOUBLE",
    "observed_max": "DOUBLE",
}  # fmt: skip
META_TYPES = {"key": "VARCHAR", "value": "VARCHAR"}
PUBLISHED = "published"


@dataclass(frozen=True, slots=True)
class Content:
    """Everything that goes into the file. `views` may lack a view: its table is then empty.

    `views['v_effects_history']` holds the effects of every published run, `views['v_effects']` those to show now.
    """

    views: Mapping[str, pd.DataFrame]
    response: pd.DataFrame | None
    meta: Mapping[str, str]


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


def response_rows(response: SteadyResponse) -> pd.DataFrame:
    """Rows of `response_draws`, one per draw, geo and channel."""
    draws, geos, channels = response.amplitude.shape
    index = pd.MultiIndex.from_product(
        [range(draws), response.geos, response.channels], names=["draw", "geo", "channel"]
    )
    cube = (draws, geos, channels)

    def spread(values: np.ndarray, axes: str) -> np.ndarray:
        array = values
        for position, axis in enumerate("dgc"):
            if axis not in axes:
                array = np.expand_dims(array, position)
        return np.broadcast_to(array, cube).ravel()

    rows = pd.DataFrame(index=index).reset_index()
    rows["weight"] = spread(response.weights, "d")
    rows["amplitude"] = spread(response.amplitude, "dgc")
    rows["half_saturation"] = spread(response.half_saturation, "dc")
    rows["slope"] = spread(response.slope, "dc")
    rows["unit"] = spread(response.unit, "gc")
    rows["current_spend"] = spread(response.current_spend, "gc")
    rows["observed_max"] = spread(response.observed_max, "c")
    return rows[list(RESPONSE_TYPES)]


def build(path: Path, tables: Path, content: Content) -> None:
    """Writes the warehouse and its Parquet copies. Raises PlumblineError when a frame breaks the contract."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    copies = tables.with_name(f".{tables.name}.{os.getpid()}.new")
    fresh.unlink(missing_ok=True)
    shutil.rmtree(copies, ignore_errors=True)
    copies.mkdir(parents=True)
    try:
        with duckdb.connect(str(fresh)) as connection:
            for view in VIEWS:
                _write_view(connection, view, content.views)
            empty = pd.DataFrame(columns=list(RESPONSE_TYPES))
            _write_table(
                connection, "response_draws", RESPONSE_TYPES, empty if content.response is None else content.response
            )
            meta = pd.DataFrame(sorted(content.meta.items()), columns=["key", "value"])
            _write_table(connection, "meta", META_TYPES, meta)
            for name in (*(v.name for v in VIEWS), "response_draws", "meta"):
                target = str(copies / f"{name}.parquet").replace("'", "''")
                connection.execute(f"COPY (SELECT * FROM {name}) TO '{target}' (FORMAT parquet)")
            connection.execute("CHECKPOINT")
        sync_file(fresh)
        _swap_folder(copies, tables)
        fresh.replace(path)
        sync_folder(path.parent)
    finally:
        fresh.unlink(missing_ok=True)
        shutil.rmtree(copies, ignore_errors=True)


def _swap_folder(fresh: Path, final: Path) -> None:
    """Files of `fresh` replace those of `final` one by one; each is whole at any moment."""
    final.mkdir(exist_ok=True)
    for source in sorted(fresh.iterdir()):
        sync_file(source)
        source.replace(final / source.name)
    sync_folder(final)


def _write_view(connection: duckdb.DuckDBPyConnection, view: View, frames: Mapping[str, pd.DataFrame]) -> None:
    types = {c.name: c.type for c in view.columns}
    table = f"t_{view.name.removeprefix('v_')}"
    frame = frames.get(view.name)
    if frame is None:
        frame = pd.DataFrame(columns=list(types))
    missing = [c for c in types if c not in frame.columns]
    if missing:
        raise PlumblineError(f"table {view.name} lacks the column {missing[0]!r} of its contract; please report this.")
    _refuse_repeats(view, frame)
    _write_table(connection, table, types, frame)
    connection.execute(f"CREATE VIEW {view.name} AS SELECT * FROM {table}")


def _refuse_repeats(view: View, frame: pd.DataFrame) -> None:
    repeated = frame.duplicated(list(view.key))
    if repeated.any():
        first = frame.loc[repeated, list(view.key)].iloc[0].to_dict()
        raise PlumblineError(f"table {view.name} holds two rows for {first}; please report this.")


def _write_table(
    connection: duckdb.DuckDBPyConnection, table: str, types: Mapping[str, str], frame: pd.DataFrame
) -> None:
    declared = ", ".join(f'"{name}" {kind}' for name, kind in types.items())
    connection.execute(f"CREATE TABLE {table} ({declared})")
    if frame.empty:
        return
    chosen = frame[list(types)].copy()
    for name, kind in types.items():
        if kind == "DOUBLE":
            chosen[name] = pd.to_numeric(chosen[name]).astype("Float64")  # NaN becomes NULL, as no figure is known
        elif kind == "VARCHAR":
            chosen[name] = chosen[name].astype("string")
    connection.register("incoming", chosen)
    picked = ", ".join(f'CAST("{name}" AS {kind})' for name, kind in types.items())
    connection.execute(f"INSERT INTO {table} SELECT {picked} FROM incoming")
    connection.unregister("incoming")


def read_view(path: Path, name: str) -> pd.DataFrame:
    """One view of a warehouse file, in contract order."""
    with duckdb.connect(str(path), read_only=True) as connection:
        columns = ", ".join(f'"{c}"' for c in BY_NAME[name].names)
        return connection.sql(f"SELECT {columns} FROM {name}").to_arrow_table().to_pandas()
