"""What leaves the privacy room: noisy integers with their variance, and everything needed to read them.

A release is one measure of one block, or of some of its weeks where they come in batches. Its table is long: one row a
cell, in the order of its public keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import numpy as np
import pandas as pd

from contracts.errors import ContractError

Measure = Literal["kpi", "journeys", "trials", "diagnostics", "media", "credit", "levels"]
NANO = 1_000_000_000  # nano-rho in one rho; the ledger counts in integers


@dataclass(frozen=True, slots=True)
class Charge:
    """What one release costs one block. An event that happened; accountants are readers of it."""

    release_id: str
    block: str
    measure: str
    nano_rho: int  # integer nano-rho, > 0

    def __post_init__(self) -> None:
        if self.nano_rho <= 0:
            raise ContractError(f"a charge must cost more than 0 nano-rho; {self.release_id!r} costs {self.nano_rho}.")


@dataclass(frozen=True, slots=True)
class VectorSpec:
    """One bounded vector of a release: how it was clipped and how much noise it got.

    value = units x `unit`; sensitivity in L2 is `l2_bound` (metric units) under adding or removing one user.
    """

    name: str  # 'conversions', 'flow', ...
    l2_bound: float  # metric units, the C of DESIGN section 3
    unit: float  # metric units per integer step
    sigma: float  # noise sd, metric units
    nano_rho: int
    bounding: str  # 'l2' or 'l0_linf'

    @property
    def variance(self) -> float:
        """Noise variance of every cell of this vector, metric units²."""
        return self.sigma**2


@dataclass(frozen=True, slots=True)
class Release:
    """A published release, read back from disk. `table` has one row per public key and a `value`, `variance` pair.

    Columns by measure:

    | measure | columns of `table` besides vector, value, variance |
    |---|---|
    | kpi | geo, week (date), metric in conversions, revenue, active_users |
    | journeys | source, target (flow); channel, position, length (position, position_value); channels, outcome (sets) |
    | trials | experiment, arm, component (n, y, yy and products, see docs/privacy.md) |
    | diagnostics | metric, and geo where it applies |
    | media | geo, week (date), channel, metric in impressions, clicks; vectors 'clipped:METRIC' without geo and week |
    | levels | level in region, nation, quarter; area, week (date; none for a quarter), metric |
    | credit | model (name of the rule), channel or 'unattributed', metric; vectors 'clipped:RULE:METRIC' |
    """

    release_id: str
    measure: Measure
    block: str
    block_start: date
    block_end: date
    table: pd.DataFrame
    vectors: tuple[VectorSpec, ...]
    rho: float
    epsilon: float  # at delta, this release alone
    delta: float
    metadata: dict[str, Any]

    def __post_init__(self) -> None:
        missing = {"vector", "value", "variance"} - set(self.table.columns)
        if missing:
            raise ContractError(f"release {self.release_id!r} lacks the columns {sorted(missing)}.")
        if not np.isfinite(self.table["value"].to_numpy(float)).all():
            raise ContractError(f"release {self.release_id!r} holds values that are not finite.")

    @property
    def correction(self) -> int:
        """Which correction of its measure and block it is; 0 for the first release."""
        return int((self.metadata.get("correction") or {}).get("number", 0))

    def vector(self, name: str) -> pd.DataFrame:
        """Rows of one vector. Raises ContractError when the release has no such vector."""
        rows = self.table[self.table["vector"] == name]
        if rows.empty:
            raise ContractError(f"release {self.release_id!r} has no vector {name!r}.")
        return rows.reset_index(drop=True)


def current(releases: Sequence[Release]) -> tuple[Release, ...]:
    """Releases that figures are read from: of a measure and block that was corrected, its last correction alone.

    A correction holds the whole block, so nothing is counted twice and nothing is missing. Order is kept.
    """
    last: dict[tuple[str, str], int] = {}
    for r in releases:
        last[r.measure, r.block] = max(last.get((r.measure, r.block), 0), r.correction)
    return tuple(r for r in releases if r.correction == last[r.measure, r.block])
