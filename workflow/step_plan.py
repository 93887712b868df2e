"""`plumb plan`: the calibrated draws carried to the reconciled totals, and the best split of the budget on them."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta

import numpy as np
import pandas as pd

from contracts.errors import ContractError
from contracts.surface import DynamicResponse
from mmm.effects import total_draws
from mmm.surface import dynamic_response
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
from workflow.codec import response_arrays, surface_arrays, write_arrays, write_frame
from workflow.job import Job
from workflow.progress import Report
from workflow.step_fit import read_posterior, spec_of, uncalibrated_panel
from workflow.step_reconcile import read_pool
from workflow.steps import Made, NotApplicable, Step

__all__ = ["RECOMMENDED", "STEP"]
DRAWS = 1000  # of the response in time, surface.npz
SCREEN_DRAWS = 400  # of the steady response that the scenario tables and the explorer use
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


def resample(weights: np.ndarray, draws: int = DRAWS) -> np.ndarray:
    """Positions of `draws` equally weighted draws (systematic resampling, Kitagawa 1996), so that planning needs no
    weights. Deterministic: the comb starts half a tooth in."""
    comb = (np.arange(draws) + 0.5) / draws
    return np.searchsorted(np.cumsum(weights) / weights.sum(), comb)


def carry(totals: np.ndarray, target: np.ndarray, draws: int = DRAWS) -> tuple[np.ndarray, np.ndarray]:
    """Positions (draws,) of draws with channel totals `totals` (D, C), and the factors (draws, C) that make their
    totals reconciled ones (S, C).

    Where importance weights are too few, each reconciled draw is paired with the calibrated draw that is nearest in
    whitened log totals, and that draw's amplitude is scaled to it. The totals then follow the reconciled distribution
    exactly; the dependence of shape on size is kept as far as the two overlap (docs/decisions/0045).
    """
    picked = target[np.linspace(0, len(target) - 1, draws).astype(int)]
    have, want = np.log(totals), np.log(picked)
    root = np.linalg.cholesky(np.atleast_2d(np.cov(have.T)) + 1e-9 * np.eye(have.shape[1]))
    white, wanted = np.linalg.solve(root, have.T).T, np.linalg.solve(root, want.T).T
    nearest = np.array([int(np.argmin(((white - w) ** 2).sum(axis=1))) for w in wanted])
    return nearest, picked / totals[nearest]


def on_draws(response: DynamicResponse, at: np.ndarray, factor: np.ndarray | None = None) -> DynamicResponse:
    """The response on the draws at `at` (K,), equally weighted, amplitudes times `factor` (K, C)."""
    steady = response.steady
    scale = np.ones((len(at), len(steady.channels))) if factor is None else factor
    return dataclasses.replace(
        response,
        steady=dataclasses.replace(
            steady,
            amplitude=steady.amplitude[at] * scale[:, None, :],
            half_saturation=steady.half_saturation[at],
            slope=steady.slope[at],
            weights=np.full(len(at), 1.0 / len(at)),
        ),
        retention=response.retention[at],
        delay=response.delay[at],
    )


def reconciled_response(job: Job) -> tuple[DynamicResponse, Weights, bool]:
    """Response in time whose draws agree with the reconciled channel totals, and whether weights alone could do it."""
    calibrated, pooled = job.outcomes["fit_calibrated"].artifact, job.outcomes["reconcile"].artifact
    assert calibrated is not None and pooled is not None
    panel, posterior = uncalibrated_panel(job), read_posterior(calibrated)
    response = dynamic_response(panel, spec_of(job.config), posterior, draws=posterior.draws)
    channels, incremental = read_pool(pooled)
    target = incremental[:, [channels.index(c) for c in response.channels]]
    kept = [panel.channels.index(c) for c in response.channels]
    totals = total_draws(panel, posterior, spec_of(job.config).structural_sd)[:, kept]
    weights = importance_weights(totals, target)
    if weights.enough and weights.pareto_k <= MAX_PARETO_K:
        return on_draws(response, resample(weights.weights)), weights, True
    return on_draws(response, *carry(totals, target)), weights, False


def _build(job: Job, draft: Draft, report: Report) -> Made:
    panel, planning = job.panel, job.config.planning
    surface, weights, weighted = reconciled_response(job)
    response = on_draws(surface, np.linspace(0, DRAWS - 1, SCREEN_DRAWS).astype(int)).steady
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
    write_arrays(surface_arrays(surface), draft.path("surface.npz"))
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
