"""Carry-over families. Each turns at most two parameters per channel into weights over lags that sum to 1.

Every family fills the same two slots of `Params`, so that channels of several families sit in one array:

| slot | range | prior |
|---|---|---|
| retention | (0, 1) | Beta(a, b) |
| delay | >= 0 | HalfNormal(scale) |

`weights(retention, delay, lags, xp)` takes arrays (C,) and gives (lags, C); `xp` is NumPy, jax.numpy or
pytensor.tensor. A slot that a family does not use is not sampled.

| family | weight at lag l, before the sum is made 1 | retention | delay |
|---|---|---|---|
| NegativeBinomial (default) | prod_{j<=l} alpha (j + delta) / j | alpha | delta; 0 is geometric |
| Geometric | alpha^l | alpha | |
| Delayed | alpha^((l − theta)²) | alpha | theta: lag of the peak, periods |
| Binomial | (1 − l / lags)^(1/alpha − 1) | alpha | |
| WeibullPdf | Weibull density at l + 1 | scale as a share of the longest lag | shape − 1 |
| WeibullCdf | prod_{1<=j<=l} exp(−(j / scale)^shape) | scale as a share of the longest lag | shape |
| NoCarryOver | 1 at lag 0, else 0 | | |
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from contracts.checks import positive


@dataclass(frozen=True, slots=True)
class Adstock(abc.ABC):
    """Carry-over of one channel: a family, and the prior of its parameters."""

    retention_a: float = 2.0
    retention_b: float = 3.0
    delay: float = 1.5  # sd of the half-normal prior

    kind: ClassVar[str]
    uses: ClassVar[tuple[str, ...]]  # slots that are sampled

    def __post_init__(self) -> None:
        positive(retention_a=self.retention_a, retention_b=self.retention_b, delay=self.delay)

    @staticmethod
    @abc.abstractmethod
    def raw(retention: Any, delay: Any, lags: int, xp: Any) -> Any:
        """Weights (lags, C) before they are made to sum to 1; the weight of at least one lag is positive."""

    @classmethod
    def weights(cls, retention: Any, delay: Any, lags: int, xp: Any = np) -> Any:
        """Weights (lags, C) that sum to 1 over the lags."""
        raw = cls.raw(retention, delay, lags, xp)
        return raw / raw.sum(axis=0, keepdims=True)


@final
@dataclass(frozen=True, slots=True)
class NegativeBinomial(Adstock):
    """Koyck (1954); Solow (1960), "On a family of lag distributions". The geometric one at delay 0."""

    kind = "negative_binomial"
    uses = ("retention", "delay")

    @staticmethod
    def raw(retention: Any, delay: Any, lags: int, xp: Any) -> Any:
        """w_l / w_{l−1} = alpha (l + delta) / l."""
        lag = np.arange(1, lags)[:, None]
        steps = retention[None, :] * (1.0 + delay[None, :] / lag)
        return _products(retention, steps, xp)


@final
@dataclass(frozen=True, slots=True)
class Geometric(Adstock):
    """Koyck (1954), "Distributed lags and investment analysis"."""

    kind = "geometric"
    uses = ("retention",)

    @staticmethod
    def raw(retention: Any, delay: Any, lags: int, xp: Any) -> Any:
        """w_l = alpha^l."""
        return retention[None, :] ** np.arange(lags)[:, None]


@final
@dataclass(frozen=True, slots=True)
class Delayed(Adstock):
    """Jin, Wang, Sun, Chan, Koehler (2017), "Bayesian methods for media mix modeling with carryover and shape"."""

    kind = "delayed"
    uses = ("retention", "delay")

    @staticmethod
    def raw(retention: Any, delay: Any, lags: int, xp: Any) -> Any:
        """w_l = alpha^((l − theta)²), divided by the weight at the lag nearest the peak so that no sum is 0."""
        distance = (np.arange(lags)[:, None] - delay[None, :]) ** 2
        return xp.exp(xp.log(retention)[None, :] * (distance - distance.min(axis=0, keepdims=True)))


@final
@dataclass(frozen=True, slots=True)
class Binomial(Adstock):
    """Meridian's binomial decay (google/meridian, adstock_hill.py): reaches 0 at the longest lag."""

    kind = "binomial"
    uses = ("retention",)

    @staticmethod
    def raw(retention: Any, delay: Any, lags: int, xp: Any) -> Any:
        """w_l = (1 − l / lags)^(1 / alpha − 1)."""
        return xp.exp((1.0 / retention[None, :] - 1.0) * np.log1p(-np.arange(lags) / lags)[:, None])


@final
@dataclass(frozen=True, slots=True)
class WeibullPdf(Adstock):
    """Robyn's Weibull PDF adstock (facebookexperimental/Robyn): may peak after the period of the exposure."""

    kind = "weibull_pdf"
    uses = ("retention", "delay")

    @staticmethod
    def raw(retention: Any, delay: Any, lags: int, xp: Any) -> Any:
        """w_l = z^delay exp(−z^(1 + delay)), z = (l + 1) / (retention lags); the shape is 1 + delay."""
        log_z = np.log(np.arange(1, lags + 1))[:, None] - xp.log(retention * lags)[None, :]
        log = delay[None, :] * log_z - xp.exp((1.0 + delay[None, :]) * log_z)
        return xp.exp(log - log.max(axis=0, keepdims=True))


@final
@dataclass(frozen=True, slots=True)
class WeibullCdf(Adstock):
    """Robyn's Weibull CDF adstock: the share that stays from one period to the next falls with the Weibull tail."""

    kind = "weibull_cdf"
    uses = ("retention", "delay")

    @staticmethod
    def raw(retention: Any, delay: Any, lags: int, xp: Any) -> Any:
        """w_l = prod_{j=1..l} exp(−(j / (retention lags))^delay)."""
        log_z = np.log(np.arange(1, lags))[:, None] - xp.log(retention * lags)[None, :]
        return _products(retention, xp.exp(-xp.exp(delay[None, :] * log_z)), xp)


@final
@dataclass(frozen=True, slots=True)
class NoCarryOver(Adstock):
    """All of the effect falls into the period of the exposure."""

    kind = "none"
    uses = ()

    @staticmethod
    def raw(retention: Any, delay: Any, lags: int, xp: Any) -> Any:
        """w_0 = 1."""
        return (np.arange(lags) == 0)[:, None] * xp.ones_like(retention)[None, :]


def _products(like: Any, steps: Any, xp: Any) -> Any:
    """1 and the running products of the steps (lags − 1, C); `like` has shape (C,)."""
    return xp.cumprod(xp.concatenate([xp.ones_like(like)[None, :], steps], axis=0), axis=0)


ADSTOCKS: dict[str, type[Adstock]] = {
    f.kind: f for f in (NegativeBinomial, Geometric, Delayed, Binomial, WeibullPdf, WeibullCdf, NoCarryOver)
}
