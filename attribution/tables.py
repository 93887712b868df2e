"""The released journeys tables as arrays. Every cell is a signed noisy count with its known variance.

| on paper | here | dims | unit |
|---|---|---|---|
| F[s,t] | flow | (start, channels) × (channels, conversion, null) | transitions |
| P[c,k,l] | position | channel, position k of length l, converted journeys | journeys, or currency |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from contracts.errors import ContractError
from contracts.release import Release


@dataclass(frozen=True, slots=True)
class Cells:
    """Cells of one vector with their noise variances, same shapes."""

    value: np.ndarray
    variance: np.ndarray


@dataclass(frozen=True, slots=True)
class PositionTable:
    """Touches of converted journeys. Row i is channel `channel[i]` at `position[i]` of `length[i]`."""

    cells: Cells  # (R,)
    channel: np.ndarray  # (R,) position in `channels`; -1 for the row of conversions without a touch
    position: np.ndarray  # (R,)
    length: np.ndarray  # (R,)


@dataclass(frozen=True, slots=True)
class SetTable:
    """Converted journeys by channel set: `weight` turns a row into journeys, `touched` is false for the empty set."""

    cells: Cells  # (R,)
    weight: np.ndarray  # (R,)
    touched: np.ndarray  # (R,) bool


@dataclass(frozen=True, slots=True)
class Journeys:
    """One journeys release. `position_value` and `sets` are None where they were not released."""

    channels: tuple[str, ...]  # the channels that the release tracks, in the caller's order
    flow: Cells  # (1 + K, K + 2)
    position: PositionTable
    position_value: PositionTable | None
    sets: SetTable | None


def _cells(rows: pd.DataFrame) -> Cells:
    return Cells(rows["value"].to_numpy(float), rows["variance"].to_numpy(float))


def _require(release: Release, rows: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [c for c in columns if c not in rows.columns]
    if missing:
        raise ContractError(f"journeys release {release.release_id!r} lacks the columns {missing}; release it again.")


def _text(rows: pd.DataFrame, column: str) -> list[str]:
    return ["" if pd.isna(v) else str(v) for v in rows[column]]


def _flow(release: Release, channels: tuple[str, ...]) -> Cells:
    rows = release.vector("flow")
    _require(release, rows, ("source", "target"))
    k = len(channels)
    source = {"start": 0} | {c: i + 1 for i, c in enumerate(channels)}
    target = {c: i for i, c in enumerate(channels)} | {"conversion": k, "null": k + 1}
    value, variance = np.zeros((k + 1, k + 2)), np.zeros((k + 1, k + 2))
    at = ([source[s] for s in _text(rows, "source")], [target[t] for t in _text(rows, "target")])
    value[at], variance[at] = rows["value"].to_numpy(float), rows["variance"].to_numpy(float)
    return Cells(value, variance)


def _position(release: Release, name: str, channels: tuple[str, ...]) -> PositionTable:
    rows = release.vector(name)
    _require(release, rows, ("channel", "position", "length"))
    index = {c: i for i, c in enumerate(channels)} | {"": -1}
    position, length = rows["position"].to_numpy(int), rows["length"].to_numpy(int)
    channel = np.array([index[c] for c in _text(rows, "channel")])
    broken = (channel >= 0) & ((position < 1) | (position > length))
    if broken.any():
        row = rows[broken].iloc[0]
        raise ContractError(
            f"journeys release {release.release_id!r}: {name} has channel {row['channel']!r} at position "
            f"{row['position']} of {row['length']}; positions run from 1 to the length."
        )
    return PositionTable(_cells(rows), channel, position, length)


def _sets(release: Release) -> SetTable:
    rows = release.vector("sets")
    _require(release, rows, ("channels", "outcome"))
    rows = rows[rows["outcome"] == "conversion"].reset_index(drop=True)
    names = np.array(_text(rows, "channels"))
    length = rows["length"].fillna(0).to_numpy(int) if "length" in rows.columns else np.zeros(len(rows), int)
    # Above ten channels a journey with d distinct channels stands in d rows (channel, d), so each counts 1/d.
    weight = np.where(length > 0, 1 / np.maximum(length, 1), 1.0)
    return SetTable(_cells(rows), weight, (names != "") | (length > 0))


def tracked_channels(release: Release, channels: Sequence[str]) -> tuple[str, ...]:
    """Those of `channels` that the release tracks, in order. Raises ContractError for one not declared."""
    rows = release.vector("flow")
    _require(release, rows, ("source", "target"))
    seen = (set(_text(rows, "source")) | set(_text(rows, "target"))) - {"start", "conversion", "null", ""}
    seen |= set(_text(release.vector("position"), "channel")) - {""}
    unknown = sorted(seen - set(channels))
    if unknown:
        raise ContractError(
            f"journeys release {release.release_id!r} tracks channel {unknown[0]!r}, which is not declared; add it to "
            "[channels] in plumb.toml."
        )
    return tuple(c for c in channels if c in seen)


def read_journeys(release: Release, channels: Sequence[str]) -> Journeys:
    """Arrays of one journeys release. Channels that it does not track (offline ones) are left out.

    Raises ContractError when the release is of another measure, lacks flow or position, or tracks an undeclared
    channel.
    """
    if release.measure != "journeys":
        raise ContractError(f"release {release.release_id!r} holds {release.measure!r}; credit reads 'journeys'.")
    tracked = tracked_channels(release, channels)
    names = set(release.table["vector"])
    return Journeys(
        tracked,
        _flow(release, tracked),
        _position(release, "position", tracked),
        _position(release, "position_value", tracked) if "position_value" in names else None,
        _sets(release) if "sets" in names else None,
    )
