"""Which rows of the panel one geo test may read: its window, its history, its donors, and the cells to leave out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from contracts.errors import ContractError
from contracts.evidence import Experiment
from contracts.panel import Panel
from lift.controls import MIN_PRE, usable_donors
from lift.protocol import GeoTest


def _require_geo(experiment: Experiment) -> None:
    if experiment.kind != "geo":
        raise ContractError(
            f"experiment {experiment.name!r} is a {experiment.kind} test; geo_lift reads geo tests only."
        )


def treated_geos(experiment: Experiment, panel: Panel) -> np.ndarray:
    """Positions (K,) of the treated geos. Raises ContractError when one is not in the panel."""
    missing = [g for g in experiment.treated if g not in panel.geos]
    if missing:
        raise ContractError(
            f"experiment {experiment.name!r} treats {', '.join(map(repr, missing))}, which the panel does not hold; "
            f"correct `treated` to names among {', '.join(panel.geos)}."
        )
    return np.array([panel.geo_index(g) for g in experiment.treated])


def window_and_history(experiment: Experiment, panel: Panel) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the test's periods (n,) and of those before it (P,). Raises ContractError when too few."""
    window = panel.window(experiment.start, experiment.end)
    if not len(window):
        raise ContractError(
            f"experiment {experiment.name!r} runs from {experiment.start} to {experiment.end}, outside the panel "
            f"({panel.weeks[0]} to {panel.weeks[-1]}); correct its dates or extend the data."
        )
    pre = np.arange(int(window[0]))
    if len(pre) < MIN_PRE:
        raise ContractError(
            f"experiment {experiment.name!r} has {len(pre)} periods before its start; it needs at least {MIN_PRE}. "
            "Load a longer history."
        )
    return window, pre


def _mask_others(
    experiment: Experiment, panel: Panel, treated: np.ndarray, window: np.ndarray, others: Sequence[Experiment]
) -> np.ndarray:
    """(G, T) true where another geo test moved the outcome. Refuses two tests on the same geos and periods."""
    mask = np.zeros(panel.kpi.shape, bool)
    for other in others:
        if other.kind != "geo" or other.name == experiment.name:
            continue
        periods = panel.window(other.start, other.end)
        mask[np.ix_(treated_geos(other, panel), periods)] = True
    clash = mask[np.ix_(treated, window)]
    if clash.any():
        geo = panel.geos[treated[np.flatnonzero(clash.any(axis=1))[0]]]
        raise ContractError(
            f"experiment {experiment.name!r} and another test treat {geo!r} in the same periods, so neither effect can "
            "be told apart; drop one of them or shorten its window."
        )
    return mask


def select_rows(experiment: Experiment, panel: Panel, exclude: Sequence[Experiment] = ()) -> GeoTest:
    """Rows for one geo test. Cells of `exclude` (other geo tests) are masked.

    A donor under another test at any moment of the window is no donor at all: its carry-over reaches the rest of it.
    Raises ContractError with a sentence that says what to mend.
    """
    _require_geo(experiment)
    treated = treated_geos(experiment, panel)
    window, pre = window_and_history(experiment, panel)
    mask = _mask_others(experiment, panel, treated, window, exclude)
    kpi = np.where(mask, np.nan, panel.kpi)
    noise = np.where(np.isfinite(kpi), panel.kpi_variance, 0.0)
    left_alone = ~mask[:, window].any(axis=1)
    left_alone[treated] = False
    donors = usable_donors(kpi, noise, np.flatnonzero(left_alone), pre)
    if not len(donors):
        raise ContractError(
            f"experiment {experiment.name!r} has no control geo: every other geo is under a test in its window, has "
            f"fewer than {MIN_PRE} values before it, or has a KPI that does not stand clear of its released noise. "
            "Leave some geos untreated."
        )
    return GeoTest(experiment.name, kpi, noise, treated, donors, pre, window, panel.period_days)
