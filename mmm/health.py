"""What a converged posterior may still be wrong about: fit, identification, collinearity, units.

Every verdict is a `Check` with a sentence. None of them blocks publishing; the gate (`mmm.diagnostics`) does.

The model is Gaussian given the nonlinear parameters, so leaving one cell out is exact per draw: with K the precision
matrix of the panel's cells, the cell has mean y_i − (K r)_i / K_ii and variance 1 / K_ii (Sundararajan and Keerthi,
2001, "Predictive approaches for choosing hyperparameters in Gaussian processes"). K r and K_ii are derivatives of the
log marginal likelihood. Draws are weighted by 1 / p(y_i | rest), because each of them has seen y_i.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import norm

from contracts.panel import Panel
from mmm.collapse import left_out
from mmm.design import Design, revenue_rate
from mmm.diagnostics import Check
from mmm.effects import thinned, thinned_params
from mmm.posterior import Posterior

DRAWS = 100
NOMINAL = 0.9
SILENT = 0.1  # contraction under which the data have hardly spoken
TRADING = -0.5  # posterior correlation of two totals under which they trade
REACHED = 1.0  # largest stock ÷ half-saturation under which the curve's bend was not seen
MANY_SD = 3.0


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """Each observed cell predicted from all the others."""

    z: np.ndarray  # (G, T) normal score of the cell in its prediction, NaN where missing
    log_score: np.ndarray  # (G, T) log p(y_i | rest), per unit of the KPI relative to the geo's level
    crps: np.ndarray  # (G, T) KPI units, mean over draws

    @property
    def elpd(self) -> float:
        """Expected log predictive density over all observed cells."""
        return float(np.nansum(self.log_score))


def leave_one_out(design: Design, posterior: Posterior, draws: int = DRAWS) -> LeaveOneOut:
    """Exact per draw, importance-weighted over draws."""
    params = thinned_params(posterior, thinned(posterior, draws))
    with jax.enable_x64(True):
        found = jax.jit(lambda p: jax.lax.map(lambda q: left_out(design, q), p))(jax.tree.map(jnp.asarray, params))
        mean, sd = (np.asarray(a) for a in jax.device_get(found))
    score = (design.outcome - mean) / sd
    log_p = norm.logpdf(score) - np.log(sd)
    lowest = log_p.min(axis=0)
    weight = np.exp(lowest - log_p)
    weight = weight / weight.sum(axis=0)
    level = (weight * norm.cdf(score)).sum(axis=0)
    log_score = lowest - np.log(np.exp(lowest - log_p).mean(axis=0))
    spread = sd * (score * (2 * norm.cdf(score) - 1) + 2 * norm.pdf(score) - 1 / np.sqrt(np.pi))
    seen = design.observed
    crps = (weight * spread).sum(axis=0) * design.level[:, None]
    z = norm.ppf(np.clip(level, 1e-12, 1 - 1e-12))
    return LeaveOneOut(*(np.where(seen, a, np.nan) for a in (z, log_score, crps)))


def health(panel: Panel, design: Design, posterior: Posterior) -> tuple[Check, ...]:
    """All verdicts of one fit but those on lift tests (`mmm.lift_check`)."""
    loo = leave_one_out(design, posterior)
    return (
        *_predictive(panel, loo),
        *_identified(design, posterior),
        *_collinear(design, posterior),
        *_units(panel),
    )


def _predictive(panel: Panel, loo: LeaveOneOut) -> list[Check]:
    total = float(np.nansum(loo.crps) / np.nansum(np.abs(panel.kpi)))
    checks = [
        Check("elpd", "model", "pass", loo.elpd, float("nan"),
              f"expected log predictive density, leaving one cell out, is {loo.elpd:.1f} (higher is better; compare "
              f"models of the same panel only); mean CRPS is {total:.1%} of the KPI")
    ]  # fmt: skip
    for geo, row in zip(panel.geos, loo.z, strict=True):
        z = row[np.isfinite(row)]
        if len(z) < 10:
            continue
        cover, edge = float((np.abs(z) < norm.ppf(0.5 + NOMINAL / 2)).mean()), MANY_SD * np.sqrt(0.09 / len(z))
        status = "pass" if abs(cover - NOMINAL) <= edge else "warn"
        text = f"90 % predictions of {geo}, each period from all others, hold {cover:.0%} of its periods"
        checks.append(Check("predictive_coverage", geo, status, cover, NOMINAL, text))
        lag = float(np.corrcoef(z[:-1], z[1:])[0, 1])
        limit = MANY_SD / np.sqrt(len(z))
        text = f"what the model leaves over in {geo} correlates {lag:.2f} from one period to the next"
        status = "pass" if abs(lag) < limit else "warn"
        checks.append(Check("residual_autocorrelation", geo, status, lag, limit, text))
    return checks


def _identified(design: Design, posterior: Posterior) -> list[Check]:
    """Contraction 1 − var(posterior) ÷ var(prior) of each channel's size, and how far spend reaches on its curve."""
    checks = []
    spread = np.log(posterior.flat("theta")).var(axis=0) / design.effect_scale**2
    half = np.median(posterior.flat("half_saturation"), axis=0)
    for c, channel in enumerate(design.channels):
        gain = float(1 - spread[c])
        text = f"the data narrowed the size of {channel} by {max(gain, 0):.0%} of the prior's variance"
        if gain < SILENT:
            text = f"the size of {channel} is hardly known from data: {text}; a lift test would say more"
        checks.append(Check("contraction", channel, "pass" if gain >= SILENT else "warn", gain, SILENT, text))
        reach = float(design.exposure[:, :, c].max() / half[c])
        if "half_saturation" in _slots(design, c):
            seen = reach >= REACHED
            text = f"spend of {channel} covers {reach:.0%} of half-saturation"
            text = text if seen else f"the curve of {channel} is not identified: {text}"
            checks.append(Check("curve_reach", channel, "pass" if seen else "warn", reach, REACHED, text))
    return checks


