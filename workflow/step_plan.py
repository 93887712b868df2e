"""`plumb plan`: the calibrated draws carried to the reconciled totals, and the best split of the budget on them."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta

import numpy as np
import pandas as pd

from contracts.errors import ContractError
from contracts.response import SteadyResponse
from mmm.effects import steady_response, total_draws
from planning.scenarios import (
    RECOMMENDED,
    Evaluated,
    Horizon,
    Scenario,
    current_scenario,
    evaluate,
    recommended_scenario,
)
from planning.weights import MIN_ESS, Weights, importance_weights
from workflow.artifacts import Draft
from workflow.codec import response_arrays, write_arrays, write_frame
from workflow.job import Job
from workflow.progress import Report
from workflow.step_fit import read_posterior, spec_of, uncalibrated_panel
from workflow.step_reconcile import read_pool
from workflow.steps import Made, NotApplicable, Step

__all__ = ["RECOMMENDED", "STEP"]
DRAWS = 400  # of the response that planning and the explorer use
MAX_PARETO_K = 0.7


def _skip(job: Job) -> str:
    for step in ("fit_calibrated", "reconcile"):
        outcome = job.outcomes[step]
        if outcome.status == "skipped":
            return f"{step.replace('_', ' ')} was skipped: {outcome.reason}"
        if outcome.status == "failed_gate":
            return (
                "the model did not pass its gate"
                if step == "fit_calibrated"
                else "the reconciliation did not pass its gate"
            )
    return ""


def resample(response: SteadyResponse, weights: np.ndarray, draws: int = DRAWS) -> SteadyResponse:
    """`draws` equally weighted draws (systematic resampling, Kitagawa 1996), so that planning needs no weights.

    Deterministic: the comb starts half a tooth in.
    """
    comb = (np.arange(draws) + 0.5) / draws
    picked = np.searchsorted(np.cumsum(weights) / weights.sum(), comb)
    return dataclasses.replace(
        response,
        amplitude=response.amplitude[picked],
        half_saturation=response.half_saturation[picked],
        slope=response.slope[picked],
        weights=np.full(draws, 1.0 / draws),
    )


def carry(response: SteadyResponse, totals: np.ndarray, target: np.ndarray, draws: int = DRAWS) -> SteadyResponse:
    """`draws` draws whose channel totals are reconciled ones (S, C): `totals` (D, C) belong to the response's draws.

    Where importance weights are too few, each reconciled draw is paired with the calibrated draw that is nearest in
    whitened log totals, and that draw's amplitude is scaled to it. The totals then follow the reconciled distribution
    exactly; the dependence of shape on size is kept as far as the two overlap (docs/decisions/0045).
    """
    picked = target[np.linspace(0, len(target) - 1, draws).astype(int)]
    have, want = np.log(totals), np.log(picked)
    root = np.linalg.cholesky(np.atleast_2d(np.cov(have.T)) + 1e-9 * np.eye(have.shape[1]))
    white, wanted = np.linalg.solve(root, have.T).T, np.linalg.solve(root, want.T).T
    nearest = np.array([int(np.argmin(((white - w) ** 2).sum(axis=1))) for w in wanted])
    return dataclasses.replace(
        response,
        amplitude=response.amplitude[nearest] * (picked / totals[nearest])[:, None, :],
        half_saturation=response.half_saturation[nearest],
        slope=response.slope[nearest],
        weights=np.full(draws, 1.0 / draws),
    )


def reconciled_response(job: Job) -> tuple[SteadyResponse, Weights, bool]:
    """Steady response whose draws agree with the reconciled channel totals, and whether weights alone could do it."""
    calibrated, pooled = job.outcomes["fit_calibrated"].artifact, job.outcomes["reconcile"].artifact
    assert calibrated is not None and pooled is not None
    panel, posterior = uncalibrated_panel(job), read_posterior(calibrated)
    response = steady_response(panel, spec_of(job.config), posterior, draws=posterior.draws)
    channels, incremental = read_pool(pooled)
    target = incremental[:, [channels.index(c) for c in response.channels]]
    kept = [panel.channels.index(c) for c in response.channels]
    totals = total_draws(panel, posterior, spec_of(job.config).structural_sd)[:, kept]
    weights = importance_weights(totals, target)
    if weights.enough and weights.pareto_k <= MAX_PARETO_K:
        return resample(response, weights.weights), weights, True
    return carry(response, totals, target), weights, False


def _build(job: Job, draft: Draft, report: Report) -> Made:
    panel, planning = job.panel, job.config.planning
    response, weights, weighted = reconciled_response(job)
    horizon = Horizon(panel.weeks[-1] + timedelta(days=panel.period_days), planning.horizon_weeks, panel.period_days)
    budget = None if planning.budget is None else planning.budget / horizon.periods_per_week
    try:
        best, split = recommended_scenario(response, horizon, budget=budget, max_change=planning.max_change)
    except ContractError as error:
        raise NotApplicable(str(error)) from None
    current: Scenario = current_scenario(response, horizon)
    plans: list[Evaluated] = [evaluate(s, response) for s in (current, best)]
    write_frame(pd.concat([p.channels for p in plans], ignore_index=True), draft.path("v_scenarios.parquet"))
    write_frame(pd.concat([p.cells for p in plans], ignore_index=True), draft.path("v_scenario_cells.parquet"))
    write_arrays(response_arrays(response), draft.path("response.npz"))
    how = "" if weighted else "; reconciled totals were carried over by scaling instead"
    checks = [
        _check("plan effective sample size", weights.ess, MIN_ESS, weights.enough,
               f"{weights.ess:.0f} effective draws of the model agree with the reconciled totals{how}"),
        _check("plan pareto k", weights.pareto_k, MAX_PARETO_K, weights.pareto_k <= MAX_PARETO_K,
               f"tail shape of the weights {weights.pareto_k:.2f} (limit {MAX_PARETO_K}){how}"),
        _check("plan optimality", split.kkt_residual, 0.01, split.kkt_residual <= 0.01,
               f"largest breach of the optimality conditions {split.kkt_residual:.1e}"),
    ]  # fmt: skip
    draft.path("checks.json").write_text(json.dumps(checks, indent=1), encoding="utf-8")
    return Made({"ess": weights.ess, "pareto_k": weights.pareto_k, "gain_probability": split.gain_probability})


def _check(name: str, value: float, threshold: float, good: bool, text: str) -> dict[str, object]:
    return {"check_name": name, "subject": RECOMMENDED, "status": "pass" if good else "warn", "value": value,
            "threshold": threshold, "text": text}  # fmt: skip


STEP = Step(
    name="plan",
    command="plan",
    title="Planning",
    rooms=("contracts", "planning", "mmm", "workflow.step_plan"),
    skip=_skip,
    inputs=lambda job: {"fit_calibrated": job.digest("fit_calibrated"), "reconcile": job.digest("reconcile")},
    settings=lambda job: job.config.part("project", "planning"),
    build=_build,
)
