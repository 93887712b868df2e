"""The released journeys tables as arrays. Every cell is a signed noisy count with its known variance.

| on paper | here | dims | unit |
|---|---|---|---|
| F[s,t] | flow | (start, states) × (channels, conversion, null) | transitions |
| P[c,k,l] | position | channel, position k of length l, converted journeys | journeys, or currency |
| R[T], L[T] | sets | set of channels × (conversion, null) | journeys |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from attribution.states import States, order_of, state_names, states_of
from contracts.errors import ContractError
from contracts.release import Release

FULL_SETS = 10  # channels up to which a release holds every set


@dataclass(frozen=True, slots=True)
class Cells:
    """Cells of one vector with their noise variances, same shapes."""

    value: np.ndarray
    variance: np.ndarray


@dataclass(frozen=True, slots=True)
class FlowTable:
    """Transitions. Row s of the cells is `states`' state s, row 0 the start."""

    cells: Cells  # (1 + S, K + 2)
    states: States


@dataclass(frozen=True, slots=True)
class PositionTable:
    """Touches of converted journeys. Row i is channel `channel[i]` at `position[i]` of `length[i]`."""

    cells: Cells  # (R,)
    channel: np.ndarray  # (R,) position in `channels`; -1 for the row of conversions without a touch
    position: np.ndarray  # (R,)
    length: np.ndarray  # (R,)


@dataclass(frozen=True, slots=True)
class SetTable:
    """Journeys by channel set and outcome, or by (channel, number of distinct channels) and outcome when not `full`."""

    cells: Cells  # (R,)
    member: np.ndarray  # (R, K) bool: channels of the set, or the one channel
    size: np.ndarray  # (R,) distinct channels in the journey; 0 for conversions without a touch
    converted: np.ndarray  # (R,) bool
    full: bool

    @property
    def weight(self) -> np.ndarray:
        """(R,) turns a row into journeys: above ten channels a journey with d channels stands in d rows."""
        return np.ones(len(self.size)) if self.full else 1 / np.maximum(self.size, 1)


@dataclass(frozen=True, slots=True)
class Journeys:
    """One journeys release. `position_value` and `sets` are None where they were not released."""

    channels: tuple[str, ...]  # the channels that the release tracks, in the caller's order
    flow: FlowTable
    position: PositionTable
    position_value: PositionTable | None
    sets: SetTable | None


def _cells(rows: pd.DataFrame) -> Cells:
    return Cells(rows["value"].to_numpy(float), rows["variance"].to_numpy(float))


def _require(release: Release, rows: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [c for c in columns if c not in rows.columns]
    if missing:
        raise ContractError(f"journeys release {release.release_id!r} lacks the columns {missing}; release it again.")


def text_of(rows: pd.DataFrame, column: str) -> list[str]:
    """Cells of a column as text, '' where absent."""
    return ["" if pd.isna(v) else str(v) for v in rows[column]]


def _flow(release: Release, channels: tuple[str, ...]) -> FlowTable:
    rows = release.vector("flow")
    _require(release, rows, ("source", "target"))
    k, sources = len(channels), text_of(rows, "source")
    order = order_of(k, len(set(sources) - {"start"})) if k else 1
    source = state_names(channels, order)
    target = {c: i for i, c in enumerate(channels)} | {"conversion": k, "null": k + 1}
    states = states_of(k, order)
    value, variance = np.zeros((states.count + 1, k + 2)), np.zeros((states.count + 1, k + 2))
    unknown = sorted(set(sources) - set(source))
    if unknown:
        raise ContractError(
            f"journeys release {release.release_id!r} has the source {unknown[0]!r}, which is no state of order "
            f"{order} of its channels; release it again."
        )
    at = ([source[s] for s in sources], [target[t] for t in text_of(rows, "target")])
    value[at], variance[at] = rows["value"].to_numpy(float), rows["variance"].to_numpy(float)
    return FlowTable(Cells(value, variance), states)


def _position(release: Release, name: str, channels: tuple[str, ...]) -> PositionTable:
    rows = release.vector(name)
    _require(release, rows, ("channel", "position", "length"))
    index = {c: i for i, c in enumerate(channels)} | {"": -1}
    position, length = rows["position"].to_numpy(int), rows["length"].to_numpy(int)
    channel = np.array([index[c] for c in text_of(rows, "channel")])
    broken = (channel >= 0) & ((position < 1) | (position > length))
    if broken.any():
        row = rows[broken].iloc[0]
        raise ContractError(
            f"journeys release {release.release_id!r}: {name} has channel {row['channel']!r} at position "
            f"{row['position']} of {row['length']}; positions run from 1 to the length."
        )
    return PositionTable(_cells(rows), channel, position, length)


def _set_names(channels: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Name of a set in a release -> positions of its channels; members stand in declared order, joined by '+'."""
    return {
        "+".join(channels[i] for i in members): members
        for size in range(len(channels) + 1)
        for members in combinations(range(len(channels)), size)
    }


def _sets(release: Release, channels: tuple[str, ...]) -> SetTable:
    rows = release.vector("sets")
    _require(release, rows, ("channels", "outcome"))
    length = rows["length"].fillna(0).to_numpy(int) if "length" in rows.columns else np.zeros(len(rows), int)
    member, full = np.zeros((len(rows), len(channels)), dtype=bool), not length.any()
    at = {c: i for i, c in enumerate(channels)}
    if full:
        declared = list(dict.fromkeys(c for c in text_of(release.vector("position"), "channel") if c))
        sets = _set_names(declared)
        for row, name in enumerate(text_of(rows, "channels")):
            if name not in sets:
                raise ContractError(
                    f"journeys release {release.release_id!r} has the channel set {name!r}, which its channels do not "
                    "make; release it again."
                )
            member[row, [at[declared[i]] for i in sets[name]]] = True
        length = member.sum(axis=1)
    else:
        for row, name in enumerate(text_of(rows, "channel")):
            if name:
                member[row, at[name]] = True
    return SetTable(_cells(rows), member, length, (rows["outcome"] == "conversion").to_numpy(), full)


def tracked_channels(release: Release, channels: Sequence[str]) -> tuple[str, ...]:
    """Those of `channels` that the release tracks, in order. Raises ContractError for one not declared."""
    rows = release.vector("flow")
    _require(release, rows, ("source", "target"))
    seen = set(text_of(rows, "target")) - {"conversion", "null", ""}
    seen |= set(text_of(release.vector("position"), "channel")) - {""}
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
        _sets(release, tracked) if "sets" in names else None,
    )
