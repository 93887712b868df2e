"""`plumb plan`: the calibrated draws carried to the reconciled totals, and the best plan on them.

`surface.npz` holds 1,000 draws, on which plans are chosen; `screen.npz` holds 400 of them, on which every figure of a
scenario is priced, here, by the explorer and for what people save.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

import numpy as np
import pandas as pd

from app.draws import from_tables, to_tables
from contracts.surface import DynamicResponse
from mmm.effects import total_draws
from mmm.surface import dynamic_response
from planning.optimise import Best, Problem, choose_and_value, optimise
from planning.scenarios import CURRENT, RECOMMENDED, Evaluated, evaluate_plan
from planning.surface import Surface, held
from planning.weights import MIN_ESS, Weights, importance_weights
from workflow.artifacts import Draft
from workflow.codec import surface_arrays, write_arrays, write_frame
from workflow.job import Job
from workflow.plan_advice import ADVICE, Advice, advise
from workflow.plan_forecast import demand_draws, forecast_rows
from workflow.plan_problem import problem_for, surface_for, with_new_channels
from workflow.progress import Report
from workflow.step_fit import read_posterior, spec_of, uncalibrated_panel
from workflow.step_reconcile import read_pool
from workflow.steps import Made, NotApplicable, Step

__all__ = ["RECOMMENDED", "STEP"]
DRAWS = 1000  # that plans are chosen on
SCREEN_DRAWS = 400  # that scenarios are priced on
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


@dataclass(frozen=True, slots=True)
class Carried:
    """The response in time whose draws agree with the reconciled channel totals, and how it was made."""

    response: DynamicResponse
    weights: Weights
    at: np.ndarray  # (D,) positions in the calibrated posterior
    factor: np.ndarray | None  # (D, C) on amplitudes; None where weights alone could do it


def reconciled_response(job: Job) -> Carried:
    """The calibrated response on reconciled draws."""
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
        at = resample(weights.weights)
        return Carried(on_draws(response, at), weights, at, None)
    at, factor = carry(totals, target)
    return Carried(on_draws(response, at, factor), weights, at, factor)


def screen_response(response: DynamicResponse) -> DynamicResponse:
    """The draws that the warehouse holds, in its order: plans are priced on these, whoever asks."""
    picked = on_draws(response, np.linspace(0, response.draws - 1, min(SCREEN_DRAWS, response.draws)).astype(int))
    found = from_tables(to_tables(picked))
    assert found is not None
    return found


def _build(job: Job, draft: Draft, report: Report) -> Made:
    planning = job.config.planning
    carried = reconciled_response(job)
    response, weights = carried.response, carried.weights
    if not response.steady.current_spend.any():
        raise NotApplicable("nothing was spent in the last weeks of the panel, so there is no plan to start from.")
    response = with_new_channels(response, planning)
    problem = problem_for(surface_for(response, planning), planning)
    report(0.1, 1.0)
    best = optimise(problem)
    report(0.5, 1.0)
    screen = screen_response(response)
    plans = priced(surface_for(screen, planning), problem.surface, best)
    write_frame(pd.concat([p.channels for p in plans], ignore_index=True), draft.path("v_scenarios.parquet"))
    write_frame(pd.concat([p.cells for p in plans], ignore_index=True), draft.path("v_scenario_cells.parquet"))
    write_arrays(surface_arrays(screen), draft.path("screen.npz"))
    write_arrays(surface_arrays(response), draft.path("surface.npz"))
    write_arrays({"spend": best.spend}, draft.path("recommended.npz"))
    write_frame(_forecast(job, carried, problem, best), draft.path("v_forecast.parquet"))
    report(0.6, 1.0)
    advice = advise(job, problem, best)
    for name, frame in zip(ADVICE, (advice.next_tests, advice.loss), strict=True):
        if len(frame):
            write_frame(frame, draft.path(f"{name}.parquet"))
    checks = [*_carried_checks(weights, carried.factor is None), *best_checks(problem, best), *_advice_checks(advice)]
    draft.path("checks.json").write_text(json.dumps(checks, indent=1), encoding="utf-8")
    return Made(_facts(weights, best))


def _forecast(job: Job, carried: Carried, problem: Problem, best: Best) -> pd.DataFrame:
    """KPI over the planning period under today's spend held and under the best plan."""
    calibrated = job.outcomes["fit_calibrated"].artifact
    assert calibrated is not None
    demand = demand_draws(
        uncalibrated_panel(job), spec_of(job.config), read_posterior(calibrated), carried.response, carried.at,
        carried.factor, problem.surface, job.config.model.seed,
    )  # fmt: skip
    return forecast_rows(problem.surface, {CURRENT: problem.base, RECOMMENDED: best.spend}, demand)


