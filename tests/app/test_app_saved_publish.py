"""Saves reach the warehouse by a new file: whole, once, also after a crash or beside other writers."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import app_sample_warehouse as sample
import duckdb
import pandas as pd
import pytest

from app import scenario, store
from app.saved import database, duck, files, frames, pricing, publish, remarks, scenarios
from app.saved.scenarios import Pricing
from app.store import Snapshot
from contracts.errors import PlumblineError, WorkspaceError
from contracts.tables import BY_NAME, VIEWS

NOW = scenario.current(sample.surface())


@pytest.fixture
def file(tmp_path: Path, warehouse: Callable[[str], Path]) -> Path:
    """The warehouse of a workspace of its own."""
    return Path(shutil.copyfile(warehouse("full"), tmp_path / "warehouse.duckdb"))


@pytest.fixture
def priced(snapshot: Callable[[str], Snapshot]) -> Pricing:
    return pricing.price(snapshot("full"), dict(zip(sample.CHANNELS, (1.1 * NOW).tolist(), strict=True)))


def write_all(file: Path, priced: Pricing) -> None:
    with database.writing(file.parent / files.STATE_NAME) as con:
        one = scenarios.create(con, "Push", "ana", "why", priced)
        remarks.comment(con, "scenario", one.id, "bo", "who pays?")
        remarks.decide(con, one.id, 1, "approved", "fits", "cfo")
        remarks.create_token(con, "ci", ["read"])
        scenarios.archive(con, scenarios.create(con, "Gone", "ana", "", priced).id, 1, "ana")


def table(file: Path, name: str) -> pd.DataFrame:
    with duckdb.connect(str(file), read_only=True) as con:
        return con.execute(f"SELECT * FROM {name}").df()


def every(file: Path) -> dict[str, pd.DataFrame]:
    return {name: table(file, name) for name in (*(v.name for v in VIEWS), "response_draws")}


def test_saves_are_in_the_views_and_the_rest_of_the_file_is_as_it_was(file: Path, priced: Pricing) -> None:
    before, inode = every(file), file.stat().st_ino
    assert not publish.publish(file), "nothing saved, nothing written"
    assert file.stat().st_ino == inode
    write_all(file, priced)
    assert publish.publish(file)
    assert file.stat().st_ino != inode, "a new file, never the old one changed"
    after = every(file)
    for name in set(after) - set(frames.STATE_VIEWS):
        pd.testing.assert_frame_equal(after[name], before[name], obj=name)
    cells = after["v_scenario_cells"]
    job = cells[cells["scenario_id"] == ""].reset_index(drop=True)
    pd.testing.assert_frame_equal(job, before["v_scenario_cells"], check_dtype=False)
    rows = after["v_scenarios"]
    own = rows[rows["scenario_id"] == ""].reset_index(drop=True)
    pd.testing.assert_frame_equal(own, before["v_scenarios"], check_dtype=False)
    mine = rows[rows["scenario"] == "Push"]
    assert mine["mean"].tolist() == priced.channels["mean"].tolist()
    assert set(mine["model_version"]) == {sample.MODEL} and set(mine["run_id"]) == {sample.EFFECT_RUN}
    assert len(cells) == len(job) + len(priced.cells)
    assert after["v_comments"]["text"].tolist() == ["who pays?"]
    assert after["v_approvals"][["version", "decision", "reason"]].iloc[0].tolist() == [1, "approved", "fits"]
    assert "Gone" not in set(rows["scenario"])
    for name in frames.STATE_VIEWS:
        copy = duckdb.read_parquet(str(file.parent / files.TABLES_NAME / f"{name}.parquet")).df()
        pd.testing.assert_frame_equal(copy, after[name], obj=name)
    with duckdb.connect(str(file), read_only=True) as con:
        everything = con.execute("SELECT table_name FROM information_schema.tables").fetchall()
    assert not [name for (name,) in everything if "token" in name]
    assert not publish.publish(file), "a second call has nothing to do"
    assert not [p.name for p in file.parent.iterdir() if ".save" in p.name]


def test_the_explorer_reads_the_file_again(file: Path, priced: Pricing) -> None:
    seen = store.fingerprint(file)
    write_all(file, priced)
    publish.publish(file)
    assert store.fingerprint(file) != seen
    assert "Push" in set(store.load(file).scenarios["scenario"])


@pytest.mark.parametrize("moment", ["fsync", "rename"])
def test_a_crash_between_the_save_and_the_rename_loses_nothing(
    file: Path, priced: Pricing, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """What no handler swallows, as a signal would not be."""

    def die(*_: object) -> None:
        raise Killed

    write_all(file, priced)
    before = file.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(files, {"fsync": "sync_file", "rename": "swap_files"}[moment], die)
        with pytest.raises(Killed):
            publish.publish(file)
    assert file.read_bytes() == before
    assert publish.publish(file), "the next look brings it"
    assert "Push" in set(table(file, "v_scenarios")["scenario"])


def test_leftovers_of_a_killed_process_are_in_nobodys_way(file: Path, priced: Pricing) -> None:
    (file.parent / f".{file.name}.save").write_bytes(b"half")
    (file.parent / f".{file.name}.save.wal").write_bytes(b"of another file")
    (file.parent / f".{files.TABLES_NAME}.save").mkdir()
    write_all(file, priced)
    assert publish.publish(file)
    assert "Push" in set(table(file, "v_scenarios")["scenario"])


def test_writers_at_once_all_end_in_the_file(file: Path, priced: Pricing) -> None:
    path, failures = file.parent / files.STATE_NAME, []

    def save(number: int) -> None:
        try:
            with database.writing(path) as con:
                scenarios.create(con, f"Plan {number}", "ana", "", priced)
            publish.publish(file, 60.0)
        except BaseException as error:  # noqa: BLE001 - reported below
            failures.append(error)

    threads = [threading.Thread(target=save, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    held = set(table(file, "v_scenarios")["scenario"])
    assert held >= {f"Plan {i}" for i in range(4)}


def test_beside_a_job_that_writes_the_save_waits(file: Path, priced: Pricing) -> None:
    write_all(file, priced)
    with files.publishing(file.parent), pytest.raises(files.Busy, match="is writing the tables of"):
        publish.publish(file, 0.05)
    assert publish.publish(file)


def test_another_fit_marks_what_was_saved_before(file: Path, priced: Pricing) -> None:
    write_all(file, priced)
    publish.publish(file)
    assert not table(file, "v_scenarios")["outdated"].any()
    tables = sample.full()
    assert tables.draws is not None
    tables.draws.draws["slope"] *= 1.01
    sample.write(file.with_name("new"), tables).replace(file)
    publish.publish(file)
    rows = table(file, "v_scenarios")
    assert rows.loc[rows["outdated"], "scenario"].unique().tolist() == ["Push"]


def test_a_damaged_warehouse_or_a_full_disk_is_a_sentence(
    file: Path, priced: Pricing, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all(file, priced)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(WorkspaceError, match="could not be written.*No space left"):
            publish.publish(file)
    file.write_bytes(b"no database" * 500)
    with pytest.raises(WorkspaceError, match="is not a readable warehouse"):
        publish.publish(file)


def test_a_frame_that_breaks_the_contract_is_refused(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "x.duckdb")) as con:
        view = BY_NAME["v_comments"]
        row = dict.fromkeys(view.names, "a") | {"written_at": pd.Timestamp("2026-01-01")}
        with pytest.raises(PlumblineError, match="v_comments holds two rows for {'comment_id': 'a'}"):
            duck.write_view(con, view, pd.DataFrame([row, row]))
        with pytest.raises(PlumblineError, match="lacks the column 'text'"):
            duck.write_view(con, view, pd.DataFrame([row]).drop(columns="text"))
