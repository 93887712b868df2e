"""The finished numbers of one test's page: `lift` fills them in, `app` draws them, nothing is computed in between.

Parts that a kind of test does not have are empty tuples or NaN, and the page says so: a user test has no history, path
or placebos; a geo test has no arms; a test without a sealed design has no plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal

from contracts.errors import ContractError
from contracts.evidence import LiftEstimate


@dataclass(frozen=True, slots=True)
class PlanLine:
    """One figure of the design beside what came."""

    name: str  # 'smallest detectable effect', 'periods', ...
    planned: float
    came: float
    unit: str


@dataclass(frozen=True, slots=True)
class PathPoint:
    """One period of the treated side. `effect` and `sd` are NaN before the test."""

    day: date
    observed: float  # metric units, NaN where missing
    expected: float  # without the test
    effect: float
    sd: float


@dataclass(frozen=True, slots=True)
class ArmLine:
    """One arm of a user test, as released."""

    name: str
    people: float
    people_sd: float  # of the released noise
    means: tuple[tuple[str, float], ...]  # metric -> per person


@dataclass(frozen=True, slots=True)
class CheckLine:
    """A check of the test itself."""

    name: str
    verdict: Literal["pass", "warn", "fail"]
    text: str
    value: float | None = None  # the figure behind the verdict
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class LookLine:
    """One look at a running test; its interval holds at all looks together."""

    look: int
    day: date  # last day that it counts
    arm: str
    metric: str
    value: float
    lower: float  # 95 %, always valid
    upper: float
    p_value: float  # the least so far: may be stopped on
    noise_share: float


@dataclass(frozen=True, slots=True)
class LiftReadout:
    """One test on one page. The first estimate is the headline."""

    name: str
    kind: Literal["geo", "user"]
    channel: str
    currency: str
    estimates: tuple[LiftEstimate, ...]
    inference: str  # what p-value and interval rest on
    relative: float  # headline over what would have been without the test; NaN when unknown
    iroas: tuple[float, float, float]  # of the headline: value, p05, p95; NaN where there is none
    plan: tuple[PlanLine, ...]
    history: tuple[PathPoint, ...]
    path: tuple[PathPoint, ...]
    placebos: tuple[float, ...]  # the reference distribution of `statistic`
    statistic: float
    arms: tuple[ArmLine, ...]
    checks: tuple[CheckLine, ...]
    changes: tuple[str, ...]  # what would change the conclusion
    library: tuple[str, ...] = ()  # what all tests together say
    looks: tuple[LookLine, ...] = ()  # of a test that was looked at while it ran

    def __post_init__(self) -> None:
        if not self.estimates:
            raise ContractError(f"the readout of {self.name!r} needs at least one estimate.")

    @property
    def headline(self) -> LiftEstimate:
        """The estimate that the page leads with."""
        return self.estimates[0]
