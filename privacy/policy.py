"""The declared privacy policy: grants, shares and bounds. Fixed before any row is read, never derived from the rows.

Messages name the key of plumb.toml. DESIGN section 3; sizing in docs/privacy.md.
"""

from __future__ import annotations

import re
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
from privacy.cadence import PACED, Batch, Cadence, batches, check_cadence
from privacy.corrections import RESERVE, Correction, check_corrections
from privacy.paths import PATHS, WHOLE_BLOCK
from privacy.rules import CreditRule, LastNonDirect, PositionWeights, TimeDecay, is_number

MEASURES = ("kpi", "journeys", "trials", "diagnostics", "reserve", "media", "credit", "levels")
KPI_VECTORS = ("conversions", "revenue", "active_users")
CLIPPED = "clipped:"  # prefix of a vector that holds what another one's bound took
CLIPPED_CAP = 4  # a person's clipped mass is itself capped at this many bounds
MICROS = 1_000_000  # micro-units in one metric unit; the loader counts money and events in them
MIN_UNITS, MAX_UNITS = 2**12, 2**26  # the range of a fixed-point bound, DESIGN section 3
MAX_MONEY = 2**50 / MICROS  # keeps every product and quotient exact, see privacy.bounding
MAX_COUNT = float(MAX_UNITS)  # above it one event would be less than one fixed-point unit
MONEY = ("revenue", "position_value")
MAX_CREDIT_TOUCHES = 64  # keeps value x weights below 2^52, see privacy.credit
MAX_LOOKBACK = WHOLE_BLOCK
CREDIT_NAMES = (  # taken by other models
    "last_touch", "first_touch", "linear", "position_based", "markov", "shapley", "shapley_rate", "platform_claimed",
    "unattributed",
)  # fmt: skip
MAX_ORDER = 4
MAX_CELLS_PER_PERSON = 1024
Bounding = Literal["l2", "l0_linf"]
BOUNDINGS = ("l2", "l0_linf")
# vectors that can be capped by cells; flow must stay conserved, and the others have one cell a person or fixed parts
BY_CELLS = {
    "kpi": ("conversions", "revenue", "active_users"),
    "journeys": ("position", "position_value", "sets"),
    "media": ("impressions", "clicks"),
    "levels": tuple(f"{level}:{metric}" for level in ("region", "nation") for metric in KPI_VECTORS),
}


@dataclass(frozen=True, slots=True)
class Bound:
    """L2 bound C of one person's vector (metric units) and the vector's part of its measure's share.

    With `privacy.bounding = "l0_linf"` a person counts in at most `cells` cells (L0), with at most Linf = C / sqrt(L0)
    in each, so that C is the sensitivity either way.
    """

    bound: float
    share: float
    cells: int = 4


@dataclass(frozen=True, slots=True)
class FixedPoint:
    """A bound in integers: one unit is `step` micro-units of the metric, and `units` of them fit into the bound."""

    step: int
    units: int

    @property
    def micros(self) -> int:
        """The bound in micro-units."""
        return self.step * self.units


