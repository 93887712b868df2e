"""Frozen estimates to and from Parquet, so that steps hand each other files and not pickles."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from contracts.evidence import Credit, LiftEstimate
from contracts.response import SteadyResponse
from contracts.surface import DynamicResponse

_TUPLES = ("evidence_ids", "treated")


def frame_of(items: Sequence[Any], kind: type) -> pd.DataFrame:
    """One row per item, tuples joined by ';'. The columns are there even when there are no items."""
    names = [f.name for f in dataclasses.fields(kind)]
    rows = [{n: getattr(item, n) for n in names} for item in items]
    for row in rows:
        for name in _TUPLES:
            if name in row:
                row[name] = ";".join(row[name])
    return pd.DataFrame(rows, columns=names)


def _plain(value: Any) -> Any:
    if isinstance(value, pd.Timestamp):
        return value.date()
    return value.item() if isinstance(value, np.generic) else value


def _items(frame: pd.DataFrame, kind: type) -> Iterable[dict[str, Any]]:
    names = [f.name for f in dataclasses.fields(kind)]
    for row in frame[names].to_dict("records"):
        plain: dict[str, Any] = {str(k): _plain(v) for k, v in row.items()}
        for name in _TUPLES:
            if name in plain:
                plain[name] = tuple(p for p in str(plain[name]).split(";") if p)
        yield plain


def lifts_of(frame: pd.DataFrame) -> tuple[LiftEstimate, ...]:
    """Inverse of `frame_of` for lift estimates."""
    return tuple(LiftEstimate(**row) for row in _items(frame, LiftEstimate))


def credits_of(frame: pd.DataFrame) -> tuple[Credit, ...]:
    """Inverse of `frame_of` for credits."""
    return tuple(Credit(**row) for row in _items(frame, Credit))


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Parquet without pandas metadata that could differ between machines."""
    frame.to_parquet(path, index=False)


def write_arrays(arrays: dict[str, np.ndarray], path: Path) -> None:
    """`.npz` of plain arrays; the same arrays give the same bytes."""
    np.savez(path, allow_pickle=False, **arrays)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Inverse of `write_arrays`; nothing is unpickled."""
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def response_arrays(response: SteadyResponse) -> dict[str, np.ndarray]:
    """Plain arrays of a steady response."""
    return {f.name: np.array(getattr(response, f.name)) for f in dataclasses.fields(response)}


def response_of(arrays: dict[str, np.ndarray]) -> SteadyResponse:
    """Inverse of `response_arrays`."""
    names = {name: tuple(str(v) for v in arrays[name]) for name in ("channels", "geos")}
    return SteadyResponse(**{**arrays, **names})  # type: ignore[arg-type]


def surface_arrays(response: DynamicResponse) -> dict[str, np.ndarray]:
    """Plain arrays of a response in time; those of its steady part are named `steady.*`. NaN: no revenue per KPI."""
    plain = {f.name: getattr(response, f.name) for f in dataclasses.fields(response) if f.name != "steady"}
    rate = response.revenue_per_kpi
    plain |= {"last_period": iso(response.last_period), "revenue_per_kpi": np.nan if rate is None else rate}
    steady = {f"steady.{name}": value for name, value in response_arrays(response.steady).items()}
    return {name: np.array(value) for name, value in plain.items()} | steady


def surface_of(arrays: dict[str, np.ndarray]) -> DynamicResponse:
    """Inverse of `surface_arrays`."""
    plain: dict[str, Any] = {name: value for name, value in arrays.items() if not name.startswith("steady.")}
    rate = float(plain["revenue_per_kpi"])
    plain |= {name: str(plain[name]) for name in ("currency", "kpi_name")}
    plain |= {name: int(plain[name]) for name in ("lags", "period_days")}
    plain["last_period"] = date.fromisoformat(str(plain["last_period"]))
    plain["revenue_per_kpi"] = None if np.isnan(rate) else rate
    steady = {name.removeprefix("steady."): v for name, v in arrays.items() if name.startswith("steady.")}
    return DynamicResponse(steady=response_of(steady), **plain)


def iso(value: date) -> str:
    """ISO text of a date."""
    return value.isoformat()