def _slots(design: Design, channel: int) -> tuple[str, ...]:
    return tuple(design.curves.saturation[channel].uses)


def _collinear(design: Design, posterior: Posterior) -> list[Check]:
    checks = []
    correlation = np.atleast_2d(np.corrcoef(np.log(posterior.flat("theta")), rowvar=False))
    for i, first in enumerate(design.channels):
        for j in range(i + 1, len(design.channels)):
            if correlation[i, j] < TRADING:
                both, r = f"{first} and {design.channels[j]}", float(correlation[i, j])
                text = f"{both} ran together, so the model trades one for the other (posterior correlation {r:.2f}): "
                text += "read their sum, or test one of them"
                checks.append(Check("collinear", both, "warn", r, TRADING, text))
    return checks


def _units(panel: Panel) -> list[Check]:
    """Thousands beside units: total spend against revenue, and one channel's spend against the others'."""
    checks, spend, rate = [], panel.spend.sum(axis=(0, 1)), revenue_rate(panel)
    if rate is not None and rate > 0:
        share = float(spend.sum() / (np.nansum(panel.kpi) * rate))
        status = "pass" if 1e-4 < share < 5 else "warn"
        checks.append(Check("units", "spend", status, share, 5.0,
                            f"spend is {share:.2%} of revenue" + ("" if status == "pass" else
                            ": are both in the same unit (thousands or units)?")))  # fmt: skip
    paid = spend[spend > 0]
    smallest = float(np.median(paid) / 1000) if len(paid) > 2 else 0.0
    for channel, amount in zip(panel.channels, spend, strict=True):
        if 0 < amount < smallest:
            text = f"spend of {channel} is under a thousandth of the median channel's: is it in thousands?"
            checks.append(Check("units", channel, "warn", float(amount), smallest, text))
    return checks
