"""What the pool reads, gathered from the job: periods, spend, credit, tests with their scope, what moves credit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np

from attribution.claims import MODEL as CLAIMED
from contracts.calendar import blocks
from contracts.evidence import Credit, LiftLibrary
from contracts.panel import Panel
from contracts.release import Release
from mmm.effects import contributions, lift_draws, total_draws
from mmm.posterior import Posterior
from mmm.spec import ModelSpec
from reconcile.inputs import CLAIMS, JOURNEYS, Covariate, LiftScope, MmmEvidence, Period, PoolInputs
from reconcile.reasons import CONSENT, INCIDENT
from reconcile.treatments import treat
from workflow.config_reconcile import Reconcile, Span
from workflow.job import Job
from workflow.panel_build import kpi_rows
from workflow.step_credit import read_credits
from workflow.step_fit import read_posterior, single_channel_lifts, spec_of, terms_of, uncalibrated_panel
from workflow.step_lift import only, read_library

DOUBTFUL = 0.05  # share of draws
PROFILE_DRAWS = 200  # of the model's split over periods


def paid_channels(panel: Panel) -> tuple[str, ...]:
    """Channels with any spend: only these have an incremental outcome to pool."""
    return tuple(c for i, c in enumerate(panel.channels) if panel.spend[:, :, i].any())


def periods(job: Job) -> tuple[Period, ...]:
    """Fiscal quarters of the panel, each from its first week's first day to its last one's last."""
    panel = job.panel
    days = timedelta(days=panel.period_days - 1)
    found = blocks(panel.weeks, job.config.project.fiscal_year_start)
    return tuple((b.weeks[0], b.weeks[-1] + days) for b in found)


def slices(panel: Panel, spans: Sequence[Period]) -> list[np.ndarray]:
    """Positions of the panel's weeks in each period."""
    return [np.array([i for i, w in enumerate(panel.weeks) if a <= w <= b]) for a, b in spans]


def kpi_of_periods(job: Job, spans: Sequence[Period]) -> tuple[np.ndarray, np.ndarray]:
    """KPI of each period and the sd of its released noise, people outside the declared geos included."""
    panel, value, sd = job.panel, [], []
    if job.panel_door:
        for weeks in slices(panel, spans):
            cells = panel.kpi[:, weeks]
            value.append(float(np.nansum(cells)))
            sd.append(math.sqrt(float(panel.kpi_variance[:, weeks][np.isfinite(cells)].sum())))
        return np.array(value), np.array(sd)
    rows = kpi_rows(job.releases)
    rows = rows[(rows["metric"] == panel.kpi_name) & rows["week"].isin(panel.weeks)]
    for first, last in spans:
        mine = rows[[first <= w <= last for w in rows["week"]]]
        value.append(float(mine["value"].sum()))
        sd.append(math.sqrt(float(mine["variance"].sum())))
    return np.array(value), np.array(sd)


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
    """All evidence of this job about the panel's periods. Raises ContractError when one piece would count twice."""
    panel, channels, spans = job.panel, paid_channels(job.panel), periods(job)
    library, _ = read_library(job.outcomes["lift"].artifact)
    lifts = only(library, np.array(single_channel_lifts(job), dtype=int))
    mmm, pooled = treat(_model(job, channels, spans), lifts, job.config.reconcile.lifts, job.config.model.seed)
    weeks = slices(panel, spans)
    keep = [panel.channels.index(c) for c in channels]
    spend = np.array([[float(panel.spend[:, w, i].sum()) for w in weeks] for i in keep])
    kpi, kpi_sd = kpi_of_periods(job, spans)
    moved = covariates(job.config.reconcile, consent_rates(job.releases, spans), channels, spans)
    return PoolInputs(
        mmm=mmm, lifts=lifts, credits=credits(job, channels), kpi=kpi, kpi_sd=kpi_sd, channels=channels,
        families={c: job.config.families().get(c, "other") for c in channels}, periods=spans, spend=spend,
        scopes=_scopes(job, lifts), covariates=moved, sources={CLAIMED: CLAIMS},
        lifts_pooled=pooled,
    )  # fmt: skip


def _model(job: Job, channels: Sequence[str], spans: Sequence[Period]) -> MmmEvidence:
    """Draws of the posterior that the treatment of lifts asks for; ids of the lifts where it has seen them."""
    calibrated = job.config.reconcile.lifts != "pooled"
    artifact = job.outcomes["fit_calibrated" if calibrated else "fit_uncalibrated"].artifact
    assert artifact is not None
    panel, spec, posterior = uncalibrated_panel(job), spec_of(job.config), read_posterior(artifact)
    keep = [job.panel.channels.index(c) for c in channels]
    totals = total_draws(panel, posterior)[:, keep]
    terms = terms_of(job, single_channel_lifts(job))
    rows, lifted = one_signed(lift_draws(panel, spec, posterior, terms))
    mean, sd = profile(panel, spec, posterior, channels, spans)
    seen = tuple(sorted({i for t in terms_of(job) for i in t.evidence_ids})) if calibrated else ()
    return MmmEvidence(tuple(channels), totals[rows], lifted[rows], (*job.panel.evidence_ids, *seen), mean, sd)


