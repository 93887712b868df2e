"""The contract of released tables: each way of breaking it is told by its column, without a figure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pandas as pd
import pytest

from privacy.released import fault, keys_of

WEEK = date(2024, 1, 1)


def table() -> pd.DataFrame:
    rows = [("conversions", g, WEEK, "conversions", n, n / 4, 2.0) for n, g in enumerate(("north", "south"))]
    return pd.DataFrame(rows, columns=["vector", "geo", "week", "metric", "units", "value", "variance"])


def test_a_sound_table_has_no_fault() -> None:
    assert fault("kpi", table(), ("conversions",)) == ""
    assert keys_of("kpi") == ("geo", "week", "metric")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.assign(people=7), "column 'people' is not of this measure"),
        (lambda t: t.drop(columns="geo"), "column 'geo' is missing"),
        (lambda t: t.assign(vector="cohort"), "column 'vector' must be a declared vector"),
        (lambda t: t.assign(week="2024-01-01"), "column 'week' must be a date"),
        (lambda t: t.assign(week=None), "column 'week' must be"),
        (lambda t: t.assign(metric="visits"), "column 'metric' must be text like"),
        (lambda t: t.assign(units=[0.5, 1.0]), "column 'units' must be dtype('int64')"),
        (lambda t: t.assign(value=[1.0, float("inf")]), "column 'value' must be finite"),
        (lambda t: t.assign(variance=0.0), "column 'variance' must be above 0"),
        (lambda t: pd.concat([t, t.iloc[:1]], ignore_index=True), "a key occurs twice"),
    ],
)
def test_a_fault_is_told_by_its_column(change: Callable[[pd.DataFrame], pd.DataFrame], said: str) -> None:
    assert fault("kpi", change(table()), ("conversions",)).startswith(said)
