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


def iso(value: date) -> str:
    """ISO text of a date."""
    return value.isoformat()
