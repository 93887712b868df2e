"""Publishes what the steps made: the warehouse, its Parquet copies and the offline report.

When the model failed its gate, its views keep the last passing run; before any run has passed, `v_effects` holds the
failed figures with status 'failed_gate' and the views that rest on the model are empty. When only the reconciliation
failed its own gate, all of them keep the last passing run too, so that they agree; before one has passed, the model is
published without it.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pandas as pd

from app.draws import Period, to_tables
from app.report import build_report
from app.saved.files import publishing
from app.saved.frames import DIGEST_KEY, State, read_state, saved_digest, views, with_saved
from app.saved.publish import current_response_id, published_digest
from contracts.errors import WorkspaceError
from contracts.surface import DynamicResponse
from contracts.tables import BY_NAME
from workflow import factor_files
from workflow.artifacts import Artifact, Draft, file_hash, find, replace_text
from workflow.codec import read_arrays, surface_of
from workflow.credit_views import credit_history, credit_view, parity_checks, parity_view
from workflow.job import Job
from workflow.plan_advice import ADVICE
from workflow.plan_problem import assumptions_of, period_of
from workflow.progress import Report
from workflow.step_fit import model_version
from workflow.step_reconcile import VIEWS as POOL_VIEWS
from workflow.step_reconcile import health_checks
from workflow.step_release import charges_view
from workflow.steps import Made, Step
from workflow.views_out import (
    cohort_check,
    diagnostics_checks,
    failed_check,
    gap_checks,
    gate_checks,
    input_checks,
    kpi_view,
    left_out_checks,
    levels_view,
    lineage_view,
    panel_kpi_view,
    releases_view,
    runs_view,
    scale_back_check,
    stamped,
)
from workflow.warehouse import Content, build

MAKERS = ("check", "release", "lift", "fit_uncalibrated", "fit_calibrated", "credit", "reconcile", "plan")
MODEL_STEPS = ("fit_uncalibrated", "fit_calibrated", "reconcile", "plan")
POOL_STEPS = ("reconcile", "plan")
POINTER = "published.json"
PATIENCE = 120.0  # seconds to wait for an explorer that is saving; it needs about one
LIBRARIES = ("jax", "numpyro", "opendp", "duckdb", "pandas", "plumbline")


def chosen(job: Job) -> dict[str, Artifact]:
    """The artifact of each step whose figures are to be shown.

    This run's where it passed; the last published one where the model failed its gate or a single command left a later
    step for another time; none where the step does not apply.
    """
    pointer = _pointer(job)
    held = held_back(job, pointer)
    out: dict[str, Artifact] = {}
    for step in MAKERS:
        outcome = job.outcomes.get(step)
        if outcome is not None and step not in held:
            if outcome.artifact is not None:
                out[step] = outcome.artifact
            continue
        old = find(job.workspace.runs, step, pointer[step]) if step in pointer else None
        if old is not None:
            out[step] = old
    return out


def held_back(job: Job, pointer: Mapping[str, Any]) -> tuple[str, ...]:
    """Steps of this run that are not shown, because one of them or what they rest on failed its gate."""
    failed = {o.step for o in job.outcomes.values() if o.status == "failed_gate"}
    if failed == {"reconcile"} and "reconcile" not in pointer:
        return POOL_STEPS
    return MODEL_STEPS if failed else ()


def _pointer(job: Job) -> dict[str, Any]:
    """What the warehouse on disk shows: key of each step, 'publish', and 'fits', every fit ever shown."""
    path = job.workspace.runs / POINTER
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def skipped(job: Job) -> dict[str, str]:
    """Why each step of this run was skipped."""
    return {o.step: o.reason for o in job.outcomes.values() if o.status == "skipped"}


def _inputs(job: Job) -> dict[str, str]:
    out = {step: f"{a.key}:{a.digest}" for step, a in chosen(job).items()}
    failed = {
        f"failed:{o.step}": o.artifact.key for o in job.outcomes.values() if o.status == "failed_gate" and o.artifact
    }
    return out | failed | {f"skipped:{s}": r for s, r in skipped(job).items()}


def _build(job: Job, draft: Draft, report: Report) -> Made:
    artifacts = chosen(job)
    response = _response(artifacts)
    period = _period(job, response)
    made = _views(job, artifacts)
    draws = "" if response is None or period is None else current_response_id(to_tables(response), period.to_json())
    with publishing(job.workspace.root, PATIENCE):  # from the reading of the saves to the rename: none is lost
        saved = read_state(job.workspace.saved_state)
        content = Content(with_saved(made, views(saved, draws)), response, _meta(job, artifacts, saved), period)
        build(job.workspace.warehouse, job.workspace.tables, content)
        factor_files.write(job.workspace.root, made.get("v_incrementality"), job.config.reconcile.factor_valid_weeks)
    keep: dict[str, Any] = {step: a.key for step, a in artifacts.items()}
    keep |= {"publish": draft.key, "fits": _ever(job, artifacts, "fits", "fit_calibrated")}
    keep |= {"credits": _ever(job, artifacts, "credits", "credit")}
    replace_text(job.workspace.runs / POINTER, json.dumps(keep, indent=1))
    draft.path("content.json").write_text(json.dumps(keep, indent=1), encoding="utf-8")
    return Made({"rows": {name: len(frame) for name, frame in content.views.items()}})


def _ever(job: Job, artifacts: dict[str, Artifact], name: str, step: str) -> list[str]:
    """Keys of a step's artifacts that were ever published, oldest first."""
    before: list[str] = _pointer(job).get(name, [])
    now = artifacts.get(step)
    return before if now is None else [*(k for k in before if k != now.key), now.key]


