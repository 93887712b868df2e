"""Plans: what will be released, at what price, with how much noise. Made from the public question alone."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import date
from typing import Any

import pandas as pd

from contracts.release import Charge, Measure, VectorSpec
from privacy.corrections import RESERVE


@dataclass(frozen=True, slots=True)
class VectorPlan:
    """One bounded vector of a release. Metric value = units x numerator / denominator."""

    name: str
    bound: float  # as declared, metric units (trials: normalised units)
    bound_units: int  # C, the L2 sensitivity
    numerator: int
    denominator: int
    cells: int
    nano: int  # what every charged block pays for it
    sigma_units: float
    l0: int = 0  # cells of one person, where these are capped instead of the norm (privacy.bounding); 0: the norm is

    @property
    def unit(self) -> float:
        """Metric units per fixed-point unit."""
        return self.numerator / self.denominator

    def spec(self) -> VectorSpec:
        """The same in metric units, for readers of the release."""
        return VectorSpec(
            self.name, self.bound_units * self.unit, self.unit, self.sigma_units * self.unit, self.nano, "l2"
        )


@dataclass(frozen=True, slots=True)
class Span:
    """Weeks of one block: `block` is its position in the question, `first` the first week's position in the block."""

    block: int
    first: int
    weeks: int


@dataclass(frozen=True, slots=True)
class ReleasePlan:
    """One file to publish. The id hashes the declared question, never the data."""

    release_id: str
    spec_hash: str
    measure: Measure
    blocks: tuple[str, ...]  # every block that pays
    period_start: date
    period_end: date  # inclusive
    experiment: str  # '' unless measure is 'trials'
    vectors: tuple[VectorPlan, ...]
    keys_hash: str
    weeks: tuple[date, ...] = ()  # the batch's weeks, of one block; empty for trials
    spec: str = ""  # the declared question as canonical JSON; spec_hash is its SHA-256
    look: int = 0  # number of the look at a running test; 0 for all else
    correction: int = 0  # which correction of its measure and block this is; 0: the first release

    @property
    def payer(self) -> str:
        """The share of the grant that pays: the measure's own, or the reserve for a correction."""
        return RESERVE if self.correction else self.measure

    @property
    def nano(self) -> int:
        """What each block pays, nano-rho."""
        return sum(v.nano for v in self.vectors)

    @property
    def cells(self) -> int:
        """Rows of the file."""
        return sum(v.cells for v in self.vectors)

    @property
    def charges(self) -> tuple[Charge, ...]:
        """One charge per block."""
        return tuple(Charge(self.release_id, block, self.measure, self.nano) for block in self.blocks)


def keyed(plans: tuple[ReleasePlan, ...]) -> bool:
    """May a measure of these plans order a person's cells by the person's keyed hash?

    A person has one cell of `kpi` for each week of a quarter, far fewer than are kept of anybody (`privacy.bounding`),
    so only its form with L0 does.
    """
    return any(plan.measure != "kpi" or any(vector.l0 for vector in plan.vectors) for plan in plans)


def canonical(value: Any) -> str:
    """A value as JSON: one text for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)


def digest(value: Any) -> str:
    """SHA-256 of a value written as canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def keys_hash(keys: dict[str, pd.DataFrame]) -> str:
    """SHA-256 over the public keys in order."""
    return digest([[name, list(frame.columns), frame.astype(str).to_numpy().tolist()] for name, frame in keys.items()])
