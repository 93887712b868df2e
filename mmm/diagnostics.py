"""The publishing gate: nothing that has not converged is shown as a result.

Vehtari, Gelman, Simpson, Carpenter, Bürkner (2021), "Rank-normalization, folding, and localization: an improved R-hat".
The figures come from ArviZ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from arviz_stats.base.array import array_stats

from contracts.panel import Panel
from mmm.design import Design
from mmm.posterior import Posterior

PARAMETER_RHAT = 1.05
PARAMETER_ESS = 400.0
PUBLISHED_RHAT = 1.01
PUBLISHED_ESS = 1000.0
LOWEST_BFMI = 0.3


@dataclass(frozen=True, slots=True)
class Check:
    """One verdict: `value` against `threshold`."""

    name: str
    subject: str
    status: str  # 'pass', 'warn', 'fail'
    value: float
    threshold: float
    text: str


@dataclass(frozen=True, slots=True)
class GateReport:
    """All checks of one posterior; `passed` is True when none fails."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether the posterior may be published."""
        return all(c.status != "fail" for c in self.checks)

    def failures(self) -> str:
        """One sentence that names what failed, '' when nothing did."""
        return "; ".join(c.text for c in self.checks if c.status == "fail")


def convergence(draws: np.ndarray) -> tuple[float, float]:
    """Worst rank-normalised R-hat and smallest of bulk and tail ESS over all elements of (chain, draw, ...)."""
    flat = draws.reshape(*draws.shape[:2], -1).astype(float)
    varying = flat[..., np.ptp(flat, axis=(0, 1)) > 0]
    if varying.shape[-1] == 0:
        return 1.0, float(draws.shape[0] * draws.shape[1])
    rhat = array_stats.rhat(varying, chain_axis=0, draw_axis=1)
    bulk = array_stats.ess(varying, chain_axis=0, draw_axis=1, method="bulk")
    tail = array_stats.ess(varying, chain_axis=0, draw_axis=1, method="tail", prob=(0.05, 0.95))
    return float(np.max(rhat)), float(min(np.min(bulk), np.min(tail)))


def gate(panel: Panel, design: Design, posterior: Posterior) -> GateReport:
    """Checks every sampled parameter, the published totals and ROI, and the posterior's plausibility.

    ROI is the total times a constant (revenue per KPI unit / spend), so that its R-hat and ESS are the total's.
    """
    checks = []
    for name, draws in posterior.sampled.items():
        checks += _pair(name, draws, PARAMETER_RHAT, PARAMETER_ESS)
    theta = posterior.params["theta"]
    for i, channel in enumerate(design.channels):
        if design.paid[i]:
            checks += _pair(f"total and ROI of {channel}", theta[..., i], PUBLISHED_RHAT, PUBLISHED_ESS)
    checks.append(_divergences(posterior))
    checks += _energy(posterior)
    checks.append(_negative_baseline(panel, design, posterior))
    return GateReport(tuple(checks))


def _pair(subject: str, draws: np.ndarray, rhat_limit: float, ess_limit: float) -> list[Check]:
    rhat, ess = convergence(draws)
    good_rhat, good_ess = rhat < rhat_limit, ess > ess_limit
    return [
        Check("r_hat", subject, "pass" if good_rhat else "fail", rhat, rhat_limit,
              f"R-hat of {subject} is {rhat:.3f} (limit {rhat_limit})"),
        Check("ess", subject, "pass" if good_ess else "fail", ess, ess_limit,
              f"effective sample size of {subject} is {ess:.0f} (at least {ess_limit:.0f})"),
    ]  # fmt: skip


def _divergences(posterior: Posterior) -> Check:
    status = "pass" if posterior.divergences == 0 else "fail"
    text = f"{posterior.divergences} of {posterior.draws} draws diverged (none may)"
    return Check("divergences", "sampler", status, float(posterior.divergences), 0.0, text)


def _energy(posterior: Posterior) -> list[Check]:
    """E-BFMI by chain (Betancourt, 2016): how well momentum refreshes the energy; the worst chain counts."""
    energy = posterior.energy
    if energy.size == 0:
        return []
    worst = float(((np.diff(energy, axis=1) ** 2).mean(axis=1) / energy.var(axis=1)).min())
    status = "pass" if worst > LOWEST_BFMI else "warn"
    return [Check("e_bfmi", "sampler", status, worst, LOWEST_BFMI,
                  f"the sampler's energy moves well: E-BFMI {worst:.2f}" if status == "pass" else
                  f"the sampler moves slowly between energies: E-BFMI {worst:.2f}, under {LOWEST_BFMI}")]  # fmt: skip


def _negative_baseline(panel: Panel, design: Design, posterior: Posterior) -> Check:
    """Share of draws in which paid and organic media claim more than the whole KPI."""
    total = np.nanmean(panel.kpi, axis=1).sum() * panel.kpi.shape[1]
    share = float((posterior.flat("theta").sum(axis=1) > total).mean())
    status = "pass" if share < 0.05 else "warn"
    return Check("negative_baseline", "model", status, share, 0.05,
                 f"the baseline is negative in {share:.0%} of the draws")  # fmt: skip
