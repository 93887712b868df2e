"""Declared bounds of every measure but kpi: journeys, trials, media, levels and credit. ConfigError names the key.

Fixed before any row is read; sizing in docs/privacy.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from contracts.errors import ConfigError
from privacy.bounds import Bound, check_bound, check_bounds, check_clipped, check_shares, with_clipped
from privacy.paths import PATHS, WHOLE_BLOCK
from privacy.rules import CreditRule, LastNonDirect, PositionWeights, TimeDecay, is_number

MAX_CREDIT_TOUCHES = 64  # keeps value x weights below 2^52, see privacy.credit
MAX_LOOKBACK = WHOLE_BLOCK
CREDIT_NAMES = (  # taken by other models
    "last_touch", "first_touch", "linear", "position_based", "markov", "shapley", "shapley_rate", "platform_claimed",
    "unattributed",
)  # fmt: skip
MAX_ORDER = 4


def _check_path(key: str, path: Any) -> None:
    if path not in PATHS:
        raise ConfigError(f"{key} must be one of {', '.join(PATHS)}; got {path!r}.")


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
        check_bounds("privacy.journeys", self.tables())
        check_clipped("privacy.journeys", self.tables(), self.clipped_share)

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
        check_bounds("privacy.media", self.tables())
        check_clipped("privacy.media", self.tables(), self.clipped_share)

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
        check_bounds("privacy.credit", self.metrics())
        check_clipped("privacy.credit", self.metrics(), self.clipped_share)
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
