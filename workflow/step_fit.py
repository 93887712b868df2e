"""`plumb fit`: two posteriors of one specification, each an artifact of its own so that a kill loses one only.

`fit_uncalibrated` knows no lift test and does not see the treated geos in their test windows; reconciliation reads it.
`fit_calibrated` has the lifts in its likelihood; it is what `v_effects` and `v_curves` publish (DESIGN section 4).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

import numpy as np

from contracts.panel import Panel
from mmm.design import build_design
from mmm.diagnostics import Check, gate
from mmm.effects import channel_effects, response_curves
from mmm.fit import Fit, RunFlags, Start, fit
from mmm.health import health
from mmm.lift_check import check_lifts
from mmm.lifts import LiftTerm, lift_terms, mask_tests
from mmm.posterior import Posterior
from mmm.spec import ModelSpec
from mmm.surface import dynamic_response
from mmm.treatments import treatment_effects
from workflow.artifacts import Artifact, Draft, all_of, code_version
from workflow.codec import read_arrays, surface_arrays, write_arrays, write_frame
from workflow.config import Config
from workflow.job import Job
from workflow.progress import Report
from workflow.step_lift import library_digest, only, read_library, release_hashes
from workflow.steps import Made, Step

ROOMS = ("contracts", "mmm", "workflow.step_fit", "workflow.panel_build", "workflow.panel_table", "workflow.tables_in",
         "workflow.codec")  # fmt: skip


START = "start.npz"  # what a later fit of the same sites may begin from


def spec_of(config: Config) -> ModelSpec:
    """The model's specification as [model] and [channels] declare it."""
    return config.model.spec(config.channels)


def flags_of(config: Config) -> RunFlags:
    """Sampling effort."""
    model = config.model
    return RunFlags(chains=model.chains, warmup=model.warmup, draws=model.draws, doublings=model.doublings)


def model_version(config: Config) -> str:
    """Hash of the specification and of the model's code."""
    return f"{spec_of(config).hash()}-{code_version(('mmm', 'contracts'))[:12]}"


def usable_lifts(job: Job) -> tuple[int, ...]:
    """Positions in the library of the lifts that the model can hold: its KPI, and channels with spend."""
    library, _ = read_library(job.outcomes["lift"].artifact)
    panel, out = job.panel, []
    for i, estimate in enumerate(library.estimates):
        tested = estimate.channel.split(";")
        if estimate.metric != panel.kpi_name or any(name.strip() not in panel.channels for name in tested):
            continue
        window = panel.window(estimate.start, estimate.end)
        spends = [panel.spend[:, :, panel.channels.index(name.strip())] for name in tested]
        known = estimate.kind == "geo" or (np.isfinite(estimate.spend_delta) and estimate.spend_delta > 0)
        in_window = estimate.kind == "geo" or all(spend[:, window].sum() > 0 for spend in spends)
        if known and in_window and all(spend.any() for spend in spends):
            out.append(i)
    return tuple(out)


def single_channel_lifts(job: Job) -> tuple[int, ...]:
    """Those of `usable_lifts` that speak of one channel: a sum over several cannot be laid to any of them."""
    library, _ = read_library(job.outcomes["lift"].artifact)
    return tuple(i for i in usable_lifts(job) if ";" not in library.estimates[i].channel)


def terms_of(job: Job, positions: Sequence[int] | None = None) -> tuple[LiftTerm, ...]:
    """Lift terms of the panel's KPI at these positions of the library, in their order (None: `usable_lifts`)."""
    library, spends = read_library(job.outcomes["lift"].artifact)
    used = usable_lifts(job) if positions is None else positions
    chosen = only(library, np.array(used, dtype=int))
    return lift_terms(job.panel, chosen, job.experiments, spends)


def _skip(job: Job) -> str:
    if not job.has_spend:
        return "there is no spend table"
    return ""


def _inputs(job: Job) -> dict[str, str]:
    return {
        **{k: v for k, v in job.public_hashes().items() if not k.startswith("experiments:")},
        **release_hashes(job, "kpi", "diagnostics"),
        "lift": library_digest(job.outcomes["lift"].artifact),
    }


def _settings(job: Job) -> object:
    return job.config.part("project", "rates", "inputs", "channels", "experiments", "model")


def _report(report: Report) -> Callable[[float, float], None]:
    return lambda share, left: report(share, left)


