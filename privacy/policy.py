"""The declared privacy policy: grants, shares and bounds. Fixed before any row is read, never derived from the rows.

Messages name the key of plumb.toml. DESIGN section 3; sizing in docs/privacy.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Literal

from contracts.calendar import Block
from contracts.errors import ConfigError
from contracts.release import NANO
from privacy.bounds import Bound, check_bounds, check_shares, slice_nano
from privacy.cadence import PACED, Batch, Cadence, batches, check_cadence
from privacy.corrections import RESERVE, Correction, check_corrections
from privacy.measure_policies import CreditPolicy, JourneyPolicy, LevelPolicy, MediaPolicy, TrialPolicy
from privacy.rules import is_number

MEASURES = ("kpi", "journeys", "trials", "diagnostics", "reserve", "media", "credit", "levels")
KPI_VECTORS = ("conversions", "revenue", "active_users")
Bounding = Literal["l2", "l0_linf"]
BOUNDINGS = ("l2", "l0_linf")
# vectors that can be capped by cells; flow must stay conserved, and the others have one cell a person or fixed parts
BY_CELLS = {
    "kpi": ("conversions", "revenue", "active_users"),
    "journeys": ("position", "position_value", "sets"),
    "media": ("impressions", "clicks"),
    "levels": tuple(f"{level}:{metric}" for level in ("region", "nation") for metric in KPI_VECTORS),
}


def _default_shares() -> Mapping[str, float]:
    return MappingProxyType({"kpi": 0.5, "journeys": 0.25, "trials": 0.15, "diagnostics": 0.05, "reserve": 0.05})


def _default_cadence() -> Mapping[str, Cadence]:
    return MappingProxyType(dict.fromkeys(PACED, "quarter"))


def _default_kpi() -> Mapping[str, Bound]:
    return MappingProxyType(
        {"conversions": Bound(2.0, 0.7), "revenue": Bound(200.0, 0.2), "active_users": Bound(4.0, 0.1)}
    )


@dataclass(frozen=True, slots=True)
class PrivacyPolicy:
    """The whole grant of one person and quarter, and how it is split. Raises ConfigError naming the key."""

    rho_per_user_quarter: float = 0.2
    delta: float = 1e-6
    min_cohort: int = 50
    shares: Mapping[str, float] = field(default_factory=_default_shares)
    kpi: Mapping[str, Bound] = field(default_factory=_default_kpi)
    journeys: JourneyPolicy = field(default_factory=JourneyPolicy)
    trials: TrialPolicy = field(default_factory=TrialPolicy)
    cadence: Mapping[str, Cadence] = field(default_factory=_default_cadence)
    media: MediaPolicy = field(default_factory=MediaPolicy)
    credit: CreditPolicy = field(default_factory=CreditPolicy)
    levels: LevelPolicy = field(default_factory=LevelPolicy)
    bounding: Bounding = "l2"
    corrections: tuple[Correction, ...] = ()

    def __post_init__(self) -> None:
        if self.bounding not in BOUNDINGS:
            raise ConfigError(f"privacy.bounding must be one of {', '.join(BOUNDINGS)}; got {self.bounding!r}.")
        if not (is_number(self.rho_per_user_quarter) and 0 < self.rho_per_user_quarter <= 100):
            raise ConfigError(
                f"privacy.rho_per_user_quarter must be > 0 and at most 100; got {self.rho_per_user_quarter}."
            )
        if not (is_number(self.delta) and 0 < self.delta < 1):
            raise ConfigError(f"privacy.delta must lie between 0 and 1, such as 1e-6; got {self.delta}.")
        if not (isinstance(self.min_cohort, int) and self.min_cohort >= 0):
            raise ConfigError(f"privacy.min_cohort must be an integer >= 0; got {self.min_cohort}.")
        _known("privacy.shares", self.shares, MEASURES)
        check_shares("privacy.shares.{}", self.shares)
        _known("privacy.kpi", self.kpi, KPI_VECTORS)
        check_bounds("privacy.kpi", self.kpi)
        check_corrections(self.corrections, self.shares)
        check_cadence(self.cadence)
        for measure, cadence in self.cadence.items():
            if not isinstance(cadence, str):
                parts = {str(i): p.share for i, p in enumerate(cadence, 1)}
                check_shares(f"privacy.cadence.{measure}.{{}}.share", parts)

    @property
    def cap_nano(self) -> int:
        """Grant of one block in nano-rho."""
        return int(Fraction(Decimal(repr(float(self.rho_per_user_quarter)))) * NANO)

    def l0(self, measure: str, name: str, bound: Bound) -> int:
        """Most cells of one person in a vector; 0 where the norm of all of them is bounded instead."""
        return bound.cells if self.bounding == "l0_linf" and name in BY_CELLS.get(measure, ()) else 0

    def share_nano(self, measure: str) -> int:
        """Grant of one measure in one block, nano-rho, rounded down."""
        return slice_nano(self.cap_nano, self.shares.get(measure, 0.0))

    def batches(self, measure: str, block: Block) -> tuple[Batch, ...]:
        """What is released of one measure and block, and what each batch pays."""
        cadence, grant = self.cadence.get(measure, "quarter"), self.share_nano(measure)
        parts = () if isinstance(cadence, str) else tuple(slice_nano(grant, p.share) for p in cadence)
        return batches(block, cadence, grant, parts)

    def correction_batch(self, correction: Correction, block: Block) -> Batch:
        """A correction is one batch over the whole quarter, paid from its reserve."""
        return Batch(block.weeks, slice_nano(self.share_nano(RESERVE), correction.share))

    def kpi_batches(self, block: Block, correction: int = 0) -> tuple[tuple[date, ...], ...]:
        """Weeks of kpi that were bounded together, as the diagnostics describe them.

        A correction of the diagnostics tells of the correction of kpi, where there is one: of one batch.
        """
        if correction and any(c.measure == "kpi" and c.quarter == block.start for c in self.corrections):
            return (block.weeks,)
        return tuple(b.weeks for b in self.batches("kpi", block))


def _known(key: str, found: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    for name in found:
        if name not in allowed:
            raise ConfigError(f"{key}.{name} is unknown; allowed are {', '.join(allowed)}.")
