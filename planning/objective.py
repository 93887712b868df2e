"""What is maximised: a figure of the draws of a plan's worth, and the draws' shares in its slope.

    worth[d] = value per KPI unit · outcome[d] − price of money · spend   (minus the same of a reference plan)

Every figure is a sum over draws, so its slope is sum_d q_d · slope of draw d:

| kind | figure | q |
|---|---|---|
| mean | sum w y | w |
| quantile | Harrell and Davis (1982): Beta-weighted order statistics, as of up to 60 draws | their weights |
| cvar | mean of the worst `level` of the draws (Rockafellar and Uryasev, 2000) | w / level there |
| probability | share of draws at or over the target, smoothed by a normal kernel | kernel density |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import beta, norm

from contracts.checks import non_negative, share
from contracts.errors import ContractError

KINDS = ("mean", "quantile", "cvar", "probability")
UNITS = ("kpi", "revenue", "margin")
SMOOTH = (
    60.0  # a quantile is estimated as if from so many draws: with more its slope rests on a few and walks get stuck
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """`level` is the tail of quantile and cvar: 0.1 is the P10. `hurdle` is the worth that a unit of money must bring
    before it is spent (hurdle mROAS for revenue, 1 / CPA for the KPI); it matters where the total is free."""

    kind: str = "mean"
    unit: str = "kpi"
    level: float = 0.1
    caution: float = 1.0  # share of the figure in a mix with the mean, [0, 1]: the path of the efficient frontier
    target: float | None = None
    hurdle: float = 0.0
    tail: bool = True  # counts what comes after the horizon
    gain: bool = False  # over the reference plan instead of over nothing

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ContractError(f"objective must be one of {', '.join(KINDS)}; got {self.kind!r}.")
        if self.unit not in UNITS:
            raise ContractError(f"objective unit must be one of {', '.join(UNITS)}; got {self.unit!r}.")
        if not 0 < self.level < 1:
            raise ContractError(f"objective level must lie between 0 and 1; got {self.level}.")
        if self.kind == "probability" and not (self.target is not None and np.isfinite(self.target)):
            raise ContractError(f"the probability of reaching a target needs the target; got {self.target}.")
        non_negative(hurdle=self.hurdle)
        share(caution=self.caution)

    @property
    def cost(self) -> float:
        """Worth that a unit of money takes away."""
        return self.hurdle + (1.0 if self.unit == "margin" else 0.0)


def score(objective: Objective, draws: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """Figure of draws (D,) under weights (D,), sum 1, and each draw's share q (D,) in its slope."""
    mean = float(weights @ draws)
    if objective.kind == "mean":
        return mean, weights
    figure, q = _figure(objective, draws, weights)
    mixed = objective.caution * q + (1 - objective.caution) * weights
    return objective.caution * figure + (1 - objective.caution) * mean, mixed


def _figure(objective: Objective, draws: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    if objective.kind == "probability":
        assert objective.target is not None
        return _probability(draws, weights, objective.target)
    order = np.argsort(draws, kind="stable")
    upper = np.minimum(np.cumsum(weights[order]), 1.0)
    lower = np.concatenate([[0.0], upper[:-1]])
    if objective.kind == "cvar":
        mass = np.diff(np.minimum(np.append(lower, upper[-1]), objective.level)) / objective.level
    else:
        size = min(1.0 / float(weights @ weights), SMOOTH)
        shape = beta((size + 1) * objective.level, (size + 1) * (1 - objective.level))
        mass = shape.cdf(upper) - shape.cdf(lower)
    q = np.zeros_like(weights)
    q[order] = mass
    return float(q @ draws), q


def _probability(draws: np.ndarray, weights: np.ndarray, target: float) -> tuple[float, np.ndarray]:
    """Silverman's width. Far under the target the figure is flat; the solver then also starts from the best mean."""
    mean = float(weights @ draws)
    sd = float(np.sqrt(weights @ (draws - mean) ** 2))
    width = max(0.9 * sd * float(weights @ weights) ** 0.2, 1e-9 * max(abs(mean), 1.0))
    z = (draws - target) / width
    return float(weights @ norm.cdf(z)), weights * norm.pdf(z) / width
