"""The spend change that a test made, and the spend that would have been without it (DESIGN section 2)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contracts.errors import ContractError
from contracts.evidence import Experiment
from contracts.panel import Panel
from lift.rows import treated_geos, window_and_history


@dataclass(frozen=True, slots=True)
class SpendDelta:
    """Signed change of the channel's spend in the treated scope, currency; `se` is 0 where the change was declared."""

    value: float
    se: float
    counterfactual: np.ndarray  # (treated geo, period of the window), currency per period, >= 0; (0, n) for a user test
    drift: np.ndarray | None = None  # (P,) treated less scaled control spend before the test; None where se is 0


def _control_geos(
    experiment: Experiment, panel: Panel, treated: np.ndarray, exclude: Sequence[Experiment]
) -> np.ndarray:
    """Geos that no geo test touched up to the end of this one."""
    touched = np.zeros(len(panel.geos), bool)
    touched[treated] = True
    for other in exclude:
        if other.kind == "geo" and other.name != experiment.name and other.start <= experiment.end:
            touched[treated_geos(other, panel)] = True
    return np.flatnonzero(~touched)


def _from_controls(
    name: str,
    spend: np.ndarray,
    treated: np.ndarray,
    controls: np.ndarray,
    window: np.ndarray,
    pre: np.ndarray,
) -> tuple[np.ndarray, float, np.ndarray | None]:
    """Counterfactual (K, n) = control spend × the treated-to-control ratio before the test, the se of its sum, drift.

    The se is the spread of the same difference over every stretch of the window's length before the test: spend that
    kept an exact proportion gives 0.
    """
    control = spend[controls].sum(axis=0)
    before = spend[treated][:, pre].sum(axis=1)  # (K,)
    if control[pre].sum() <= 0:
        if before.sum() > 0:
            raise ContractError(
                f"experiment {name!r}: the control geos spent nothing on its channel before the test, so its spend "
                "change cannot be worked out; give spend_delta in the experiments table."
            )
        return np.zeros((len(treated), len(window))), 0.0, None
    ratio = before / control[pre].sum()
    counterfactual = ratio[:, None] * control[window][None, :]
    n = len(window)
    drift = spend[treated][:, pre].sum(axis=0) - ratio.sum() * control[pre]
    sums = np.convolve(drift, np.ones(n), mode="valid") if len(pre) >= 2 * n else drift * np.sqrt(n)
    spread = float(np.sqrt((sums**2).mean() * (1 + n / len(pre))))
    scale = max(float(before.sum()) / len(pre) * n, 1.0)
    known = spread <= 1e-9 * scale
    return counterfactual, 0.0 if known else spread, None if known else drift


def _to_declared(experiment: Experiment, declared: float, actual: np.ndarray, default: np.ndarray) -> np.ndarray:
    """Counterfactual (K, n) whose sum is the actual spend less `declared`, shaped like the default one."""
    if declared < 0:
        shape = default if default.sum() > 0 else np.ones_like(default)
        return actual - declared * shape / shape.sum()
    total = actual.sum()
    if declared > total * (1 + 1e-9):
        raise ContractError(
            f"experiment {experiment.name!r}: spend_delta is {declared:g}, more than the {total:g} that the treated "
            f"geos spent on {experiment.channel!r} in the window; correct spend_delta or the spend table."
        )
    extra = np.clip(actual - default, 0.0, None)
    if extra.sum() > 0:
        shaped = actual - extra * declared / extra.sum()
        if (shaped >= 0).all():
            return shaped
    return actual * (1 - declared / total) if total > 0 else actual


