"""docs/tables.md is what the code says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import app_sample_warehouse as sample
import duckdb
import pytest

from app import draws
from app.tables_doc import QUERIES, render_tables_md
from contracts.tables import VIEWS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tables.md"


def test_the_page_equals_the_function() -> None:
    assert PAGE.read_text(encoding="utf-8") == render_tables_md(), "run `python -m app.tables_doc`"


def test_every_view_and_column_is_described() -> None:
    text = render_tables_md()
    for view in VIEWS:
        section = text.split(f"### {view.name}\n")[1].split("\n### ")[0]
        for column in view.columns:
            assert f"| `{column.name}` | {column.type} |" in section
    for table, types in (("response_draws", draws.DRAW_TYPES), ("response_recent", draws.RECENT_TYPES)):
        section = text.split(f"### {table}\n")[1].split("\n### ")[0]
        assert all(f"| `{name}` | {kind} |" in section for name, kind in types.items())


@pytest.mark.parametrize("query", QUERIES, ids=lambda q: q[0])
def test_worked_queries_run_and_answer(warehouse: Callable[[str], Path], query: tuple[str, str, str]) -> None:
    with duckdb.connect(str(warehouse("full")), read_only=True) as con:
        rows = con.execute(query[2]).df()
    assert len(rows) > 0


def test_the_noise_query_gives_the_fixtures_noise(warehouse: Callable[[str], Path]) -> None:
    with duckdb.connect(str(warehouse("full")), read_only=True) as con:
        rows = con.execute(QUERIES[2][2]).df()
    assert (rows.loc[rows["metric"] == "conversions", "noise_sd"] == 12.0).all()
    assert len(rows) == 3 * len(sample.GEOS)
