"""What the pool reads, checked.

| on paper | here | dims | unit |
|---|---|---|---|
| I[c,t] | incremental outcome of a channel in a period | channel, period | KPI units |
| m | draws of the channel totals of the model | draw, channel | KPI units over all periods |
| p[c,t] | log share of a period in the model's total, and its sd | channel, period | log |
| y[k], se[k] | lift estimate and its standard error | lift | KPI units, signed |
| A[j,c,t], s[j,c,t] | credit and the sd of its released noise | model, channel, period | KPI units |
| S[c,t] | spend | channel, period | currency |
| z[p,c,t] | match rate, consent rate, tracking incidents | covariate, channel, period | by covariate, centred |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date

import numpy as np

from contracts.checks import non_negative
from contracts.errors import ContractError
from contracts.evidence import Credit, LiftLibrary, refuse_double_use
from contracts.panel import UNATTRIBUTED

MIN_DRAWS = 100  # fewer draws cannot carry 5 % and 95 % quantiles
CLAIMS = "claims"  # source of what platforms say of themselves
JOURNEYS = "journeys"  # source of every rule of the released journeys

Period = tuple[date, date]  # first and last day, both included


@dataclass(frozen=True, slots=True)
class MmmEvidence:
    """Joint posterior draws of the model. Its evidence ids say whether it has seen a lift test."""

    channels: tuple[str, ...]
    totals: np.ndarray  # (S, C), KPI units over all periods, > 0
    lift_draws: np.ndarray  # (S, K), that model's prediction of each lift, signed, KPI units; NaN where it has none
    evidence_ids: tuple[str, ...]
    profile: np.ndarray | None = None  # (C, T) mean log share of a period in the channel's total; NaN where unknown
    profile_sd: np.ndarray | None = None  # (C, T), log
    unseen_draws: np.ndarray | None = None  # (S, K), each lift predicted without that lift; NaN where it cannot be

    def __post_init__(self) -> None:
        s, c = self.totals.shape
        if c != len(self.channels) or self.lift_draws.shape[0] != s:
            raise ContractError(
                f"MMM evidence needs totals (draws, {len(self.channels)} channels) and as many rows of lift_draws; "
                f"got {self.totals.shape} and {self.lift_draws.shape}."
            )
        if s < MIN_DRAWS:
            raise ContractError(f"MMM evidence needs at least {MIN_DRAWS} draws; got {s}.")
        for name, column in zip(self.channels, self.totals.T, strict=True):
            if not (np.isfinite(column).all() and (column > 0).all()):
                raise ContractError(
                    f"MMM totals of channel {name!r} must be finite and > 0 in every draw; smallest {column.min()}. "
                    "Leave a channel without spend out of the pool."
                )
        if (self.profile is None) != (self.profile_sd is None):
            raise ContractError("MMM evidence needs profile and profile_sd together.")


@dataclass(frozen=True, slots=True)
class LiftScope:
    """What a test touched. NaN where unknown; then the pool widens or refuses, it never guesses a favourable value."""

    coverage: float = np.nan  # part of the channel's spend in the window that lay in the tested scope, 0 to 1
    ratio: float = 0.0  # spend on the tested side / spend as usual: 0 for a test that went dark or held out


@dataclass(frozen=True, slots=True)
class Covariate:
    """Something that moves credit and not cause: z[c, t], 0 where all is as usual."""

    name: str
    values: np.ndarray  # (C, T)
    sources: tuple[str, ...] = (JOURNEYS, CLAIMS)  # whose credit it moves


@dataclass(frozen=True, slots=True)
class PoolInputs:
    """All evidence about one stretch of time, cut into periods."""

    mmm: MmmEvidence | None
    lifts: LiftLibrary  # KPI metric only
    credits: tuple[Credit, ...]  # one metric
    kpi: np.ndarray  # (T,), KPI units
    kpi_sd: np.ndarray  # (T,)
    channels: tuple[str, ...]
    families: Mapping[str, str]
    periods: tuple[Period, ...]
    spend: np.ndarray | None = None  # (C, T) currency
    scopes: tuple[LiftScope, ...] = ()  # one per lift, or none
    covariates: tuple[Covariate, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)  # credit model -> source of its counts; JOURNEYS if absent
    lifts_pooled: bool = True  # False: the tests only check the answer (the model has seen them, or as you wish)

    def __post_init__(self) -> None:
        self._check_shapes()
        if not self.channels or len(set(self.channels)) != len(self.channels):
            raise ContractError(f"channels must be unique and not empty; got {self.channels}.")
        known = set(self.channels)
        _known_channels(known, "the model", self.mmm.channels if self.mmm else ())
        _known_channels(known, "a lift", (e.channel for e in self.lifts.estimates))
        _known_channels(known | {UNATTRIBUTED}, "a credit", (c.channel for c in self.credits))
        if missing := sorted(known - set(self.families)):
            raise ContractError(f"channel {missing[0]!r} has no family; give every channel one in plumb.toml.")
        if len({c.metric for c in self.credits}) > 1:
            raise ContractError("credits must be of one metric, the KPI's; got conversions and revenue together.")
        if len({e.metric for e in self.lifts.estimates}) > 1:
            raise ContractError("lifts must be of one metric, the KPI's; filter them before pooling.")
        if self.mmm is None and not self.lifts.estimates and not self.credits:
            raise ContractError("nothing to reconcile: no model, no lift and no credit was given.")
        self._check_double_use()

    def _check_shapes(self) -> None:
        c, t, k = len(self.channels), len(self.periods), len(self.lifts.estimates)
        if t == 0:
            raise ContractError("the pool needs at least one period.")
        for before, after in zip(self.periods, self.periods[1:], strict=False):
            if not before[1] < after[0]:
                raise ContractError(
                    f"periods must follow each other; one ends on {before[1]}, the next starts {after[0]}."
                )
        for first, last in self.periods:
            if last < first:
                raise ContractError(f"a period ends ({last}) before it starts ({first}).")
        wanted = {"kpi": (t,), "kpi_sd": (t,), "spend": (c, t)}
        for name, shape in wanted.items():
            value = getattr(self, name)
            if value is not None and value.shape != shape:
                raise ContractError(f"{name} must have shape {shape}; got {value.shape}.")
        if not (np.isfinite(self.kpi).all() and self.kpi.sum() > 0):
            raise ContractError(f"the KPI of the periods must be finite and its sum > 0; got {self.kpi}.")
        non_negative(**{f"kpi_sd of period {i}": float(v) for i, v in enumerate(self.kpi_sd)})
        if self.scopes and len(self.scopes) != k:
            raise ContractError(f"scopes must be one per lift ({k}) or none; got {len(self.scopes)}.")
        if self.mmm is not None and self.mmm.lift_draws.shape[1] != k:
            raise ContractError(
                f"MMM lift_draws must have one column per lift ({k}); got {self.mmm.lift_draws.shape[1]}."
            )
        if (
            self.mmm is not None
            and self.mmm.profile is not None
            and self.mmm.profile.shape != (len(self.mmm.channels), t)
        ):
            raise ContractError(
                f"MMM profile must have shape {(len(self.mmm.channels), t)}; got {self.mmm.profile.shape}."
            )
        for covariate in self.covariates:
            if covariate.values.shape != (c, t):
                raise ContractError(
                    f"covariate {covariate.name!r} must have shape {(c, t)}; got {covariate.values.shape}."
                )

    def _check_double_use(self) -> None:
        if self.lifts_pooled:
            lift_ids = [i for e in self.lifts.estimates for i in e.evidence_ids]
            refuse_double_use((("the MMM", self.mmm.evidence_ids if self.mmm else ()), ("the lift tests", lift_ids)))
        names = [(e.experiment, e.arm, e.metric) for e in self.lifts.estimates]
        if len(set(names)) != len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise ContractError(
                f"experiment {twice[0]!r} is in the lift library twice (two estimators of one test); pool one of them."
            )


def _known_channels(known: set[str], source: str, named: Iterable[str]) -> None:
    for name in named:
        if name not in known:
            raise ContractError(f"{source} names channel {name!r}, which is not pooled ({', '.join(sorted(known))}).")
