"""Tables of a warehouse file in the making: the contract's columns and types, one row per key, views over them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import duckdb
import pandas as pd

from contracts.columns import View
from contracts.errors import PlumblineError


def table_of(view: str) -> str:
    """Name of the table behind a view."""
    return f"t_{view.removeprefix('v_')}"


def write_view(connection: duckdb.DuckDBPyConnection, view: View, frame: pd.DataFrame | None) -> None:
    """The table of `view`, new or in place of the old one, and the view. None is an empty table.

    Raises PlumblineError for a frame that lacks a column or repeats a key.
    """
    types = {c.name: c.type for c in view.columns}
    if frame is None:
        frame = pd.DataFrame(columns=list(types))
    missing = [c for c in types if c not in frame.columns]
    if missing:
        raise PlumblineError(f"table {view.name} lacks the column {missing[0]!r} of its contract; please report this.")
    _refuse_repeats(view, frame)
    write_table(connection, table_of(view.name), types, frame)
    connection.execute(f"CREATE OR REPLACE VIEW {view.name} AS SELECT * FROM {table_of(view.name)}")


def write_table(
    connection: duckdb.DuckDBPyConnection, table: str, types: Mapping[str, str], frame: pd.DataFrame
) -> None:
    """One table, new or in place of the old one, with declared columns."""
    declared = ", ".join(f'"{name}" {kind}' for name, kind in types.items())
    connection.execute(f"CREATE OR REPLACE TABLE {table} ({declared})")
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


def copy_out(connection: duckdb.DuckDBPyConnection, name: str, folder: Path) -> None:
    """A table or view as `folder/NAME.parquet`."""
    target = str(folder / f"{name}.parquet").replace("'", "''")
    connection.execute(f"COPY (SELECT * FROM {name}) TO '{target}' (FORMAT parquet)")


def _refuse_repeats(view: View, frame: pd.DataFrame) -> None:
    repeated = frame.duplicated(list(view.key))
    if repeated.any():
        first = frame.loc[repeated, list(view.key)].iloc[0].to_dict()
        raise PlumblineError(f"table {view.name} holds two rows for {first}; please report this.")