def published_credits(job: Job, artifacts: dict[str, Artifact]) -> list[Artifact]:
    """Every credit artifact that was ever published, oldest first; the last one is shown."""
    found = (find(job.workspace.runs, "credit", key) for key in _ever(job, artifacts, "credits", "credit"))
    return [a for a in found if a is not None and a.status == "done"] if "credit" in artifacts else []


def _response(artifacts: dict[str, Artifact]) -> DynamicResponse | None:
    """The plan's draws, which agree with the reconciled totals, where there is a plan; the model's own before."""
    for step, name in (("plan", "screen.npz"), ("fit_calibrated", "surface.npz")):
        if step in artifacts:
            return surface_of(read_arrays(artifacts[step].path(name)))
    return None


def _period(job: Job, response: DynamicResponse | None) -> Period | None:
    """The planning period of plumb.toml, as the explorer reads it; that after the data where plumb.toml asks for one
    that has begun or is off the calendar (`plumb plan` says so)."""
    if response is None:
        return None
    planning = job.config.planning
    days = 0 if planning.start is None else (planning.start - response.last_period).days
    if planning.start is not None and (days <= 0 or days % response.period_days):
        planning = planning.model_copy(update={"start": None})
    start, periods = period_of(response, planning)
    return Period(start, periods, assumptions_of(response, planning))


def _views(job: Job, artifacts: dict[str, Artifact]) -> dict[str, pd.DataFrame]:
    version, release_id = model_version(job.config), ";".join(r.release_id for r in job.releases if r.measure == "kpi")
    source = release_id or "panel"
    evidence = ";".join(job.panel.evidence_ids) if job.panel_door or job.releases else ""
    views: dict[str, pd.DataFrame] = {}
    if job.panel_door:
        views["v_kpi"] = panel_kpi_view(job.panel, artifacts["check"])
    elif "release" in artifacts:
        views["v_kpi"] = kpi_view(job.releases, job.config.privacy.min_cohort, artifacts["release"])
        views["v_levels"] = levels_view(job.releases, job.config.privacy.min_cohort, artifacts["release"])
    views["v_effects_history"] = effects_history(job, artifacts)
    views["v_effects"] = _effects_now(job, artifacts, views["v_effects_history"])
    for step, name in (("lift", "v_lift"), *(("reconcile", view) for view in POOL_VIEWS)):
        if step in artifacts and artifacts[step].path(f"{name}.parquet").is_file():
            frame = pd.read_parquet(artifacts[step].path(f"{name}.parquet"))
            views[name] = stamped(frame, artifacts[step], source, version if step == "reconcile" else "", None)
    if credits := published_credits(job, artifacts):
        made = {
            "v_credit": credit_view(credits[-1], source),
            "v_credit_history": credit_history(credits, source),
            "v_parity": parity_view(credits, source),
        }
        views |= {name: frame for name, frame in made.items() if frame is not None}
    if "fit_calibrated" in artifacts:
        a = artifacts["fit_calibrated"]
        views["v_curves"] = stamped(pd.read_parquet(a.path("curves.parquet")), a, source, version, evidence)
    if "plan" in artifacts:
        for name in ("v_scenarios", "v_scenario_cells"):
            frame = pd.read_parquet(artifacts["plan"].path(f"{name}.parquet"))
            views[name] = stamped(frame, artifacts["plan"], source, version, evidence)
        for name in (*ADVICE, "v_forecast"):
            path = artifacts["plan"].path(f"{name}.parquet")
            if path.is_file():
                views[name] = stamped(pd.read_parquet(path), artifacts["plan"], source, version, evidence)
    run_id = artifacts["release"].run_id if "release" in artifacts else job.run_id
    views["v_releases"] = releases_view(job.published, run_id)
    views["v_charges"] = charges_view(job)
    views["v_runs"] = runs_view(job.workspace.runs, MAKERS, skipped(job), job.run_id)
    views["v_lineage"] = lineage_view(artifacts)
    views["v_checks"] = _checks(job, artifacts)
    return views


def effects_history(job: Job, artifacts: dict[str, Artifact]) -> pd.DataFrame:
    """Effects of every calibrated fit that was ever published, oldest first; one of each run."""
    found = [find(job.workspace.runs, "fit_calibrated", key) for key in _ever(job, artifacts, "fits", "fit_calibrated")]
    frames = [_effects(a, "published") for a in {a.run_id: a for a in found if a is not None}.values()]
    columns = list(BY_NAME["v_effects_history"].names)
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def _effects(artifact: Artifact, status: str) -> pd.DataFrame:
    """Effects of one fit with the stamp that it was given when it was made."""
    frame, facts = pd.read_parquet(artifact.path("effects.parquet")), artifact.facts
    frame["status"] = status
    return stamped(frame, artifact, str(facts["release_id"]), str(facts["model_version"]), str(facts["evidence_ids"]))