def spend_delta(experiment: Experiment, panel: Panel, *, exclude: Sequence[Experiment] = ()) -> SpendDelta:
    """Spend change of a test and its counterfactual spend; channels that changed at once count with their sum.

    Geo test without a declared change: treated spend in the window minus control spend × the treated-to-control ratio
    before it; with one: the same path, scaled to it. User test: the declared change, else the channel's whole spend in
    the window (all of it went to the treated arms). Spend enters by whole periods, as the KPI does. `exclude`: other
    experiments, whose treated geos are no controls. Raises ContractError when the channel or a geo is unknown, when no
    control spend exists, or when a declared change is more than what was spent.
    """
    for channel in experiment.channels:
        if channel not in panel.channels:
            raise ContractError(
                f"experiment {experiment.name!r} tests channel {channel!r}, which the panel does not hold; "
                f"it holds {', '.join(panel.channels)}."
            )
    spend = panel.spend[:, :, [panel.channels.index(c) for c in experiment.channels]].sum(axis=2)
    if experiment.kind == "user":
        window = panel.window(experiment.start, experiment.end)
        value = float(spend[:, window].sum()) if experiment.spend_delta is None else experiment.spend_delta
        return SpendDelta(value, 0.0, np.zeros((0, len(window))))
    treated = treated_geos(experiment, panel)
    window, pre = window_and_history(experiment, panel)
    controls = _control_geos(experiment, panel, treated, exclude)
    actual = spend[np.ix_(treated, window)]
    if experiment.spend_delta is None and not len(controls):
        raise ContractError(
            f"experiment {experiment.name!r} has no control geo to compare spend with; give spend_delta in the "
            "experiments table."
        )
    if len(controls) and (experiment.spend_delta is None or spend[np.ix_(controls, pre)].sum() > 0):
        default, se, drift = _from_controls(experiment.name, spend, treated, controls, window, pre)
    else:  # declared change and nothing to shape it by: the treated geos' own mean before the test
        default, se = np.repeat(spend[treated][:, pre].mean(axis=1)[:, None], len(window), axis=1), 0.0
        drift = None
    if experiment.spend_delta is None:
        return SpendDelta(float(actual.sum() - default.sum()), se, default, drift)
    path = _to_declared(experiment, experiment.spend_delta, actual, default)
    return SpendDelta(experiment.spend_delta, 0.0, path)


def spend_correlation(delta: SpendDelta, gap: np.ndarray) -> float:
    """Correlation of the outcome's and the spend change's errors, from how the two drifted together before the test.

    `gap` (P,): treated KPI less its counterfactual in the same periods, NaN where missing. Shrunk towards 0 by ten
    periods' worth, since a short history shows a correlation by chance. 0 where the spend change is known.
    """
    if delta.drift is None or delta.se == 0:
        return 0.0
    both = np.isfinite(gap) & np.isfinite(delta.drift)
    a, b = gap[both] - gap[both].mean(), delta.drift[both] - delta.drift[both].mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return 0.0 if size == 0 else float(a @ b) / size * both.sum() / (both.sum() + 10.0)


def spend_from_arrays(
    name: str, spend: np.ndarray, treated: np.ndarray, controls: np.ndarray, window: np.ndarray, pre: np.ndarray
) -> SpendDelta:
    """Spend change of one test from plain arrays: treated spend less control spend at the ratio before the test.

    `spend` (G, T) currency; the rest are positions. Raises ContractError when the controls spent nothing before.
    """
    default, se, drift = _from_controls(name, spend, treated, controls, window, pre)
    return SpendDelta(float(spend[np.ix_(treated, window)].sum() - default.sum()), se, default, drift)


def counterfactual_spend(experiment: Experiment, panel: Panel, *, exclude: Sequence[Experiment] = ()) -> np.ndarray:
    """Spend of a geo test that would have been: (treated, window), or (channels, treated, window) for several channels.

    A declared change of several channels scales the path that the spend table shows for each. Raises ContractError as
    `spend_delta` does, and where the declared change does not lie between none and what the table shows.
    """
    if len(experiment.channels) == 1:
        return spend_delta(experiment, panel, exclude=exclude).counterfactual
    each = np.stack([
        spend_delta(dataclasses.replace(experiment, channel=c, spend_delta=None), panel, exclude=exclude).counterfactual
        for c in experiment.channels
    ])  # fmt: skip
    if experiment.spend_delta is None:
        return each
    treated, (window, _) = treated_geos(experiment, panel), window_and_history(experiment, panel)
    where = [panel.channels.index(c) for c in experiment.channels]
    actual = np.moveaxis(panel.spend[np.ix_(treated, window, where)], 2, 0)
    shown = float(actual.sum() - each.sum())
    ratio = experiment.spend_delta / shown if shown != 0 else np.inf
    if not 0 <= ratio <= 1 + 1e-6:
        raise ContractError(
            f"experiment {experiment.name!r}: spend_delta is {experiment.spend_delta:g} for several channels together, "
            f"but the spend table shows a change of {shown:.6g}; leave spend_delta empty or correct the spend table."
        )
    return np.maximum(actual - ratio * (actual - each), 0.0)
