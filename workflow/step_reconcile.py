"""`plumb reconcile`: model, lift tests and credit pooled into one incremental outcome per channel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
import pandas as pd

from contracts.errors import GateFailed
from contracts.evidence import Credit
from contracts.panel import Panel
from contracts.tables import BY_NAME
from mmm.effects import lift_draws, total_draws
from reconcile.model import MIN_ESS
from reconcile.pool import MAX_RHAT, MmmEvidence, PoolInputs, PoolPriors, Reconciled, reconcile
from workflow.artifacts import Artifact, Draft
from workflow.codec import read_arrays, write_arrays, write_frame
from workflow.job import Job
from workflow.panel_build import kpi_rows
from workflow.progress import Report
from workflow.step_credit import read_credits
from workflow.step_fit import read_posterior, single_channel_lifts, spec_of, terms_of, uncalibrated_panel
from workflow.step_lift import library_digest, only, read_library, release_hashes
from workflow.steps import Made, Step

POOLED = ("last_touch", "first_touch", "linear", "markov")  # the models that the pool was checked with
DOUBTFUL = 0.05  # share of draws


def _skip(job: Job) -> str:
    outcome = job.outcomes["fit_uncalibrated"]
    if outcome.status == "skipped":
        return f"no model: {outcome.reason}"
    if outcome.status == "failed_gate":
        return "the model did not pass its gate"
    return ""


def _inputs(job: Job) -> dict[str, str]:
    return {
        "fit_uncalibrated": job.digest("fit_uncalibrated"),
        "lift": library_digest(job.outcomes["lift"].artifact),
        "credit": job.digest("credit"),
        **release_hashes(job, "kpi"),
    }


def paid_channels(panel: Panel) -> tuple[str, ...]:
    """Channels with any spend: only these have an incremental outcome to pool."""
    return tuple(c for i, c in enumerate(panel.channels) if panel.spend[:, :, i].any())


def period(panel: Panel) -> tuple[date, date]:
    """First and last day of the panel."""
    return panel.weeks[0], panel.weeks[-1] + timedelta(days=panel.period_days - 1)


def kpi_total(job: Job) -> tuple[float, float]:
    """KPI over the panel's period and the sd of its released noise, people outside the declared geos included."""
    panel = job.panel
    if job.panel_door:
        return float(np.nansum(panel.kpi)), math.sqrt(float(panel.kpi_variance[np.isfinite(panel.kpi)].sum()))
    rows = kpi_rows(job.releases)
    rows = rows[(rows["metric"] == panel.kpi_name) & rows["week"].isin(panel.weeks)]
    return float(rows["value"].sum()), math.sqrt(float(rows["variance"].sum()))


def one_signed(lifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws (bool, D) to use and the lift predictions (D, K), so that each lift keeps one sign.

    The pool works on logs. A geo's effect may turn negative in a few draws of a noisy panel: those draws are left out.
    A lift whose sign the model does not know (more than `DOUBTFUL` of its draws on the wrong side) counts as not
    predicted: its column is NaN, and the pool ties the lift to the total by its share of spend.
    """
    out = lifts.copy()
    right = lifts * np.sign(np.median(lifts, axis=0)) > 0
    out[:, (~right).mean(axis=0) > DOUBTFUL] = np.nan
    return (right | np.isnan(out)).all(axis=1), out


def pool_inputs(job: Job) -> PoolInputs:
    """All evidence of this job about the panel's period. Raises ContractError when one piece would count twice."""
    panel, channels = job.panel, paid_channels(job.panel)
    library, _ = read_library(job.outcomes["lift"].artifact)
    pooled = single_channel_lifts(job)
    lifts = only(library, np.array(pooled, dtype=int))
    artifact = job.outcomes["fit_uncalibrated"].artifact
    assert artifact is not None
    masked, posterior = uncalibrated_panel(job), read_posterior(artifact)
    keep = [panel.channels.index(c) for c in channels]
    totals = total_draws(masked, posterior)[:, keep]
    rows, lifted = one_signed(lift_draws(masked, spec_of(job.config), posterior, terms_of(job, pooled)))
    mmm = MmmEvidence(channels, totals[rows], lifted[rows], panel.evidence_ids)
    start, end = period(panel)
    total, sd = kpi_total(job)
    families = {c: job.config.families().get(c, "other") for c in channels}
    spend = {c: float(panel.spend[:, :, panel.channels.index(c)].sum()) for c in channels}
    return PoolInputs(mmm, lifts, _credits(job, channels), total, sd, channels, families, start, end, spend_total=spend)


def _credits(job: Job, channels: Sequence[str]) -> tuple[Credit, ...]:
    """Credits of the KPI for pooled channels, of the pooled models whose periods cover the panel's whole period."""
    start, end = period(job.panel)
    found = tuple(
        c
        for c in read_credits(job.outcomes["credit"].artifact)
        if c.metric == job.panel.kpi_name and c.channel in channels and start <= c.period_end and c.period_start <= end
    )
    found = tuple(c for c in found if c.model in POOLED)
    days = {m: sum((b - a).days + 1 for a, b in {(c.period_start, c.period_end) for c in found if c.model == m})
            for m in {c.model for c in found}}  # fmt: skip
    return tuple(c for c in found if abs(days[c.model] - (end - start).days - 1) < 7)


def _build(job: Job, draft: Draft, report: Report) -> Made:
    try:
        found = reconcile(pool_inputs(job), PoolPriors(), seed=job.config.model.seed + 2)
    except GateFailed as error:
        return Made({}, "failed_gate", str(error))
    rows = found.factors.copy()
    rows["evidence_ids"] = ";".join(_evidence(job))
    write_frame(rows, draft.path("v_incrementality.parquet"))
    write_arrays({"incremental": found.incremental, "channels": np.array(found.channels)}, draft.path("pool.npz"))
    return Made(_facts(found))


def _evidence(job: Job) -> list[str]:
    ids = set(job.panel.evidence_ids)
    library, _ = read_library(job.outcomes["lift"].artifact)
    ids |= {i for k in single_channel_lifts(job) for i in library.estimates[k].evidence_ids}
    ids |= {i for c in read_credits(job.outcomes["credit"].artifact) for i in c.evidence_ids}
    return sorted(ids)


def _facts(found: Reconciled) -> dict[str, object]:
    health = found.diagnostics
    return {"rhat": health.rhat, "ess": health.ess, "divergences": health.divergences, "draws": health.draws}


def read_pool(artifact: Artifact) -> tuple[tuple[str, ...], np.ndarray]:
    """Channels and draws (S, C) of the reconciled incremental outcome, KPI units over the period."""
    arrays = read_arrays(artifact.path("pool.npz"))
    return tuple(str(c) for c in arrays["channels"]), arrays["incremental"]


def health_checks(artifact: Artifact) -> pd.DataFrame:
    """Rows of v_checks about the sampler of the pool."""
    rhat, ess = float(artifact.facts["rhat"]), float(artifact.facts["ess"])
    rows = [
        ("reconcile r_hat", "pool", "pass", rhat, MAX_RHAT, f"largest R-hat {rhat:.3f}"),
        ("reconcile ess", "pool", "pass", ess, MIN_ESS, f"smallest effective sample size {ess:.0f}"),
    ]
    return pd.DataFrame(rows, columns=list(BY_NAME["v_checks"].names))


STEP = Step(
    name="reconcile",
    command="reconcile",
    title="Reconciling",
    rooms=("contracts", "reconcile", "mmm", "workflow.step_reconcile"),
    skip=_skip,
    inputs=_inputs,
    settings=lambda job: job.config.part("project", "channels", "model"),
    build=_build,
)
