"""The discrete Gaussian of OpenDP and its zCDP accounting. No seed, and no way to turn the noise off.

| on paper | here | unit |
|---|---|---|
| C | bound_units | fixed-point units, the L2 sensitivity |
| sigma | sigma_units | fixed-point units |
| rho = C²/(2 sigma²) | nano | nano-rho, an integer |
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import opendp.prelude as dp

from contracts.errors import PrivacyError
from contracts.release import NANO


@cache
def _vector_space() -> Any:
    dp.enable_features("contrib")
    # T is always i64: plain `int` means 32 bits in OpenDP and saturates.
    return dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T=float)


def _measurement(sigma_units: float) -> Any:
    return _vector_space() >> dp.m.then_gaussian(scale=sigma_units)


def cost(bound_units: int, sigma_units: float) -> Fraction:
    """rho of one vector by OpenDP's own privacy map, exactly as the float that it returns."""
    return Fraction(_measurement(sigma_units).map(float(bound_units)))


def sigma_for(bound_units: int, nano: int) -> float:
    """Smallest sigma (units, up to rounding) whose cost by OpenDP's map is at most `nano` nano-rho."""
    if nano <= 0 or bound_units <= 0:
        raise PrivacyError(f"a vector needs a positive bound and grant; got {bound_units} units and {nano} nano-rho.")
    grant = Fraction(nano, NANO)
    sigma = bound_units / math.sqrt(2 * nano / NANO)
    while cost(bound_units, sigma) > grant:
        sigma = math.nextafter(sigma * (1 + 1e-12), math.inf)
    return sigma


def add_noise(exact: np.ndarray, sigma_units: float) -> np.ndarray:
    """Integer totals (K,) int64 plus independent discrete Gaussian noise of scale sigma; int64, signed, unclipped."""
    if exact.dtype != np.int64 or exact.ndim != 1:
        raise PrivacyError(f"noise is added to one int64 vector; got {exact.dtype} with shape {exact.shape}.")
    return np.asarray(_measurement(sigma_units)(exact.tolist()), dtype=np.int64)


def epsilon_of(nano: int, delta: float) -> float:
    """eps at `delta` of `nano` nano-rho of zCDP, by OpenDP (Canonne, Kamath and Steinke 2020)."""
    dp.enable_features("contrib")
    rho = Fraction(nano, NANO)
    scale = 1 / math.sqrt(2 * float(rho))
    space = dp.atom_domain(T="i64"), dp.absolute_distance(T=float)
    gaussian = space >> dp.m.then_gaussian(scale=scale)
    while Fraction(gaussian.map(1.0)) < rho:  # never state an epsilon for less than what is spent
        scale = math.nextafter(scale * (1 - 1e-12), 0.0)
        gaussian = space >> dp.m.then_gaussian(scale=scale)
    return float(dp.c.make_zCDP_to_approxDP(gaussian).map(1.0).epsilon(delta))
