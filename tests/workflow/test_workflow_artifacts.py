"""Artifacts are whole or not there; the warehouse keeps the contract of `contracts.tables`."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from app.draws import to_tables
from contracts.errors import PlumblineError
from contracts.response import SteadyResponse
from contracts.surface import DynamicResponse
from contracts.tables import VIEWS
from workflow.artifacts import Draft, all_of, code_version, digest_of, find
from workflow.codec import read_arrays, response_arrays, response_of, write_arrays
from workflow.warehouse import Content, build, read_view, stamp


def test_an_uncommitted_draft_is_no_artifact(tmp_path: Path) -> None:
    draft = Draft(tmp_path, "lift", "k1")
    draft.path("a.txt").write_text("half", encoding="utf-8")
    assert find(tmp_path, "lift", "k1") is None and all_of(tmp_path, "lift") == []
    again = Draft(tmp_path, "lift", "k1")
    assert not again.path("a.txt").exists()
    again.path("a.txt").write_text("whole", encoding="utf-8")
    made = again.commit("run-1", {"x": "y"}, {"n": 1})
    assert find(tmp_path, "lift", "k1") == made and made.path("a.txt").read_text(encoding="utf-8") == "whole"


def test_the_digest_is_of_the_content_only(tmp_path: Path) -> None:
    digests = []
    for key, text in (("k1", "a"), ("k2", "a"), ("k3", "b")):
        draft = Draft(tmp_path, "fit", key)
        draft.path("a.txt").write_text(text, encoding="utf-8")
        digests.append(draft.commit(f"run-{key}", {"in": key}).digest)
    assert digests[0] == digests[1] != digests[2]


def test_code_version_names_what_it_reads() -> None:
    assert code_version(["contracts"]) == code_version(["contracts"]) != code_version(["contracts", "lift"])
    assert code_version(["workflow.steps"]) != code_version(["workflow.codec"])
    with pytest.raises(PlumblineError, match="'no_such_room' is not installed"):
        code_version(["no_such_room"])
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})


def response() -> SteadyResponse:
    """A tiny response with distinct numbers everywhere."""
    d, g, c = 2, 3, 2
    count = np.arange(d * g * c, dtype=float)
    return SteadyResponse(
        channels=("tv", "web"),
        geos=("a", "b", "c"),
        amplitude=count.reshape(d, g, c),
        unit=count[:6].reshape(g, c) + 1,
        half_saturation=count[:4].reshape(d, c) + 1,
        slope=count[4:8].reshape(d, c),
        current_spend=count[:6].reshape(g, c),
        observed_max=np.array([8.0, 9.0]),
        weights=np.array([0.25, 0.75]),
    )


def whole() -> DynamicResponse:
    """The tiny response in time."""
    two = np.full((2, 2), 0.5)
    return DynamicResponse(
        response(), two, two, 3, np.arange(12.0).reshape(3, 2, 2), np.ones((3, 2)), np.ones(3), date(2026, 1, 5), 7,
        "EUR", "conversions", None,
    )  # fmt: skip


def test_a_response_survives_its_file_and_its_rows(tmp_path: Path) -> None:
    write_arrays(response_arrays(response()), tmp_path / "r.npz")
    back = response_of(read_arrays(tmp_path / "r.npz"))
    assert back.channels == ("tv", "web") and np.array_equal(back.amplitude, response().amplitude)
    tables = to_tables(whole())
    rows = tables.draws.set_index(["draw", "geo", "channel"])
    assert rows.loc[(1, "c", "web"), "amplitude"] == 11 and rows.loc[(1, "a", "tv"), "weight"] == 0.75
    assert rows.loc[(0, "b", "web"), "half_saturation"] == 2 and rows.loc[(1, "b", "tv"), "unit"] == 3
    recent = tables.recent.set_index(["geo", "periods_before", "channel"])["exposure"]
    assert recent[("a", 2, "tv")] == 0 and recent[("a", 1, "web")] == 3 and recent[("c", 1, "tv")] == 10


def kpi_rows(count: int = 1) -> pd.DataFrame:
    """Rows of v_kpi."""
    rows = [
        {"geo": f"g{i}", "week": date(2026, 1, 5), "metric": "conversions", "value": -1.5, "variance": float("nan"),
         "suppressed": False}
        for i in range(count)
    ]  # fmt: skip
    return stamp(pd.DataFrame(rows), run_id="r", release_id="k", model_version="", as_of="2026-02-01", evidence_ids="k")


def test_every_view_has_the_columns_and_types_of_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    build(path, tmp_path / "tables", Content({"v_kpi": kpi_rows()}, whole(), {"project": "x"}))
    with duckdb.connect(str(path), read_only=True) as connection:
        for view in VIEWS:
            found = [(r[0], r[1]) for r in connection.execute(f"DESCRIBE {view.name}").fetchall()]
            assert found == [(c.name, c.type) for c in view.columns], view.name
        assert connection.execute("SELECT value, variance FROM v_kpi").fetchall() == [(-1.5, None)]
        assert connection.execute("SELECT value FROM meta WHERE key = 'project'").fetchall() == [("x",)]
        assert connection.execute("SELECT count(*) FROM response_draws").fetchall() == [(12,)]
    assert {p.stem for p in (tmp_path / "tables").iterdir()} == {
        *(v.name for v in VIEWS), "response_draws", "response_recent", "meta",
    }  # fmt: skip


def test_the_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    build(path, tmp_path / "tables", Content({"v_kpi": kpi_rows(1)}, None, {}))
    before = path.read_bytes()
    with pytest.raises(PlumblineError, match="v_kpi lacks the column 'value'"):
        build(path, tmp_path / "tables", Content({"v_kpi": kpi_rows(2).drop(columns="value")}, None, {}))
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 2
    build(path, tmp_path / "tables", Content({"v_kpi": kpi_rows(2)}, None, {}))
    assert len(read_view(path, "v_kpi")) == 2


def test_a_key_may_not_repeat(tmp_path: Path) -> None:
    twice = pd.concat([kpi_rows(), kpi_rows()])
    with pytest.raises(PlumblineError, match="v_kpi holds two rows"):
        build(tmp_path / "w.duckdb", tmp_path / "tables", Content({"v_kpi": twice}, None, {}))
