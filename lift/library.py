"""All lift estimates of a project with their joint covariance: arms share a control arm, geo tests share donors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import linalg

from contracts.errors import ContractError
from contracts.evidence import Experiment, LiftLibrary
from contracts.panel import Panel
from contracts.release import Release
from lift.geo import GeoFit, geo_fit
from lift.spend import spend_delta
from lift.trials import TrialReading, read_trial

MAX_CORRELATION = 0.95


def geo_covariance(first: GeoFit, second: GeoFit, panel: Panel) -> float:
    """Covariance of two geo estimates through the cells that both read, KPI units².

    Released noise of a shared cell enters exactly. A shared control's own movement enters with its variance per period,
    as if it were uncorrelated in time, and only where it is a control in both tests. Decision 0022.
    """
    product = first.cell_weights * second.cell_weights
    own = np.sqrt(first.own_variance * second.own_variance)[:, None]
    raw = float((product * (panel.kpi_variance + own)).sum())
    limit = MAX_CORRELATION * first.estimate.std_error * second.estimate.std_error
    return min(max(raw, -limit), limit)


def _nearest_psd(covariance: np.ndarray) -> np.ndarray:
    """Shrinks correlations by the least common factor that leaves no negative eigenvalue; the diagonal stays."""
    sd = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(sd, sd)
    lowest = float(np.linalg.eigvalsh(correlation)[0])
    if lowest >= 0:
        return covariance
    # Eigenvalues of (1 − a) R + a I are (1 − a) r + a.
    shrink = -lowest / (1 - lowest) + 1e-9
    mixed = (1 - shrink) * correlation + shrink * np.eye(len(sd))
    return mixed * np.outer(sd, sd)


def _geo_block(fits: Sequence[GeoFit], panel: Panel) -> np.ndarray:
    out = np.diag([f.estimate.std_error**2 for f in fits])
    for i in range(len(fits)):
        for j in range(i):
            out[i, j] = out[j, i] = geo_covariance(fits[i], fits[j], panel)
    return out


def trial_reading(experiment: Experiment, panel: Panel, release: Release) -> TrialReading:
    """A released user test with its spend change from the experiments table or the panel. Raises ContractError."""
    return read_trial(experiment, release, spend_delta=spend_delta(experiment, panel).value)


def build_library(
    panel: Panel, experiments: Sequence[Experiment], trial_releases: Mapping[str, Release]
) -> LiftLibrary:
    """Estimates of every experiment and their covariance (K, K).

    `trial_releases`: experiment name -> its trials release, one for each user test. A geo test gives one estimate of
    the panel's KPI; a user test its published reading per treated arm and released metric. Geo tests leave each other's
    cells out, so that only controls are shared. Geo and user tests are taken as independent (the people of a test are a
    small part of a geo). Raises ContractError when a user test has no release, a name is used twice, or an experiment
    cannot be read.
    """
    names = [e.name for e in experiments]
    if len(set(names)) != len(names):
        raise ContractError(f"experiment names must be unique; got {', '.join(names)}.")
    lacking = [e.name for e in experiments if e.kind == "user" and e.name not in trial_releases]
    if lacking:
        raise ContractError(f"no trials release for experiment {lacking[0]!r}; run `plumb release` first.")
    fits = [
        geo_fit(e, panel, spend_delta=spend_delta(e, panel, exclude=experiments), exclude=experiments)
        for e in experiments
        if e.kind == "geo"
    ]
    users = [trial_reading(e, panel, trial_releases[e.name]) for e in experiments if e.kind == "user"]
    estimates = [f.estimate for f in fits] + [e for reading in users for e in reading.estimates]
    if not estimates:
        return LiftLibrary((), np.zeros((0, 0)))
    covariance = linalg.block_diag(
        *([_geo_block(fits, panel)] if fits else []), *(reading.covariance for reading in users)
    )
    return LiftLibrary(tuple(estimates), _nearest_psd(covariance))
