"""The door to the warehouse."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import app_sample_warehouse as sample
import duckdb
import numpy as np
import pandas as pd
import pytest

from app import store
from app.draws import from_tables, response_id, to_tables
from app.store import Snapshot
from contracts.errors import ContractError, WorkspaceError


def test_snapshot_holds_the_contract(snapshot: Callable[[str], Snapshot]) -> None:
    s = snapshot("full")
    assert s.meta.kpi == "conversions"
    assert s.meta.user_level
    assert set(s.effects["scope"]) == {"total", "week"}
    assert len(s.kpi) == 12 * 78 * 3
    assert not s.empty


def test_the_surface_is_rebuilt_exactly(snapshot: Callable[[str], Snapshot]) -> None:
    got, want = snapshot("full").surface, sample.dynamic()
    assert got is not None and (got.start, got.periods) == (sample.PERIOD.start, 13)
    assert (got.response.channels, got.response.geos) == (want.channels, want.geos)
    for name in ("amplitude", "unit", "half_saturation", "slope", "current_spend", "observed_max", "weights"):
        np.testing.assert_allclose(getattr(got.response.steady, name), getattr(want.steady, name))
    for name in ("retention", "delay", "recent", "observed", "population"):
        np.testing.assert_allclose(getattr(got.response, name), getattr(want, name))


def test_channels_and_geos_come_back_in_alphabetical_order() -> None:
    want = sample.dynamic()
    turned = dataclasses.replace(
        want, recent=want.recent[::-1, :, ::-1], observed=want.observed[::-1, ::-1], retention=want.retention[:, ::-1],
        steady=dataclasses.replace(
            want.steady, channels=want.channels[::-1], geos=want.geos[::-1], unit=want.steady.unit[::-1, ::-1],
            amplitude=want.steady.amplitude[:, ::-1, ::-1], half_saturation=want.steady.half_saturation[:, ::-1],
            slope=want.steady.slope[:, ::-1], current_spend=want.steady.current_spend[::-1, ::-1],
            observed_max=want.steady.observed_max[::-1],
        ),
    )  # fmt: skip
    back = from_tables(to_tables(turned))
    assert back is not None and back.channels == want.channels
    assert response_id(back) == response_id(sample.surface().response)


def test_a_missing_row_of_the_response_is_refused() -> None:
    whole = to_tables(sample.dynamic())
    for broken in (whole.draws.iloc[1:], pd.concat([whole.draws.iloc[1:], whole.draws.iloc[-1:]])):
        with pytest.raises(ContractError, match=r"one row per draw, geo and channel"):
            from_tables(dataclasses.replace(whole, draws=broken))
    with pytest.raises(ContractError, match=r"response_recent must hold one row per geo, period and channel"):
        from_tables(dataclasses.replace(whole, recent=whole.recent.iloc[1:]))


def test_an_empty_warehouse_is_empty_and_has_no_response(snapshot: Callable[[str], Snapshot]) -> None:
    s = snapshot("empty")
    assert s.empty
    assert s.response is None


def test_missing_file_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match=r"no warehouse at .*none\.duckdb; run `plumb run`"):
        store.load(tmp_path / "none.duckdb")


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "broken.duckdb"
    path.write_bytes(b"not a database at all" * 500)
    with pytest.raises(WorkspaceError, match=r"broken\.duckdb is not a readable warehouse"):
        store.load(path)


def test_a_warehouse_of_another_version(tmp_path: Path) -> None:
    path = tmp_path / "old.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute("CREATE TABLE v_kpi (geo VARCHAR)")
    with pytest.raises(WorkspaceError, match=r"old\.duckdb was made by another version"):
        store.load(path)


def test_unset_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(store.ENV, raising=False)
    with pytest.raises(WorkspaceError, match=r"PLUMB_WAREHOUSE is not set"):
        store.warehouse_path()


def test_fingerprint_changes_when_the_file_is_replaced(tmp_path: Path) -> None:
    path = sample.write(tmp_path / "w.duckdb", sample.Tables())
    before = store.fingerprint(path)
    assert store.fingerprint(path) == before
    sample.write(tmp_path / "new.duckdb", sample.Tables()).replace(path)
    assert store.fingerprint(path) != before


def test_reading_leaves_the_file_as_it_is(warehouse: Callable[[str], Path]) -> None:
    path = warehouse("one_period")
    before = path.read_bytes()
    store.load(path)
    assert path.read_bytes() == before
    assert not path.with_suffix(".duckdb.wal").exists()


def test_latest_keeps_the_newest_row_of_a_key(snapshot: Callable[[str], Snapshot]) -> None:
    old = snapshot("full").credit.iloc[:3]
    new = old.assign(as_of=old["as_of"] + timedelta(days=1), mean=1.0)
    assert (store.latest(pd.concat([new, old], ignore_index=True), "v_credit")["mean"] == 1.0).all()


def test_a_replaced_file_is_read_anew_though_an_old_reader_is_still_open(tmp_path: Path) -> None:
    path, fresh = tmp_path / "it's.duckdb", tmp_path / "fresh.duckdb"
    for file, value in ((path, 1), (fresh, 2)):
        with duckdb.connect(str(file)) as con:
            con.execute(f"CREATE TABLE t AS SELECT {value} AS x")
    with store.opened(path) as (old, first):
        fresh.replace(path)
        with store.opened(path) as (new, second):
            assert first != second == store.fingerprint(path)
            assert (old.execute("FROM t").fetchall(), new.execute("FROM t").fetchall()) == ([(1,)], [(2,)])


@pytest.mark.parametrize(
    "statement",
    ["SELECT * FROM read_csv('/etc/hostname')", "ATTACH 'x.duckdb'", "COPY t TO 'x.csv'", "INSERT INTO t VALUES (2)",
     "SET enable_external_access = true", "INSTALL httpfs", "CREATE TABLE warehouse.u (x INT)"],
)  # fmt: skip
def test_nothing_but_the_file_can_be_read_and_nothing_written(tmp_path: Path, statement: str) -> None:
    with duckdb.connect(str(tmp_path / "w.duckdb")) as con:
        con.execute("CREATE TABLE t AS SELECT 1 AS x")
    with store.opened(tmp_path / "w.duckdb") as (con, _), pytest.raises(duckdb.Error):
        con.execute(statement)
