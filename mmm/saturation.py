"""Saturation families: the share of the effect at a stock, and how it answers to one per cent more.

Every family fills the same two slots of `Params`. Each is 0 at stock 0 and rises; the size of the effect is a
parameter of its own, so that a curve may have any height.

| family | h(a) | half_saturation k | slope n |
|---|---|---|---|
| Hill (default) | a^n / (a^n + k^n) | stock at half of the full effect | steepness; an S above 1 |
| MichaelisMenten | a / (a + k) | stock at half of the full effect | |
| Logistic, Tanh | tanh(ln 3 / 2 · a / k) = (1 − e^(−r a)) / (1 + e^(−r a)), r = ln 3 / k | as above | |
| Exponential | 1 − 2^(−a / k) | as above | |
| Log | log(1 + a / k) | stock at which one more unit returns half of the first | |
| Root | a^n | | exponent |
| NoSaturation | a | | |

The logistic curve and the hyperbolic tangent are one curve under two names.
`xp` is NumPy, jax.numpy or pytensor.tensor. A slot that a family does not use is not sampled.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from contracts.checks import positive

LN2, LN3 = float(np.log(2.0)), float(np.log(3.0))


@dataclass(frozen=True, slots=True)
class Saturation(abc.ABC):
    """Curve of one channel: a family, and the priors of its parameters (log-normal: median and log-scale sd)."""

    half_median: float = 1.5  # in units of the channel's mean positive exposure
    half_scale: float = 0.6
    slope_median: float = 1.1
    slope_scale: float = 0.25

    kind: ClassVar[str]
    uses: ClassVar[tuple[str, ...]]  # slots that are sampled

    def __post_init__(self) -> None:
        positive(half_median=self.half_median, half_scale=self.half_scale)
        positive(slope_median=self.slope_median, slope_scale=self.slope_scale)

    @staticmethod
    @abc.abstractmethod
    def curve(stock: Any, half: Any, slope: Any, xp: Any) -> Any:
        """h at a stock > 0; broadcasts."""

    @staticmethod
    @abc.abstractmethod
    def bend(stock: Any, half: Any, slope: Any, xp: Any) -> Any:
        """d log h / d log stock at a stock > 0; broadcasts."""

    @classmethod
    def share(cls, stock: Any, half: Any, slope: Any, xp: Any = np) -> Any:
        """h(stock), 0 at 0. A zero stock is masked before the power, so that gradients by the slope stay finite."""
        return cls._masked(cls.curve, stock, half, slope, xp)

    @classmethod
    def elasticity(cls, stock: Any, half: Any, slope: Any, xp: Any = np) -> Any:
        """d log h / d log stock, 0 at stock 0."""
        return cls._masked(cls.bend, stock, half, slope, xp)

    @staticmethod
    def _masked(of: Any, stock: Any, half: Any, slope: Any, xp: Any) -> Any:
        positive_stock = stock > 0
        return xp.where(positive_stock, of(xp.where(positive_stock, stock, 1.0), half, slope, xp), 0.0)


@final
@dataclass(frozen=True, slots=True)
class Hill(Saturation):
    """Jin, Wang, Sun, Chan, Koehler (2017), "Bayesian methods for media mix modeling with carryover and shape"."""

    kind = "hill"
    uses = ("half_saturation", "slope")

    @staticmethod
    def curve(stock: Any, half: Any, slope: Any, xp: Any) -> Any:
        """a^n / (a^n + k^n), written as a logistic curve of log a, without overflow."""
        return 0.5 + 0.5 * xp.tanh(0.5 * slope * (xp.log(stock) - xp.log(half)))

    @staticmethod
    def bend(stock: Any, half: Any, slope: Any, xp: Any) -> Any:
        """n (1 − h)."""
        return slope * (0.5 - 0.5 * xp.tanh(0.5 * slope * (xp.log(stock) - xp.log(half))))


@final
@dataclass(frozen=True, slots=True)
class MichaelisMenten(Saturation):
    """Michaelis and Menten (1913), "Die Kinetik der Invertinwirkung": Hill with slope 1."""

    kind = "michaelis_menten"
    uses = ("half_saturation",)

    @staticmethod
    def curve(stock: Any, half: Any, slope: Any, xp: Any) -> Any:
        """a / (a + k)."""
        return stock / (stock + half)

    @staticmethod
    def bend(stock: Any, half: Any, slope: Any, xp: Any) -> Any:
        """k / (a + k)."""
        return half / (stock + half)


@dataclass(frozen=True, slots=True)
class Logistic(Saturation):
    """The logistic curve from 0 (PyMC-Marketing's LogisticSaturation), by its half-saturation."""

    kind = "logistic"
    uses = ("half_saturation",)

    @staticmethod
    def curve(stock: Any, half: Any, slope: Any, xp: Any) -> Any:
        """tanh(ln 3 / 2 · a / k)."""
        return xp.tanh(0.5 * LN3 * stock / half)

    @staticmethod
    def bend(stock: Any, half: Any, slope: Any, xp: Any) -> Any:
        """r a / sinh(r a), written with e^(−r a), which cannot overflow."""
        u = LN3 * stock / half
        return 2.0 * u * xp.exp(-u) / -xp.expm1(-2.0 * u)


@final
@dataclass(frozen=True, slots=True)
class Tanh(Logistic):
    """The hyperbolic tangent: the logistic curve under another name."""

    kind = "tanh"


@final
@dataclass(frozen=True, slots=True)
class Exponential(Saturation):
    """The modified exponential: every k more of stock halves what is left of the full effect."""

    kind = "exponential"
    uses = ("half_saturation",)

    @staticmethod
    def curve(stock: Any, half: Any, slope: Any, xp: Any) -> Any:
        """1 − 2^(−a / k)."""
        return -xp.expm1(-LN2 * stock / half)

    @staticmethod
    def bend(stock: Any, half: Any, slope: Any, xp: Any) -> Any:
        """u e^(−u) / (1 − e^(−u)), u = ln 2 · a / k."""
        u = LN2 * stock / half
        return u * xp.exp(-u) / -xp.expm1(-u)


@final
@dataclass(frozen=True, slots=True)
class Log(Saturation):
    """Logarithmic returns: no ceiling, each unit worth less than the one before."""

    kind = "log"
    uses = ("half_saturation",)

    @staticmethod
    def curve(stock: Any, half: Any, slope: Any, xp: Any) -> Any:
        """log(1 + a / k)."""
        return xp.log1p(stock / half)

    @staticmethod
    def bend(stock: Any, half: Any, slope: Any, xp: Any) -> Any:
        """a / (k + a) / h."""
        return stock / (half + stock) / xp.log1p(stock / half)


@final
@dataclass(frozen=True, slots=True)
class Root(Saturation):
    """A power below 1: constant elasticity, no ceiling. The prior holds 99.5 % of its exponents below 1."""

    slope_median: float = 0.6
    slope_scale: float = 0.2

    kind = "root"
    uses = ("slope",)

    @staticmethod
    def curve(stock: Any, half: Any, slope: Any, xp: Any) -> Any:
        """a^n."""
        return xp.exp(slope * xp.log(stock))

    @staticmethod
    def bend(stock: Any, half: Any, slope: Any, xp: Any) -> Any:
        """n."""
        return slope + 0.0 * stock


@final
@dataclass(frozen=True, slots=True)
class NoSaturation(Saturation):
    """Twice the stock, twice the effect."""

    kind = "none"
    uses = ()

    @staticmethod
    def curve(stock: Any, half: Any, slope: Any, xp: Any) -> Any:
        """a."""
        return stock + 0.0 * half

    @staticmethod
    def bend(stock: Any, half: Any, slope: Any, xp: Any) -> Any:
        """1."""
        return xp.ones_like(stock + half)


SATURATIONS: dict[str, type[Saturation]] = {
    f.kind: f for f in (Hill, MichaelisMenten, Logistic, Tanh, Exponential, Log, Root, NoSaturation)
}