def _effects_now(job: Job, artifacts: dict[str, Artifact], history: pd.DataFrame) -> pd.DataFrame:
    """The fit to show; before any has passed, the one that failed, marked so."""
    if "fit_calibrated" in artifacts:
        return history[history["run_id"] == artifacts["fit_calibrated"].run_id]
    outcome = job.outcomes.get("fit_calibrated")
    if outcome is not None and outcome.artifact is not None:
        return _effects(outcome.artifact, "failed_gate")
    return history.iloc[:0]


def _checks(job: Job, artifacts: dict[str, Artifact]) -> pd.DataFrame:
    frames = [input_checks(artifacts["check"])] if "check" in artifacts else []
    frames.append(diagnostics_checks(job.releases))
    if job.has_kpi and not job.panel_door:
        frames.append(scale_back_check(job.panel))
        frames.append(cohort_check(job.releases, job.config.privacy.min_cohort))
    frames += [left_out_checks(artifacts[step]) for step in ("release", "lift", "credit") if step in artifacts]
    if "credit" in artifacts:
        frames += [gap_checks(artifacts["credit"]), parity_checks(published_credits(job, artifacts))]
    pool = job.outcomes.get("reconcile")
    if pool is not None and pool.status == "failed_gate":
        frames.append(failed_check("reconcile gate", "pool", pool.reason))
    elif "reconcile" in artifacts:
        frames.append(health_checks(artifacts["reconcile"]))
    for step in ("fit_calibrated", "fit_uncalibrated"):
        outcome = job.outcomes.get(step)
        artifact = outcome.artifact if outcome is not None and outcome.artifact is not None else artifacts.get(step)
        if artifact is not None:
            frames.append(gate_checks(artifact, f"{step.removeprefix('fit_')} "))
    for step in ("plan", "lift"):
        if step in artifacts and "checks.json" in artifacts[step].files:
            frames.append(input_checks(artifacts[step]))
    columns = list(BY_NAME["v_checks"].names)
    found = [f for f in frames if not f.empty]
    return pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)


def _meta(job: Job, artifacts: dict[str, Artifact], saved: State) -> dict[str, str]:
    project, panel = job.config.project, job.panel if job.has_kpi else None
    finished = [a.finished_at for a in artifacts.values()]
    meta = {
        "project": project.name,
        "kpi": project.kpi,
        "currency": project.currency,
        "user_level": "false" if job.panel_door else "true",
        "consent": job.consent,
        "owner": job.config.project.owner,
        "period_start": panel.weeks[0].isoformat() if panel else "",
        "period_end": (panel.weeks[-1] + timedelta(days=panel.period_days - 1)).isoformat() if panel else "",
        "generated_at": max(finished).isoformat(sep=" ", timespec="seconds") if finished else "",
        "model_version": model_version(job.config),
        "seed": str(job.config.model.seed),
        "run_id": job.run_id,
        DIGEST_KEY: saved.digest,
    }
    return meta | {f"version_{name}": _version(name) for name in LIBRARIES}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _report_inputs(job: Job) -> dict[str, str]:
    return {"warehouse": file_hash(job.workspace.warehouse)}


def _build_report(job: Job, draft: Draft, report: Report) -> Made:
    html = build_report(job.workspace.warehouse)
    draft.path("report.html").write_text(html, encoding="utf-8")
    replace_text(job.workspace.report, html)
    return Made()


def _published(job: Job, artifact: Artifact) -> bool:
    """Whether the warehouse on disk is the one that this artifact stands for (an older one may have come back), with
    everything that people have saved."""
    warehouse = job.workspace.warehouse
    if not warehouse.is_file() or _pointer(job).get("publish") != artifact.key:
        return False
    saved = saved_digest(job.workspace.saved_state)
    try:
        return published_digest(warehouse) == saved
    except WorkspaceError:  # damaged: it is built again
        return False


def _written(job: Job, artifact: Artifact) -> bool:
    report = job.workspace.report
    return report.is_file() and file_hash(report) == artifact.files["report.html"]


STEP = Step(
    name="publish",
    command="publish",
    title="Writing the warehouse",
    rooms=(
        "contracts",
        "app.saved",
        "app.draws",
        "workflow.step_publish",
        "workflow.views_out",
        "workflow.warehouse",
        "workflow.plan_problem",
        "workflow.credit_views",
        "workflow.factor_files",
    ),
    skip=lambda job: "",
    inputs=_inputs,
    settings=lambda job: job.config.part("project", "privacy", "model", "planning", "reconcile"),
    build=_build,
    valid=_published,
)
REPORT = Step(
    name="report",
    command="report",
    title="Writing the report",
    rooms=("contracts", "app"),
    skip=lambda job: "",
    inputs=_report_inputs,
    settings=lambda job: None,
    build=_build_report,
    valid=_written,
)
