"""`plumb lift`: every experiment of the project as a lift estimate with its joint covariance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from contracts.errors import ContractError
from contracts.evidence import Experiment, LiftEstimate, LiftLibrary
from contracts.readout import LiftReadout
from contracts.release import Release
from lift.iroas import iroas
from lift.library import build_library, trial_reading
from lift.looks import LooksReading, look_number, read_looks
from lift.spend import counterfactual_spend
from lift.trials import TrialReading
from workflow import lift_pages
from workflow.artifacts import Artifact, Draft, digest_of, file_hash, replace_text
from workflow.codec import frame_of, lifts_of, read_arrays, write_arrays, write_frame
from workflow.job import Job
from workflow.progress import Report
from workflow.steps import Made, NotApplicable, Step

PAGE = "readout."
LIBRARY = ("estimates.parquet", "arrays.npz")


def trial_releases(job: Job) -> dict[str, Release]:
    """Trials release of each finished user test."""
    return {str(r.metadata["experiment"]): r for r in job.releases if r.measure == "trials" and not look_number(r)}


def look_releases(job: Job) -> dict[str, list[Release]]:
    """Releases of the looks at each user test."""
    out: dict[str, list[Release]] = {}
    for r in job.releases:
        if r.measure == "trials" and look_number(r):
            out.setdefault(str(r.metadata["experiment"]), []).append(r)
    return out


def _skip(job: Job) -> str:
    if not job.experiments:
        return "there is no experiments table"
    if not _readable(job) and not look_releases(job):
        return "no experiment lies inside the released calendar yet"
    return ""


def _readable(job: Job) -> tuple[str, ...]:
    """Names of the experiments whose window the panel holds and, for user tests, whose trial is released."""
    if not job.has_kpi:
        return ()
    trials, last = trial_releases(job), job.panel.weeks[-1].toordinal() + job.panel.period_days - 1
    first = job.panel.weeks[0]
    return tuple(
        e.name
        for e in job.experiments
        if (e.name in trials if e.kind == "user" else first < e.start and e.end.toordinal() <= last)
    )


def _inputs(job: Job) -> dict[str, str]:
    return {**job.public_hashes(), **release_hashes(job, "kpi", "trials", "diagnostics")}


def release_hashes(job: Job, *measures: str) -> dict[str, str]:
    """Hash of each published release of some measures."""
    return {f"release:{r.release_id}": r.metadata["file_hash"] for r in job.releases if r.measure in measures}


def _settings(job: Job) -> object:
    return {**job.config.part("project", "rates", "inputs", "channels", "experiments"), "readable": _readable(job)}


def _build(job: Job, draft: Draft, report: Report) -> Made:
    readable = _readable(job)
    chosen, library, refused = _library(job, [e for e in job.experiments if e.name in readable])
    users, looks, unread = _user_readings(job, chosen)
    if not chosen and not looks:
        raise NotApplicable("; ".join({**refused, **unread}.values()))
    write_frame(frame_of(library.estimates, LiftEstimate), draft.path("estimates.parquet"))
    arrays = {"covariance": library.covariance}
    for e in chosen:
        if e.kind == "geo":
            arrays[f"counterfactual.{e.name}"] = counterfactual_spend(e, job.panel, exclude=chosen)
    write_arrays(arrays, draft.path("arrays.npz"))
    write_frame(_view_rows(library, users, looks), draft.path("v_lift.parquet"))
    made = lift_pages.readouts(job, chosen, library, trial_releases(job), users, looks)
    draft.path("checks.json").write_text(json.dumps(_check_rows(made), indent=1), encoding="utf-8")
    _write_pages(job, draft, lift_pages.pages(made))
    waiting = {
        e.name: "not inside the released calendar yet" + (", looks apart" if e.name in looks else "")
        for e in job.experiments
        if e.name not in readable
    }
    return Made({"estimates": len(library.estimates), "left_out": waiting | refused | unread})


def _user_readings(
    job: Job, chosen: Sequence[Experiment]
) -> tuple[dict[str, TrialReading], dict[str, LooksReading], dict[str, str]]:
    """Everything that the released totals of each user test show, its looks, and why looks cannot be read."""
    trials = trial_releases(job)
    users = {e.name: trial_reading(e, job.panel, trials[e.name]) for e in chosen if e.kind == "user"}
    looks: dict[str, LooksReading] = {}
    unread: dict[str, str] = {}
    by_name = {e.name: e for e in job.experiments}
    for name, releases in look_releases(job).items():
        if name in by_name:
            try:
                looks[name] = read_looks(by_name[name], releases)
            except ContractError as error:
                unread[f"{name} looks"] = str(error)
    return users, looks, unread


def _check_rows(made: Sequence[LiftReadout]) -> list[dict[str, object]]:
    """Rows of v_checks: the checks that stand on the readout pages."""
    return [
        {"check_name": f"lift {c.name}", "subject": r.name, "status": c.verdict, "value": c.value, "threshold": c.limit,
         "text": c.text}
        for r in made
        for c in r.checks
    ]  # fmt: skip


def _write_pages(job: Job, draft: Draft, pages: Mapping[str, str]) -> None:
    """One readout a test, in the artifact and beside the report; our pages of tests that are gone are removed."""
    folder = lift_pages.folder(job.workspace.root)
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.html"):
        if old.name not in pages and lift_pages.GENERATOR in old.read_text(encoding="utf-8", errors="replace"):
            old.unlink()
    for name, html in pages.items():
        draft.path(PAGE + name).write_text(html, encoding="utf-8")
        replace_text(folder / name, html)


def _pages_stand(job: Job, artifact: Artifact) -> bool:
    """Whether every page that this artifact wrote still lies beside the report."""
    folder = lift_pages.folder(job.workspace.root)
    pages = {n.removeprefix(PAGE): h for n, h in artifact.files.items() if n.startswith(PAGE)}
    return all((folder / n).is_file() and file_hash(folder / n) == h for n, h in pages.items())


def _library(job: Job, tests: Sequence[Experiment]) -> tuple[list[Experiment], LiftLibrary, dict[str, str]]:
    """Experiments that the data can carry, their library, and why the others cannot be read.

    Too little history, or no control geo left beside the other tests: then tests are taken in the order of the table,
    and one that cannot be read beside those before it is left out.
    """
    trials = trial_releases(job)
    try:
        return list(tests), build_library(job.panel, tests, trials), {}
    except ContractError:
        chosen: list[Experiment] = []
        library, refused = LiftLibrary((), np.zeros((0, 0))), {}
    for experiment in tests:
        try:
            library = build_library(job.panel, [*chosen, experiment], trials)
        except ContractError as error:
            refused[experiment.name] = str(error)
        else:
            chosen.append(experiment)
    return chosen, library, refused


def _view_rows(
    library: LiftLibrary, users: Mapping[str, TrialReading], looks: Mapping[str, LooksReading]
) -> pd.DataFrame:
    """Rows of v_lift without the stamp; `published` ones are those of the library."""
    beside = [e for r in users.values() for e in r.beside] + [e for r in looks.values() for e in r.estimates]
    shown = [*library.estimates, *beside]
    rows = frame_of(shown, LiftEstimate)
    rows["sd"] = rows["std_error"]
    for name in ("iroas", "iroas_p05", "iroas_p95"):
        rows[name] = [iroas(e)[name] for e in shown]
    rows["published"] = [i < len(library.estimates) for i in range(len(shown))]
    family = {
        (name, arm, metric): float(p)
        for name, reading in users.items()
        for metric, arms in reading.families.items()
        for arm, p in zip(arms.arms, arms.dunnett, strict=True)
    }
    rows["p_value_family"] = [
        family.get((e.experiment, e.arm, e.metric), np.nan) if published else np.nan
        for e, published in zip(shown, rows["published"], strict=True)
    ]
    return rows


def read_library(artifact: Artifact | None) -> tuple[LiftLibrary, dict[str, np.ndarray]]:
    """Library and counterfactual spend of geo tests; empty when there is no artifact."""
    if artifact is None:
        return LiftLibrary((), np.zeros((0, 0))), {}
    arrays = read_arrays(artifact.path("arrays.npz"))
    estimates = lifts_of(pd.read_parquet(artifact.path("estimates.parquet")))
    spends = {k.partition(".")[2]: v for k, v in arrays.items() if k.startswith("counterfactual.")}
    return LiftLibrary(estimates, arrays["covariance"]), spends


def only(library: LiftLibrary, keep: np.ndarray) -> LiftLibrary:
    """Sub-library of the positions in `keep` (n,)."""
    return LiftLibrary(tuple(library.estimates[i] for i in keep), library.covariance[np.ix_(keep, keep)])


def library_digest(artifact: Artifact | None) -> str:
    """Content of the library, '' when there is none. What is only shown (pages, checks, other readings) is no part."""
    if artifact is None:
        return ""
    return digest_of({n: artifact.files[n] for n in LIBRARY})


STEP = Step(
    name="lift",
    command="lift",
    title="Lift tests",
    rooms=(
        "contracts",
        "lift",
        "app.lift_page",
        "app.charts.lift",
        "workflow.lift_pages",
        "workflow.step_lift",
        "workflow.panel_build",
        "workflow.panel_table",
        "workflow.tables_in",
        "workflow.codec",
    ),  # fmt: skip
    skip=_skip,
    inputs=_inputs,
    settings=_settings,
    build=_build,
    valid=_pages_stand,
)
