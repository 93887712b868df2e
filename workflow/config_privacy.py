"""[privacy] of plumb.toml: the grant, its split, and the bounds of every measure."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from privacy.bounds import Bound
from privacy.cadence import PACED, Cadence, Part
from privacy.corrections import CORRECTABLE, Correction
from privacy.measure_policies import (
    MAX_LOOKBACK,
    MAX_ORDER,
    CreditPolicy,
    JourneyPolicy,
    LevelPolicy,
    MediaPolicy,
    TrialPolicy,
)
from privacy.paths import PATHS
from privacy.policy import PrivacyPolicy
from privacy.rawzone import DEFAULT_DAYS
from privacy.rules import CreditRule, LastNonDirect, PositionWeights, TimeDecay
from workflow.config_base import Name, Section, Share

_POLICY = PrivacyPolicy()  # the defaults have one owner: the privacy room
RULE_PARAMETERS = {
    "time_decay": ("half_life_days",), "last_non_direct": ("direct",), "position": ("first", "middle", "last"),
}  # fmt: skip


class Shares(Section):
    """How a quarter's grant is split between the measures; the sum is at most 1."""

    kpi: Share = _POLICY.shares["kpi"]
    journeys: Share = _POLICY.shares["journeys"]
    trials: Share = _POLICY.shares["trials"]
    diagnostics: Share = _POLICY.shares["diagnostics"]
    reserve: Share = _POLICY.shares["reserve"]
    media: Share = 0.0
    credit: Share = 0.0
    levels: Share = 0.0

    @model_validator(mode="after")
    def _sum(self) -> Shares:
        total = sum(getattr(self, name) for name in Shares.model_fields)
        if total > 1 + 1e-9:
            raise ValueError(f"the shares add up to {total:.3g}; lower some so that they add up to 1 at most")
        return self


class Bounded(Section):
    """The most that one person can add in a quarter (metric units, L2), and the part of the measure's share."""

    bound: Annotated[float, Field(gt=0)]
    share: Share
    cells: Annotated[int, Field(ge=1, le=1024)] = 4  # read with privacy.bounding = "l0_linf" only

    def policy(self) -> Bound:
        """As the privacy room reads it."""
        return Bound(self.bound, self.share, self.cells)


def _bounded(value: Bound) -> Bounded:
    return Bounded(bound=value.bound, share=value.share)


class KpiBounds(Section):
    """Metrics of the kpi table."""

    conversions: Bounded = _bounded(_POLICY.kpi["conversions"])
    revenue: Bounded = _bounded(_POLICY.kpi["revenue"])
    active_users: Bounded = _bounded(_POLICY.kpi["active_users"])


class JourneyBounds(Section):
    """Vectors of the journeys table."""

    max_touches: Annotated[int, Field(ge=1, le=50)] = _POLICY.journeys.max_touches
    flow: Bounded = _bounded(_POLICY.journeys.flow)
    position: Bounded = _bounded(_POLICY.journeys.position)
    position_value: Bounded = _bounded(_POLICY.journeys.position_value)
    sets: Bounded = _bounded(_POLICY.journeys.sets)
    clipped_share: Share = _POLICY.journeys.clipped_share
    markov_order: Annotated[int, Field(ge=1, le=MAX_ORDER)] = _POLICY.journeys.markov_order
    path: Literal[PATHS] = _POLICY.journeys.path  # type: ignore[valid-type]
    lookback_days: Annotated[int, Field(ge=1, le=MAX_LOOKBACK)] = _POLICY.journeys.lookback_days


class TrialBounds(Section):
    """The most that one person adds to an arm over the whole window of a user test."""

    visits: Annotated[float, Field(gt=0)] = _POLICY.trials.visits
    conversions: Annotated[float, Field(gt=0)] = _POLICY.trials.conversions
    revenue: Annotated[float, Field(gt=0)] = _POLICY.trials.revenue


class PartOfQuarter(Section):
    """A run of weeks that is released together: how many, and its part of the measure's share."""

    weeks: Annotated[int, Field(ge=1)] | None = None
    share: Share


Paced = Literal["quarter", "week"] | list[PartOfQuarter]


class Pace(Section):
    """How each measure's share is spread over a quarter: one batch, week by week, or stated parts."""

    kpi: Paced = "quarter"
    journeys: Paced = "quarter"

    @field_validator("*", mode="before")
    @classmethod
    def _word_or_parts(cls, value: object) -> object:
        if value not in ("quarter", "week") and not isinstance(value, list):
            raise ValueError('write "quarter", "week" or parts such as [{ weeks = 9, share = 0.4 }, { share = 0.6 }]')
        return value

    def cadence(self, measure: str) -> Cadence:
        """As the privacy room reads it."""
        value: Paced = getattr(self, measure)
        return value if isinstance(value, str) else tuple(Part(p.weeks, p.share) for p in value)


class MediaBounds(Section):
    """Impressions and clicks of channels without a public number; read where privacy.shares.media > 0."""

    channels: list[Name] = []
    impressions: Bounded = _bounded(_POLICY.media.impressions)
    clicks: Bounded = _bounded(_POLICY.media.clicks)
    clipped_share: Share = _POLICY.media.clipped_share

    def policy(self) -> MediaPolicy:
        """As the privacy room reads it."""
        return MediaPolicy(tuple(self.channels), self.impressions.policy(), self.clicks.policy(), self.clipped_share)