def priced(screen: Surface, surface: Surface, best: Best) -> tuple[Evaluated, Evaluated]:
    """Today's spend held, and the best plan, on the draws that are published. The plan's channels and geos are in the
    order of `surface`."""
    geos, channels = (
        [list(getattr(surface.response, kind)).index(v) for v in getattr(screen.response, kind)]
        for kind in ("geos", "channels")
    )
    spend = best.spend[:, geos][:, :, channels]
    return evaluate_plan(screen, held(screen), CURRENT), evaluate_plan(screen, spend, RECOMMENDED)


def _facts(weights: Weights, best: Best) -> dict[str, object]:
    return {
        "ess": weights.ess, "pareto_k": weights.pareto_k, "gain_probability": best.gain_probability,
        "gain": best.gain_interval, "gap": best.gap, "extrapolated": list(best.extrapolated), "starts": best.starts,
    }  # fmt: skip


def _carried_checks(weights: Weights, weighted: bool) -> list[dict[str, object]]:
    how = "" if weighted else "; reconciled totals were carried over by scaling instead"
    return [
        _check("plan effective sample size", weights.ess, MIN_ESS, weights.enough,
               f"{weights.ess:.0f} effective draws of the model agree with the reconciled totals{how}"),
        _check("plan pareto k", weights.pareto_k, MAX_PARETO_K, weights.pareto_k <= MAX_PARETO_K,
               f"tail shape of the weights {weights.pareto_k:.2f} (limit {MAX_PARETO_K}){how}"),
    ]  # fmt: skip


def _advice_checks(advice: Advice) -> list[dict[str, object]]:
    if advice.left_out:
        return [_check("next test", None, None, False, f"no next test could be valued: {advice.left_out}")]
    top = advice.next_tests.iloc[0]
    text = f"{top['test']}: worth {top['value']:,.0f} {top['unit']} before it is run; {top['decision']}"
    return [_check("next test", float(top["value"]), float(top["perfect_information"]), True, text)]


def best_checks(problem: Problem, best: Best) -> list[dict[str, object]]:
    """How good the plan is: what a better one could at most add, and its gain on draws that did not choose it."""
    _, apart = choose_and_value(problem)
    stated, honest = best.gain_interval, apart.gain_interval
    unit = problem.surface.response.kpi_name if problem.objective.unit == "kpi" else problem.objective.unit
    text = (
        f"gain over today's spend held, {unit}: {stated['p50']:,.0f} (80 % interval {stated['p10']:,.0f} to "
        f"{stated['p90']:,.0f}); chosen on half of the draws and valued on the others {honest['p50']:,.0f}"
    )
    far = ", ".join(best.extrapolated)
    return [
        _check("plan optimality", best.gap, 0.01, best.gap <= 0.01,
               f"a better plan could add at most {best.gap:.2%} of what is at stake, where curves are concave"),
        _check("plan gain", stated["p50"], honest["p10"], honest["mean"] > 0 or stated["mean"] <= 0, text),
        _check("plan extrapolation", float(len(best.extrapolated)), 0.0, not far,
               f"planned beyond anything observed: {far or 'nothing'}; intervals there are widened"),
    ]  # fmt: skip


def _check(name: str, value: float | None, threshold: float | None, good: bool, text: str) -> dict[str, object]:
    return {"check_name": name, "subject": RECOMMENDED, "status": "pass" if good else "warn", "value": value,
            "threshold": threshold, "text": text}  # fmt: skip


STEP = Step(
    name="plan",
    command="plan",
    title="Planning",
    rooms=(
        "contracts",
        "planning",
        "mmm",
        "lift",
        "app.draws",
        "workflow.step_plan",
        "workflow.plan_problem",
        "workflow.plan_advice",
        "workflow.plan_forecast",
    ),
    skip=_skip,
    inputs=lambda job: {"fit_calibrated": job.digest("fit_calibrated"), "reconcile": job.digest("reconcile")},
    settings=lambda job: job.config.part("project", "planning"),
    build=_build,
)
