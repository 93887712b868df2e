"""The one door to the warehouse: opens the file read-only, reads whole views, closes it again.

The file is replaced whole by the job that makes it, so every read opens it anew; pages cache a snapshot under
`fingerprint(path)`, which changes when the file is replaced.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pandas as pd

from app.draws import DRAW_TYPES, PERIOD_KEY, RECENT_TYPES, RESPONSE_KEY, Tables, from_tables, surface_of
from contracts.errors import WorkspaceError
from contracts.response import SteadyResponse
from contracts.tables import BY_NAME
from planning.surface import Surface

ENV = "PLUMB_WAREHOUSE"
# v_effects holds a row per geo and week as well; the screens read the two scopes that they show.
_FILTERS = {"v_effects": "WHERE scope IN ('total', 'week')", "v_effects_history": "WHERE scope = 'total'"}
_VIEWS = (
    "v_kpi", "v_effects", "v_curves", "v_lift", "v_credit", "v_incrementality", "v_scenarios", "v_scenario_cells",
    "v_releases", "v_charges", "v_runs", "v_checks", "v_parity", "v_lineage", "v_comments", "v_approvals",
    "v_effects_history", "v_conflicts", "v_decision_loss", "v_next_tests", "v_pool_scores",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Meta:
    """What the file says about itself, from the table `meta`. Empty strings where a key is absent."""

    project: str
    kpi: str
    currency: str
    user_level: bool
    consent: str  # 'column' or 'assumed'
    period_start: str  # ISO date
    period_end: str  # ISO date, inclusive
    generated_at: str
    model_version: str
    owner: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that the screens show, as it stood in one file. Frames have the columns of `contracts.tables`."""

    meta: Meta
    kpi: pd.DataFrame
    effects: pd.DataFrame  # scopes 'total' and 'week'
    curves: pd.DataFrame
    lift: pd.DataFrame
    credit: pd.DataFrame
    incrementality: pd.DataFrame
    scenarios: pd.DataFrame
    scenario_cells: pd.DataFrame
    releases: pd.DataFrame
    charges: pd.DataFrame
    runs: pd.DataFrame
    checks: pd.DataFrame
    parity: pd.DataFrame
    lineage: pd.DataFrame
    comments: pd.DataFrame
    approvals: pd.DataFrame
    effects_history: pd.DataFrame  # scope 'total'
    conflicts: pd.DataFrame
    decision_loss: pd.DataFrame
    next_tests: pd.DataFrame
    pool_scores: pd.DataFrame
    surface: Surface | None  # what any plan of the planning period brings; None when no model has been fitted
    period: str = ""  # the planning period and its assumptions, as `meta` holds them

    @property
    def response(self) -> SteadyResponse | None:
        """The steady curves of the surface's draws."""
        return None if self.surface is None else self.surface.response.steady

    @property
    def empty(self) -> bool:
        """True when there is neither a KPI nor an estimate to show."""
        return self.kpi.empty and self.effects.empty


def warehouse_path() -> Path:
    """Path named by the environment variable PLUMB_WAREHOUSE. Raises WorkspaceError when it is not set."""
    value = os.environ.get(ENV, "")
    if not value:
        raise WorkspaceError(f"{ENV} is not set; start the explorer with `plumb serve` in a workspace.")
    return Path(value)


def fingerprint(path: Path) -> str:
    """Changes whenever the file is replaced: hash of path, size, time of change and inode.

    Raises WorkspaceError when there is no file.
    """
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise WorkspaceError(f"there is no warehouse at {path}; run `plumb run` in the workspace first.") from None
    key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}"
    return hashlib.sha256(key.encode()).hexdigest()


def load(path: Path) -> Snapshot:
    """Reads the whole snapshot. Raises WorkspaceError when the file is missing, damaged or of another version."""
    with opened(path) as (con, _):
        frames = {name: _read_view(con, path, name) for name in _VIEWS}
        meta = _read_meta(con, path)
        surface, period = _surface(con, path)
    fields = {name.removeprefix("v_"): frame for name, frame in frames.items()}
    return Snapshot(meta=meta, surface=surface, period=period, **fields)