class LevelBounds(Section):
    """Totals of regions, the nation and whole quarters; read where privacy.shares.levels > 0."""

    regions: dict[str, list[Name]] = {}
    region: Share = _POLICY.levels.region
    nation: Share = _POLICY.levels.nation
    quarter: Share = _POLICY.levels.quarter
    quarter_bounds: Annotated[float, Field(ge=1, le=14)] = _POLICY.levels.quarter_bounds

    def policy(self) -> LevelPolicy:
        """As the privacy room reads it."""
        regions = {name: tuple(geos) for name, geos in self.regions.items()}
        return LevelPolicy(regions, self.region, self.nation, self.quarter, self.quarter_bounds)


class CreditRuleTable(Section):
    """One rule of [privacy.credit.rules]: its kind, and the parameters of that kind only."""

    kind: Literal["time_decay", "last_non_direct", "position"]
    half_life_days: Annotated[float, Field(gt=0)] | None = None
    direct: list[Name] | None = None
    first: Share | None = None
    middle: Share | None = None
    last: Share | None = None

    @model_validator(mode="after")
    def _own_parameters(self) -> CreditRuleTable:
        own = RULE_PARAMETERS[self.kind]
        for name in CreditRuleTable.model_fields:
            if name != "kind" and name not in own and getattr(self, name) is not None:
                raise ValueError(f"{name} is no parameter of {self.kind!r}, which takes {', '.join(own)}; remove it")
        return self

    def rule(self) -> CreditRule:
        """As the privacy room reads it; what is not given keeps its default."""
        given = {n: getattr(self, n) for n in RULE_PARAMETERS[self.kind] if getattr(self, n) is not None}
        if self.kind == "time_decay":
            return TimeDecay(**given)
        if self.kind == "last_non_direct":
            return LastNonDirect(tuple(given.get("direct", ())))
        return PositionWeights(**given)


class CreditBounds(Section):
    """Per-person credit rules; read where privacy.shares.credit > 0. `rules` replaces the default rules."""

    lookback_days: Annotated[int, Field(ge=1, le=98)] = _POLICY.credit.lookback_days
    max_touches: Annotated[int, Field(ge=1, le=64)] = _POLICY.credit.max_touches
    conversions: Bounded = _bounded(_POLICY.credit.conversions)
    revenue: Bounded = _bounded(_POLICY.credit.revenue)
    clipped_share: Share = _POLICY.credit.clipped_share
    rules: dict[str, CreditRuleTable] = {}
    path: Literal[PATHS] = _POLICY.credit.path  # type: ignore[valid-type]

    def policy(self) -> CreditPolicy:
        """As the privacy room reads it."""
        rules = {name: table.rule() for name, table in self.rules.items()} or _POLICY.credit.rules
        return CreditPolicy(
            self.lookback_days,
            self.max_touches,
            self.conversions.policy(),
            self.revenue.policy(),
            self.clipped_share,
            rules,
            self.path,
        )


class CorrectionTable(Section):
    """One entry of [[privacy.corrections]]: a measure of a closed quarter that its reserve pays for."""

    quarter: date  # first day of the fiscal quarter
    measure: Literal[CORRECTABLE]  # type: ignore[valid-type]
    share: Annotated[float, Field(gt=0, le=1)] = 1.0  # of the quarter's reserve

    def policy(self) -> Correction:
        """As the privacy room reads it."""
        return Correction(self.quarter, self.measure, self.share)


class Privacy(Section):
    """The privacy boundary (DESIGN section 3); `policy()` is what the privacy room reads."""

    rho_per_user_quarter: Annotated[float, Field(gt=0, le=100)] = _POLICY.rho_per_user_quarter
    delta: Annotated[float, Field(gt=0, lt=0.01)] = _POLICY.delta
    min_cohort: Annotated[int, Field(ge=0)] = _POLICY.min_cohort
    retention_days: Annotated[int, Field(ge=1, le=3650)] = DEFAULT_DAYS  # of what the raw zone keeps
    close_lag_days: Annotated[int, Field(ge=0, le=365)] = 7  # a quarter closes so long after its last day
    shares: Shares = Shares()
    kpi: KpiBounds = KpiBounds()
    journeys: JourneyBounds = JourneyBounds()
    trials: TrialBounds = TrialBounds()
    cadence: Pace = Pace()
    media: MediaBounds = MediaBounds()
    credit: CreditBounds = CreditBounds()
    levels: LevelBounds = LevelBounds()
    bounding: Literal["l2", "l0_linf"] = "l2"
    identity_change: Literal["refuse", "accept"] = "refuse"  # a map that is not that of the quarter's other releases
    corrections: list[CorrectionTable] = []
    engine: Literal["duckdb", "spark"] = "duckdb"  # of the measures; both give the same numbers

    def policy(self) -> PrivacyPolicy:
        """The declared policy. Raises ConfigError for what only the room can judge (fixed-point ranges)."""
        journeys = self.journeys
        return PrivacyPolicy(
            rho_per_user_quarter=self.rho_per_user_quarter,
            delta=self.delta,
            min_cohort=self.min_cohort,
            shares=self.shares.model_dump(),
            kpi={name: getattr(self.kpi, name).policy() for name in KpiBounds.model_fields},
            journeys=JourneyPolicy(
                journeys.max_touches,
                journeys.flow.policy(),
                journeys.position.policy(),
                journeys.position_value.policy(),
                journeys.sets.policy(),
                journeys.clipped_share,
                journeys.markov_order,
                journeys.path,
                journeys.lookback_days,
            ),
            trials=TrialPolicy(self.trials.visits, self.trials.conversions, self.trials.revenue),
            cadence={measure: self.cadence.cadence(measure) for measure in PACED},
            media=self.media.policy(),
            credit=self.credit.policy(),
            levels=self.levels.policy(),
            bounding=self.bounding,
            corrections=tuple(c.policy() for c in self.corrections),
        )
