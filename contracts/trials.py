"""What a user-randomised test declares to be measured, before anything of it is released.

The declaration decides which totals are released (privacy/trials.py), at what price, and which reading of them is the
published one (lift/trials.py). It is hashed into the release's id and kept in its file, so that a reading cannot be
chosen after the figures were seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date, timedelta
from typing import Any

from contracts.errors import ConfigError

METRICS = ("visits", "conversions", "revenue")
ASSIGNED = "assignments"  # where exposure may come from instead of an event
EXPOSURES = ("impression", "click", "visit", ASSIGNED)
HEADLINES = ("difference_in_means", "cuped", "stratified", "stratified_cuped")
COVARIATE, EXPOSED, PRE = "covariate", "exposed", "pre_"
MAX_STRATA, MAX_PRE_DAYS = 50, 730
LOOKS_SHARE = 2  # the looks together get one part in LOOKS_SHARE of the test's grant, the final reading the rest


@dataclass(frozen=True, slots=True)
class TrialDesign:
    """Declaration of one test; the default releases n, and sums and squares of the three metrics.

    Raises ConfigError, naming the key of [experiments.NAME], for what does not fit together.
    """

    metrics: tuple[str, ...] = METRICS
    pre_days: int = 0  # days before the start over which the same metrics are summed, for CUPED
    covariate: float = 0.0  # bound of the assignments' column `covariate`, in its own units; 0: not read
    covariate_since: date | None = None  # first day of which that column knows anything
    exposed: str = ""  # what says that a person was reached: one of EXPOSURES, '' for nothing
    ghost: bool = False  # exposure is logged alike in every arm (ghost ads, PSA)
    ratio: tuple[str, ...] = ()  # (numerator, denominator)
    strata: tuple[str, ...] = ()  # values of the assignments' column `stratum`
    entry: bool = False  # the assignments' column `entered` says from which day on a person counts
    looks: int = 0  # weekly looks while the test runs
    headline: str = ""  # the published reading, one of HEADLINES; '' for the most that the declaration allows

    def __post_init__(self) -> None:
        if not self.metrics or len(set(self.metrics)) != len(self.metrics) or set(self.metrics) - set(METRICS):
            raise ConfigError(f"metrics must name some of {', '.join(METRICS)}, each once; got {list(self.metrics)}.")
        if not 0 <= self.pre_days <= MAX_PRE_DAYS:
            raise ConfigError(f"pre_days must lie between 0 and {MAX_PRE_DAYS}; got {self.pre_days}.")
        if not 0 <= self.covariate < float("inf"):
            raise ConfigError(f"the bound of covariate must be a finite number above 0; got {self.covariate}.")
        if bool(self.covariate) != (self.covariate_since is not None):
            raise ConfigError("covariate needs a bound and the first day that its values know of (since).")
        if self.covariate and self.pre_days:
            raise ConfigError("declare pre_days or covariate, not both: one pre-period value is taken out.")
        self._check_exposure_and_ratio()
        if self.strata and (len(set(self.strata)) != len(self.strata) or not 2 <= len(self.strata) <= MAX_STRATA):
            raise ConfigError(f"strata must be 2 to {MAX_STRATA} different values; got {list(self.strata)}.")
        if not 0 <= self.looks <= 104:
            raise ConfigError(f"looks must be a number of weeks from 0 to 104; got {self.looks}.")
        if self.headline and self.headline not in self.readings():
            raise ConfigError(f"headline must be one of {', '.join(self.readings())} here; got {self.headline!r}.")

    def _check_exposure_and_ratio(self) -> None:
        if self.exposed and self.exposed not in EXPOSURES:
            raise ConfigError(f"exposed must be one of {', '.join(EXPOSURES)}; got {self.exposed!r}.")
        if self.ghost and not self.exposed:
            raise ConfigError("ghost = true needs exposed, which says where the would-be exposure is logged.")
        if self.ratio and (len(set(self.ratio)) != 2 or set(self.ratio) - set(self.metrics)):
            raise ConfigError(
                f"ratio must be two different metrics that are released, [numerator, denominator] of "
                f"{', '.join(self.metrics)}; got {list(self.ratio)}."
            )

    @property
    def before(self) -> bool:
        """Whether a value from before the test is released for every metric."""
        return bool(self.pre_days or self.covariate)

    def before_of(self, metric: str) -> str:
        """The component that holds the value from before the test."""
        return COVARIATE if self.covariate else PRE + metric

    def readings(self) -> tuple[str, ...]:
        """Readings of the incremental outcome that this declaration allows, the plainest first."""
        known = {"difference_in_means": True, "cuped": self.before, "stratified": bool(self.strata),
                 "stratified_cuped": bool(self.strata) and self.before}  # fmt: skip
        return tuple(name for name in HEADLINES if known[name])

    @property
    def published(self) -> str:
        """The reading that goes to the model and the reconciliation."""
        return self.headline or self.readings()[-1]

    def cells(self) -> tuple[str, ...]:
        """Strata, or one without a name."""
        return self.strata or ("",)

    def first_day(self, start: date) -> date:
        """First day of which anything is read, for a test that starts on `start`."""
        return min(start - timedelta(days=self.pre_days), self.covariate_since or start)

    def components(self) -> tuple[tuple[str, ...], ...]:
        """Factors of every total of an arm (and stratum), () being n: only what the declared readings need."""
        out: list[tuple[str, ...]] = [()]
        for m in self.metrics:
            out += [(m,), (m, m)]
        if {"conversions", "revenue"} <= set(self.metrics):
            out.append(("conversions", "revenue"))
        for m in self.metrics if self.before else ():
            x = self.before_of(m)
            out += [(x,), (x, x), (m, x)]
        if self.ratio:
            out.append(self.ratio)
        if self.exposed:
            out.append((EXPOSED,))
        for m in self.metrics if self.exposed else ():
            out += [(m, EXPOSED), (m, m, EXPOSED)] if self.ghost else [(m, EXPOSED)]
        return tuple(dict.fromkeys(tuple(sorted(c)) for c in out))

    def look_components(self) -> tuple[tuple[str, ...], ...]:
        """The same for a weekly look: n, and sums and squares of the metrics."""
        return ((), *(c for m in self.metrics for c in ((m,), (m, m))))

    def declared(self) -> dict[str, Any]:
        """What differs from the default, JSON-ready."""
        plain = TrialDesign()
        changed = {f.name: getattr(self, f.name) for f in fields(self)}
        out = {k: v for k, v in changed.items() if v != getattr(plain, k)}
        return {k: v.isoformat() if isinstance(v, date) else list(v) if isinstance(v, tuple) else v
                for k, v in out.items()}  # fmt: skip


def design_of(declared: Mapping[str, Any] | None) -> TrialDesign:
    """Inverse of `TrialDesign.declared`, as a release's file holds it."""
    given = dict(declared or {})
    for name in ("metrics", "ratio", "strata"):
        if name in given:
            given[name] = tuple(given[name])
    if given.get("covariate_since"):
        given["covariate_since"] = date.fromisoformat(given["covariate_since"])
    return TrialDesign(**given)


def component_name(factors: tuple[str, ...]) -> str:
    """'n', a metric, or a product such as 'conversions*revenue'."""
    return "*".join(factors) or "n"