def draw_tables(con: duckdb.DuckDBPyConnection) -> tuple[Tables, str]:
    """The tables of the response in an open file, and its planning period (JSON, '' for none). Raises duckdb.Error."""
    found = {
        name: con.execute(f"SELECT {', '.join(types)} FROM {name}").df()
        for name, types in (("response_draws", DRAW_TYPES), ("response_recent", RECENT_TYPES))
    }
    meta = dict(con.execute("SELECT key, value FROM meta").fetchall())
    facts, period = (str(meta.get(key) or "") for key in (RESPONSE_KEY, PERIOD_KEY))
    return Tables(found["response_draws"], found["response_recent"], facts), period


def load_meta(path: Path) -> Meta:
    """What the file says about itself. Raises WorkspaceError as `load` does."""
    with opened(path) as (con, _):
        return _read_meta(con, path)


@contextmanager
def opened(path: Path) -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
    """A read-only connection to the file as it is now, and the file's fingerprint.

    The file is attached to an engine of its own: `duckdb.connect(path)` would share one engine with every other reader
    in this process, and go on reading a file that has been replaced as long as one of them is open. Nothing else can be
    read through the connection: no other file, no extension, no network.

    Raises WorkspaceError when the file is missing or damaged.
    """
    while True:
        mark = fingerprint(path)
        con = duckdb.connect(":memory:", config={"threads": "1"})
        try:
            quoted = str(path).replace("'", "''")
            con.execute(f"ATTACH '{quoted}' AS warehouse (READ_ONLY)")
            con.execute("USE warehouse; SET enable_external_access = false; SET lock_configuration = true")
        except duckdb.Error as e:
            con.close()
            raise WorkspaceError(
                f"{path} is not a readable warehouse ({_first_line(e)}); run `plumb run` again."
            ) from e
        if fingerprint(path) == mark:
            break
        con.close()  # replaced between the two looks
    try:
        yield con, mark
    finally:
        con.close()


def _surface(con: duckdb.DuckDBPyConnection, path: Path) -> tuple[Surface | None, str]:
    try:
        tables, period = draw_tables(con)
    except duckdb.Error as e:
        raise _other_version(path, e) from e
    response = from_tables(tables)
    return (None if response is None else surface_of(response, period)), period


def latest(frame: pd.DataFrame, view: str) -> pd.DataFrame:
    """Newest row per key of `view` (by `as_of`), in the order of the file."""
    key = list(BY_NAME[view].key)
    if frame.empty or "as_of" not in frame:
        return frame
    return frame.sort_values("as_of", kind="stable").drop_duplicates(key, keep="last").sort_index()


def _read_view(con: duckdb.DuckDBPyConnection, path: Path, name: str) -> pd.DataFrame:
    columns = ", ".join(f'"{c}"' for c in BY_NAME[name].names)
    frame = _query(con, path, f"SELECT {columns} FROM {name} {_FILTERS.get(name, '')}")
    return latest(frame, name).reset_index(drop=True)


def _read_meta(con: duckdb.DuckDBPyConnection, path: Path) -> Meta:
    values = dict(_query(con, path, "SELECT key, value FROM meta").itertuples(index=False, name=None))
    text = {k: str(values.get(k) or "") for k in Meta.__dataclass_fields__ if k != "user_level"}
    return Meta(**text, user_level=values.get("user_level") == "true")


def _query(con: duckdb.DuckDBPyConnection, path: Path, sql: str) -> pd.DataFrame:
    try:
        return con.execute(sql).df()
    except duckdb.Error as e:
        raise _other_version(path, e) from e


def _other_version(path: Path, error: Exception) -> WorkspaceError:
    return WorkspaceError(
        f"{path} was made by another version of Plumbline ({_first_line(error)}); run `plumb run` to rebuild it."
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