def _save(
    draft: Draft, config: Config, panel: Panel, found: Fit, evidence: Sequence[str] = (), extra: Sequence[Check] = ()
) -> Made:
    write_arrays(found.posterior.to_arrays(), draft.path("posterior.npz"))
    if found.start is not None:
        write_arrays(found.start.to_arrays(), draft.path(START))
    checks = [dataclasses.asdict(c) for c in (*found.report.checks, *extra)]
    draft.path("checks.json").write_text(json.dumps(checks, indent=1), encoding="utf-8")
    facts: dict[str, Any] = {
        "draws": found.posterior.draws,
        "model_version": model_version(config),
        "release_id": ";".join(panel.evidence_ids) if panel.user_level else "panel",
        "evidence_ids": ";".join((*panel.evidence_ids, *evidence)),
    }
    if found.report.passed:
        return Made(facts)
    return Made(facts, "failed_gate", found.report.failures())


def _build_uncalibrated(job: Job, draft: Draft, report: Report) -> Made:
    panel = uncalibrated_panel(job)
    config = job.config
    found = _fitted(job, draft, panel, (), config.model.seed, report)
    return _save(draft, config, panel, found)


def _fitted(job: Job, draft: Draft, panel: Panel, terms: Sequence[LiftTerm], seed: int, report: Report) -> Fit:
    """A fit that begins where the last passing one of this step learned to walk; a first one begins cold.

    The draws differ from a cold fit's by Monte Carlo error only. They are the same again for the same inputs, seed and
    earlier fit.
    """
    earlier = [a for a in all_of(job.workspace.runs, draft.step) if a.status == "done" and START in a.files]
    start = Start.from_arrays(read_arrays(earlier[-1].path(START))) if earlier else None
    config = job.config
    return fit(panel, spec_of(config), terms, seed=seed, flags=flags_of(config), progress=_report(report), start=start)


def uncalibrated_panel(job: Job) -> Panel:
    """The panel without the treated geos in their test windows."""
    counted: dict[str, date] = {}  # the outcome of a test may be counted after its spend is normal again
    for estimate in read_library(job.outcomes["lift"].artifact)[0].estimates:
        counted[estimate.experiment] = max(estimate.end, counted.get(estimate.experiment, estimate.end))
    held = [
        dataclasses.replace(e, end=max(e.end, counted[e.name])) for e in job.experiments if e.name in counted
    ]  # fmt: skip
    return mask_tests(job.panel, held)


def _build_calibrated(job: Job, draft: Draft, report: Report) -> Made:
    panel, config, terms = uncalibrated_panel(job), job.config, terms_of(job)
    spec = spec_of(config)
    found = _same_fit(job, panel) if not terms else _fitted(job, draft, panel, terms, config.model.seed + 1, report)
    response = dynamic_response(panel, spec, found.posterior)
    write_frame(channel_effects(panel, spec, found.posterior), draft.path("effects.parquet"))
    write_frame(response_curves(response.steady), draft.path("curves.parquet"))
    write_arrays(surface_arrays(response), draft.path("surface.npz"))
    write_frame(treatment_effects(panel, spec, found.posterior), draft.path("treatments.parquet"))
    extra = [c.check() for c in check_lifts(panel, spec, found.posterior, terms)]
    extra += health(panel, build_design(panel, spec, terms), found.posterior)
    return _save(draft, config, panel, found, sorted({i for t in terms for i in t.evidence_ids}), extra)


def _same_fit(job: Job, panel: Panel) -> Fit:
    """Without any usable lift the two posteriors are one: the first is read, and its gate is its own."""
    artifact = job.need("fit_uncalibrated").artifact
    assert artifact is not None
    posterior = read_posterior(artifact)
    return Fit(posterior, gate(panel, build_design(panel, spec_of(job.config)), posterior))


def read_posterior(artifact: Artifact) -> Posterior:
    """Posterior of a fit."""
    return Posterior.from_arrays(read_arrays(artifact.path("posterior.npz")))


UNCALIBRATED = Step(
    name="fit_uncalibrated",
    command="fit",
    title="Model without lift tests",
    rooms=ROOMS,
    skip=_skip,
    inputs=_inputs,
    settings=_settings,
    build=_build_uncalibrated,
)
CALIBRATED = Step(
    name="fit_calibrated",
    command="fit",
    title="Model with lift tests",
    rooms=ROOMS,
    skip=_skip,
    inputs=_inputs,
    settings=_settings,
    build=_build_calibrated,
)
