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
from mmm.fit import Fit, RunFlags, fit
from mmm.lift_check import check_lifts
from mmm.lifts import LiftTerm, lift_terms, mask_tests
from mmm.posterior import Posterior
from mmm.spec import ModelSpec
from mmm.surface import dynamic_response
from mmm.treatments import treatment_effects
from workflow.artifacts import Artifact, Draft, code_version
from workflow.codec import read_arrays, surface_arrays, write_arrays, write_frame
from workflow.config import Config
from workflow.job import Job
from workflow.progress import Report
from workflow.step_lift import library_digest, only, read_library, release_hashes
from workflow.steps import Made, Step

ROOMS = ("contracts", "mmm", "workflow.step_fit", "workflow.panel_build", "workflow.panel_table", "workflow.tables_in",
         "workflow.codec")  # fmt: skip


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


def _save(draft: Draft, config: Config, panel: Panel, found: Fit, evidence: Sequence[str] = (),
          lifts: Sequence[Check] = ()) -> Made:  # fmt: skip
    write_arrays(found.posterior.to_arrays(), draft.path("posterior.npz"))
    checks = [dataclasses.asdict(c) for c in (*found.report.checks, *lifts)]
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
    found = fit(panel, spec_of(config), (), seed=config.model.seed, flags=flags_of(config), progress=_report(report))
    return _save(draft, config, panel, found)


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
    found = (
        _same_fit(job, panel)
        if not terms
        else fit(panel, spec, terms, seed=config.model.seed + 1, flags=flags_of(config), progress=_report(report))
    )
    response = dynamic_response(panel, spec, found.posterior)
    write_frame(channel_effects(panel, spec, found.posterior), draft.path("effects.parquet"))
    write_frame(response_curves(response.steady), draft.path("curves.parquet"))
    write_arrays(surface_arrays(response), draft.path("surface.npz"))
    write_frame(treatment_effects(panel, spec, found.posterior), draft.path("treatments.parquet"))
    lifts = [c.check() for c in check_lifts(panel, spec, found.posterior, terms)]
    return _save(draft, config, panel, found, sorted({i for t in terms for i in t.evidence_ids}), lifts)


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
