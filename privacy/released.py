"""The contract of a released table, in pandera: its columns by measure, their types, and keys that occur once.

`plumb verify` holds every stored or received file against it. pandera is imported when it is first asked, because it
costs more than a second of every command that would only read (docs/decisions/0101).

| measure | key columns |
|---|---|
| kpi | geo, week, metric |
| journeys | source, target, channel, position, length, channels, outcome |
| trials | experiment, arm, component, and what the measure may add |
| diagnostics | metric, geo |
| media | geo, week (none for a clipped mass), channel, metric |
| levels | level, area, week (none for a quarter), metric |
| credit | model, channel, metric |
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from contracts.release import Measure

_KPI = ("conversions", "revenue", "active_users")
_MEDIA = ("impressions", "clicks")
_CLIPPED = r"(clipped:)?"
# column -> what its text must match; int and date columns are named by their type
_KEYS: dict[Measure, dict[str, str]] = {
    "kpi": {"geo": ".+", "week": "date", "metric": "|".join(_KPI)},
    "journeys": dict.fromkeys(("source", "target", "channel", "channels"), ".*")
    | {"position": "int", "length": "int", "outcome": "|conversion|null"},
    "trials": dict.fromkeys(("experiment", "arm", "component"), ".+"),
    "diagnostics": {
        "metric": f"cohort|people|consenting|invalid_people|clipped:({'|'.join(_KPI)})",
        "geo": ".*",
    },
    "media": {"geo": ".*", "week": "date?", "channel": ".*", "metric": f"{_CLIPPED}({'|'.join(_MEDIA)})"},
    "levels": {"level": "region|nation|quarter", "area": ".+", "week": "date?", "metric": "|".join(_KPI)},
    "credit": {"model": "[a-z][a-z0-9_]*", "channel": ".*", "metric": f"{_CLIPPED}(conversions|revenue)"},
}
_COLUMNS = {"column_in_schema": "is not of this measure", "column_in_dataframe": "is missing"}
OPEN: tuple[Measure, ...] = ("trials",)  # measures whose table may hold more key columns


def keys_of(measure: Measure) -> tuple[str, ...]:
    """Key columns of a measure's table."""
    return tuple(_KEYS[measure])


def fault(measure: Measure, table: pd.DataFrame, vectors: tuple[str, ...]) -> str:
    """The first way in which a table breaks its contract, without any of its figures; '' where it keeps it."""
    from pandera.errors import SchemaError, SchemaErrors

    try:
        _schema(measure, vectors).validate(table)
    except SchemaError as error:
        return _told(error)
    except SchemaErrors as errors:  # of the set of columns, pandera raises several at once
        return _told(errors.schema_errors[0])
    extra = [c for c in table.columns if c not in ("vector", "units", "value", "variance")]
    if table.duplicated(["vector", *extra]).any():
        return "a key occurs twice"
    return ""


def _told(error: Any) -> str:
    """Where and what, without the rows that pandera would show."""
    if error.check in _COLUMNS:
        return f"column {error.failure_cases!r} {_COLUMNS[error.check]}"  # pandera puts the column's name there
    return f"column {error.schema.name!r} must be {getattr(error.check, 'error', None) or error.check}"


def _dates(optional: bool) -> Callable[[pd.Series], Any]:
    def sound(column: pd.Series) -> Any:
        return column.map(lambda v: type(v) is date or (optional and v is None)).all()

    return sound


@cache
def _schema(measure: Measure, vectors: tuple[str, ...]) -> Any:
    import pandera.pandas as pa

    columns: dict[str, Any] = {"vector": pa.Column("str", pa.Check.isin(vectors, error="a declared vector"))}
    for name, kind in _KEYS[measure].items():
        if kind in ("date", "date?"):
            check = pa.Check(_dates(kind == "date?"), error="a date")
            columns[name] = pa.Column(None, check, nullable=kind == "date?")
        elif kind == "int":
            columns[name] = pa.Column("int32", pa.Check.ge(0, error="0 or more"))
        else:
            columns[name] = pa.Column("str", pa.Check.str_matches(f"^(?:{kind})$", error=f"text like {kind}"))
    finite = pa.Check(lambda s: np.isfinite(s).all(), error="finite")
    columns |= {
        "units": pa.Column("int64"),
        "value": pa.Column("float64", finite),
        "variance": pa.Column("float64", [finite, pa.Check.gt(0, error="above 0")]),
    }
    return pa.DataFrameSchema(columns, strict=measure not in OPEN)