def fixed_point(bound: float) -> FixedPoint:
    """Finest step (a power of ten, at least 1 micro-unit) at which the bound is at most 2^26 units."""
    micros = int(Fraction(Decimal(repr(float(bound)))) * MICROS)
    step = 1
    while micros // step > MAX_UNITS:
        step *= 10
    return FixedPoint(step, micros // step)


def check_bound(key: str, value: Any) -> None:
    """Raises ConfigError unless 0 < value, finite, and fit for fixed-point integers."""
    if not (is_number(value) and value > 0):
        raise ConfigError(f"{key} must be > 0; got {value}.")
    most = MAX_MONEY if any(name in key.split(".") for name in MONEY) else MAX_COUNT
    if not MIN_UNITS / MICROS <= value <= most:
        raise ConfigError(f"{key} must lie between {MIN_UNITS / MICROS:g} and {most:.3g}; got {value}.")


def check_shares(key: str, shares: Mapping[str, Any]) -> None:
    """Raises ConfigError unless every share lies in [0, 1] and together they are at most 1."""
    for name, value in shares.items():
        if not (is_number(value) and 0 <= value <= 1):
            raise ConfigError(f"{key.format(name)} must lie between 0 and 1; got {value}.")
    total = sum(Fraction(Decimal(repr(float(v)))) for v in shares.values())
    if total > 1:
        raise ConfigError(
            f"{key.format('*')} must add up to 1 at most; got {float(total):g} "
            f"({', '.join(f'{k} {v:g}' for k, v in shares.items())})."
        )


def _check_bounds(key: str, bounds: Mapping[str, Bound]) -> None:
    for name, b in bounds.items():
        check_bound(f"{key}.{name}.bound", b.bound)
        if not (isinstance(b.cells, int) and 1 <= b.cells <= MAX_CELLS_PER_PERSON):
            raise ConfigError(f"{key}.{name}.cells must be an integer from 1 to {MAX_CELLS_PER_PERSON}; got {b.cells}.")
    check_shares(f"{key}.{{}}.share", {name: b.share for name, b in bounds.items()})


def with_clipped(bounds: Mapping[str, Bound], part: float) -> dict[str, Bound]:
    """The vectors, and for each the vector of its clipped mass; those share `part` as the vectors share the rest."""
    whole = sum(b.share for b in bounds.values())
    if not (part and whole):
        return dict(bounds)
    lost = {CLIPPED + n: Bound(CLIPPED_CAP * b.bound, part * b.share / whole) for n, b in bounds.items()}
    return {**bounds, **lost}


def _check_path(key: str, path: Any) -> None:
    if path not in PATHS:
        raise ConfigError(f"{key} must be one of {', '.join(PATHS)}; got {path!r}.")


def _check_clipped(key: str, bounds: Mapping[str, Bound], part: Any) -> None:
    check_shares(f"{key}.{{}}", {name: b.share for name, b in bounds.items()} | {"clipped_share": part})


@dataclass(frozen=True, slots=True)
class JourneyPolicy:
    """Bounds of the four vectors of the journeys table. `max_touches` is the longest journey that is kept.

    `clipped_share` is the part of the measure's share that buys the clipped mass of each vector (0: not released).
    `markov_order` is the number of channels in a state of the flow table; `path` and `lookback_days` say which touches
    count (privacy.paths).
    """

    max_touches: int = 6
    flow: Bound = Bound(6.0, 0.35)  # transitions per person and quarter
    position: Bound = Bound(4.0, 0.35)  # touches of converting journeys
    position_value: Bound = Bound(200.0, 0.15)  # currency
    sets: Bound = Bound(2.0, 0.15)  # journeys
    clipped_share: float = 0.0
    markov_order: int = 1
    path: str = "all"
    lookback_days: int = WHOLE_BLOCK

    def __post_init__(self) -> None:
        for name, most in (("max_touches", 50), ("markov_order", MAX_ORDER), ("lookback_days", MAX_LOOKBACK)):
            value = getattr(self, name)
            if not (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most):
                raise ConfigError(f"privacy.journeys.{name} must be an integer from 1 to {most}; got {value}.")
        _check_path("privacy.journeys.path", self.path)
        _check_bounds("privacy.journeys", self.tables())
        _check_clipped("privacy.journeys", self.tables(), self.clipped_share)

    def vectors(self) -> dict[str, Bound]:
        """Every vector of a release: the tables, then their clipped mass where it is bought."""
        return with_clipped(self.tables(), self.clipped_share)

    def declared(self) -> dict[str, Any]:
        """What a journey is, JSON-ready, for the release's id; a setting that changes nothing is not named."""
        out: dict[str, Any] = {"max_touches": self.max_touches}
        usual = {"markov_order": 1, "path": "all", "lookback_days": WHOLE_BLOCK}
        return out | {n: getattr(self, n) for n, plain in usual.items() if getattr(self, n) != plain}

    def tables(self) -> dict[str, Bound]:
        """The four tables in order."""
        return {
            "flow": self.flow,
            "position": self.position,
            "position_value": self.position_value,
            "sets": self.sets,
        }


@dataclass(frozen=True, slots=True)
class TrialPolicy:
    """The most that one person adds to an arm over the whole window of an experiment."""

    visits: float = 3.0
    conversions: float = 2.0
    revenue: float = 200.0  # currency

    def __post_init__(self) -> None:
        for name, value in self.bounds().items():
            check_bound(f"privacy.trials.{name}", value)

    def bounds(self) -> dict[str, float]:
        """Name -> bound, in the order in which components are built."""
        return {"visits": self.visits, "conversions": self.conversions, "revenue": self.revenue}


@dataclass(frozen=True, slots=True)
class MediaPolicy:
    """Bounds of the media table (L2, events per person and quarter) and the channels in it; none named means all.

    Only channels whose impressions or clicks exist nowhere as a public number are worth the budget.
    """

    channels: tuple[str, ...] = ()
    impressions: Bound = Bound(20.0, 0.5)
    clicks: Bound = Bound(5.0, 0.45)
    clipped_share: float = 0.05

    def __post_init__(self) -> None:
        if len(set(self.channels)) != len(self.channels):
            raise ConfigError(f"privacy.media.channels must be unique; got {', '.join(self.channels)}.")
        _check_bounds("privacy.media", self.tables())
        _check_clipped("privacy.media", self.tables(), self.clipped_share)

    def tables(self) -> dict[str, Bound]:
        """Metric -> bound and share, in the order of the table."""
        return {"impressions": self.impressions, "clicks": self.clicks}

    def vectors(self) -> dict[str, Bound]:
        """Every vector of a release: the metrics, then their clipped mass."""
        return with_clipped(self.tables(), self.clipped_share)


@dataclass(frozen=True, slots=True)
class LevelPolicy:
    """Regions (disjoint sets of geos), the part of the share of each level, and how many kpi bounds a person's whole
    quarter may hold. Metrics share a level as they share kpi.
    """

    regions: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    region: float = 0.3
    nation: float = 0.4
    quarter: float = 0.3
    quarter_bounds: float = 2.0

    def __post_init__(self) -> None:
        check_shares("privacy.levels.{}", {n: getattr(self, n) for n in ("region", "nation", "quarter")})
        if not (is_number(self.quarter_bounds) and 1 <= self.quarter_bounds <= 14):
            raise ConfigError(f"privacy.levels.quarter_bounds must lie between 1 and 14; got {self.quarter_bounds}.")
        seen: dict[str, str] = {}
        for region, geos in self.regions.items():
            for geo in geos:
                if geo in seen:
                    raise ConfigError(
                        f"privacy.levels.regions: {geo!r} is in {seen[geo]!r} and again in {region!r}; a person counts "
                        "in one region, so take it out of one of them."
                    )
                seen[geo] = region
            if not geos:
                raise ConfigError(f"privacy.levels.regions.{region} names no geo; name some, or remove it.")

    def vectors(self, kpi: Mapping[str, Bound]) -> dict[str, Bound]:
        """Every vector 'LEVEL:METRIC' of a release. Active people of a quarter are the cohort of the diagnostics."""
        out = {}
        for level in ("region", "nation") if self.regions else ("nation",):
            for metric, b in kpi.items():
                out[f"{level}:{metric}"] = Bound(b.bound, getattr(self, level) * b.share, b.cells)
        counted = {metric: b for metric, b in kpi.items() if metric != "active_users"}
        for metric, b in counted.items():
            out[f"quarter:{metric}"] = Bound(self.quarter_bounds * b.bound, self.quarter * b.share)
        return out


def _default_rules() -> Mapping[str, CreditRule]:
    return MappingProxyType(
        {"time_decay": TimeDecay(), "last_non_direct": LastNonDirect(), "u_shaped": PositionWeights()}
    )


@dataclass(frozen=True, slots=True)
class CreditPolicy:
    """Per-person credit rules, declared before a release. Every rule gets an equal part of each metric's share.

    A touch counts when it lies at most `lookback_days` local days before the conversion, `path` keeps it
    (privacy.paths) and it is among the last `max_touches` of its journey.
    """

    lookback_days: int = 30
    max_touches: int = 20
    conversions: Bound = Bound(2.0, 0.6)
    revenue: Bound = Bound(200.0, 0.35)  # currency
    clipped_share: float = 0.05
    rules: Mapping[str, CreditRule] = field(default_factory=_default_rules)
    path: str = "all"

    def __post_init__(self) -> None:
        _check_path("privacy.credit.path", self.path)
        for name, most in (("lookback_days", MAX_LOOKBACK), ("max_touches", MAX_CREDIT_TOUCHES)):
            value = getattr(self, name)
            if not (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most):
                raise ConfigError(f"privacy.credit.{name} must be an integer from 1 to {most}; got {value}.")
        _check_bounds("privacy.credit", self.metrics())
        _check_clipped("privacy.credit", self.metrics(), self.clipped_share)
        for name, rule in self.rules.items():
            if name in CREDIT_NAMES or not re.fullmatch(r"[a-z][a-z0-9_]{0,30}", name):
                raise ConfigError(
                    f"privacy.credit.rules.{name} needs another name: small letters, digits and _, at most 31, and not "
                    f"one of {', '.join(CREDIT_NAMES)}."
                )
            rule.check(f"privacy.credit.rules.{name}")

    def metrics(self) -> dict[str, Bound]:
        """Metric -> bound, and the part of the measure's share for all rules together."""
        return {"conversions": self.conversions, "revenue": self.revenue}

    def vectors(self) -> dict[str, Bound]:
        """Every vector 'RULE:METRIC' of a release, then their clipped mass."""
        each = {
            f"{rule}:{metric}": Bound(b.bound, b.share / len(self.rules))
            for rule in self.rules
            for metric, b in self.metrics().items()
        }
        return with_clipped(each, self.clipped_share)


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
        _check_bounds("privacy.kpi", self.kpi)
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


def slice_nano(nano: int, part: float) -> int:
    """floor(nano x part), in exact arithmetic on the number as it was written."""
    return int(nano * Fraction(Decimal(repr(float(part)))))


def _known(key: str, found: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    for name in found:
        if name not in allowed:
            raise ConfigError(f"{key}.{name} is unknown; allowed are {', '.join(allowed)}.")
