"""Saved state into the warehouse: a copy of the file with the state's tables replaced, synced and renamed over it.

The file is never written in place, and the job's own tables stay as they are.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb

from app.draws import Tables, from_tables, response_id
from app.saved import duck, files
from app.saved.frames import DIGEST_KEY, SAVED_VIEWS, STATE_VIEWS, State, read_state, views, with_saved
from app.store import draw_tables, opened
from contracts.errors import WorkspaceError
from contracts.tables import BY_NAME


def published_digest(warehouse: Path) -> str:
    """Which saves a warehouse file holds ('' for none). Raises WorkspaceError when it cannot be read."""
    with opened(warehouse) as (con, _):
        try:
            row = con.execute("SELECT value FROM meta WHERE key = ?", [DIGEST_KEY]).fetchone()
        except duckdb.Error as error:
            raise WorkspaceError(f"{warehouse} is not a readable warehouse; run `plumb run` again.") from error
    return "" if row is None else str(row[0] or "")


def current_response_id(tables: Tables, period: str) -> str:
    """Name of the draws in a file's tables and of its planning assumptions; '' when there are none."""
    response = from_tables(tables)
    return "" if response is None else response_id(response, period)


def publish(warehouse: Path, patience: float | None = None) -> bool:
    """Brings the saves of `state.sqlite` into the warehouse beside it and its Parquet copies.

    Returns False when the file holds them already. Raises Busy when another process is writing the file (the saves
    stay in `state.sqlite`, and that process or the next call copies them), WorkspaceError when a file is unreadable or
    the disk takes no more.
    """
    try:
        return _publish(warehouse, files.PATIENCE if patience is None else patience)
    except (OSError, duckdb.Error) as error:
        text = str(error).strip().splitlines()[0]
        raise WorkspaceError(f"the tables of {warehouse.parent} could not be written ({text}).") from error


def _publish(warehouse: Path, patience: float) -> bool:
    root = warehouse.parent
    with files.publishing(root, patience):
        state = read_state(root / files.STATE_NAME)
        if state.digest == published_digest(warehouse):
            return False
        fresh, copies = root / f".{warehouse.name}.save", root / f".{files.TABLES_NAME}.save"
        _wipe(fresh, copies)  # what a killed process left; nobody else is here
        try:
            copies.mkdir()
            shutil.copyfile(warehouse, fresh)
            _replace_tables(fresh, copies, state)
            files.sync_file(fresh)
            files.swap_files(copies, root / files.TABLES_NAME)
            fresh.replace(warehouse)
            files.sync_folder(root)
        finally:
            _wipe(fresh, copies)
    return True


def _wipe(fresh: Path, copies: Path) -> None:
    """The unfinished file with its log, which DuckDB would otherwise replay into the next one, and the copies."""
    for path in (fresh, fresh.with_name(f"{fresh.name}.wal")):
        path.unlink(missing_ok=True)
    shutil.rmtree(copies, ignore_errors=True)


def _replace_tables(path: Path, copies: Path, state: State) -> None:
    with duckdb.connect(str(path)) as con:
        job = {name: con.execute(f"SELECT * FROM {name} WHERE scenario_id = ''").df() for name in SAVED_VIEWS}
        content = with_saved(job, views(state, current_response_id(*draw_tables(con))))
        for name in STATE_VIEWS:
            duck.write_view(con, BY_NAME[name], content[name])
            duck.copy_out(con, name, copies)
        con.execute("DELETE FROM meta WHERE key = ?", [DIGEST_KEY])
        con.execute("INSERT INTO meta VALUES (?, ?)", [DIGEST_KEY, state.digest])
        duck.copy_out(con, "meta", copies)
        con.execute("CHECKPOINT")