def profile(
    panel: Panel, spec: ModelSpec, posterior: Posterior, channels: Sequence[str], spans: Sequence[Period]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd (C, T) of the log share of each period in a channel's total, from the model's draws."""
    mean, sd = np.full((len(channels), len(spans)), np.nan), np.zeros((len(channels), len(spans)))
    weeks = slices(panel, spans)
    for part in contributions(panel, spec, posterior, PROFILE_DRAWS):
        if part.channel not in channels:
            continue
        by_period = np.stack([part.cells[:, :, w].sum(axis=(1, 2)) for w in weeks], axis=1)
        whole = by_period.sum(axis=1, keepdims=True)
        good = (by_period > 0).all(axis=1) & (whole[:, 0] > 0)
        if good.mean() > 1 - DOUBTFUL:
            logs = np.log(by_period[good] / whole[good])
            c = list(channels).index(part.channel)
            mean[c], sd[c] = logs.mean(axis=0), logs.std(axis=0)
    return mean, sd


def credits(job: Job, channels: Sequence[str]) -> tuple[Credit, ...]:
    """Credits of the KPI for pooled channels, of every model, platform claims included."""
    return tuple(
        c for c in read_credits(job.outcomes["credit"].artifact)
        if c.metric == job.panel.kpi_name and c.channel in channels
    )  # fmt: skip


def _scopes(job: Job, lifts: LiftLibrary) -> tuple[LiftScope, ...]:
    """Part of the channel's spend that a test covered, and tested over usual spend there."""
    panel = job.panel
    _, counterfactual = read_library(job.outcomes["lift"].artifact)
    out = []
    for e in lifts.estimates:
        window = panel.window(e.start, e.end)
        c = panel.channels.index(e.channel)
        national = float(panel.spend[:, window, c].sum())
        if e.kind == "user":
            reached = e.spend_delta / national if national > 0 and np.isfinite(e.spend_delta) else np.nan
            out.append(LiftScope(float(min(reached, 1.0)), 0.0))
            continue
        geos = [panel.geo_index(g) for g in e.treated]
        tested = float(panel.spend[np.ix_(geos, window, [c])].sum())
        usual = float(counterfactual[e.experiment].sum())
        base = national - tested + usual
        out.append(LiftScope(usual / base if base > 0 else np.nan, tested / usual if usual > 0 else 0.0))
    return tuple(out)


def covariates(
    settings: Reconcile, rates: np.ndarray | None, channels: Sequence[str], spans: Sequence[Period]
) -> tuple[Covariate, ...]:
    """Consent rate (`rates`, by period), match rates and incidents; 0 is 'as usual', (C, T) each."""
    out = []
    if rates is not None and np.ptp(rates) > 0:
        logs = np.log(rates) - np.log(rates).mean()
        out.append(Covariate(CONSENT, np.tile(logs, (len(channels), 1)), (JOURNEYS,)))
    if settings.match_rates:
        rate = np.ones((len(channels), len(spans)))
        for span in settings.match_rates:
            part = _part(span, channels, spans)
            rate = rate * np.exp(part * math.log(span.rate))
        logs = np.log(rate)
        out.append(Covariate("match rate", logs - logs.mean(axis=1, keepdims=True), (JOURNEYS,)))
    for n, incident in enumerate(settings.incidents):
        name = f"{INCIDENT} {incident.note or n + 1} ({incident.start} to {incident.end})"
        out.append(Covariate(name, _part(incident, channels, spans), (JOURNEYS,)))
    return tuple(out)


def _part(span: Span, channels: Sequence[str], spans: Sequence[Period]) -> np.ndarray:
    """Share (C, T) of each period's days that a span covers, for the channels that it concerns."""
    days = np.array([max(0, (min(b, span.end) - max(a, span.start)).days + 1) / ((b - a).days + 1) for a, b in spans])
    concerned = np.array([not span.channels or c in span.channels for c in channels], dtype=float)
    return np.asarray(np.outer(concerned, days))


def consent_rates(releases: Sequence[Release], spans: Sequence[Period]) -> np.ndarray | None:
    """Consenting people per person of each period, from the diagnostics releases; None where any is missing."""
    found: dict[date, float] = {}
    for release in releases:
        if release.measure == "diagnostics":
            figures = dict(zip(release.table["metric"], release.table["value"], strict=True))
            people, consenting = float(figures.get("people", 0.0)), float(figures.get("consenting", 0.0))
            if people > 0 and consenting > 0:
                found[release.block_start] = min(consenting / people, 1.0)
    rates = [next((r for day, r in found.items() if abs((day - a).days) < 7), None) for a, _ in spans]
    return None if None in rates or not rates else np.array(rates, dtype=float)
