"""`plumb check`: every input against its contract, nothing else. Counts of people's rows stay in the raw zone's log."""

from __future__ import annotations

import json

from privacy.room import require_private
from workflow.artifacts import Draft
from workflow.job import Job
from workflow.people_inputs import check_people_files
from workflow.progress import Report
from workflow.steps import Made, Step


def _inputs(job: Job) -> dict[str, str]:
    if not job.panel_door:
        require_private(job.workspace.raw)
    job.read_public_tables()  # cheap, and a broken table must stop every command, not only the first
    return job.input_hashes


def _settings(job: Job) -> object:
    return job.config.part("project", "rates", "inputs", "channels", "experiments", "privacy")


def _build(job: Job, draft: Draft, report: Report) -> Made:
    rows: list[dict[str, object]] = []
    for name in (
        "events", "spend", "controls", "assignments", "identity", "experiments", "platform_claims", "billing", "panel",
    ):  # fmt: skip
        if job.section(name) is not None:
            rows.append(_row("input_contract", name, "pass", f"{name} keeps its contract"))
    if job.panel_door:
        rows.append(_row("user_level_data", "panel", "pass", "no user-level data was used"))
    else:
        figures = check_people_files(job)
        rows += [_row(f.check_name, f.subject, f.status, f.text) for f in figures if f.check_name == "custody"]
        if job.consent == "assumed":
            rows.append(
                _row("consent", "events", "warn", "the events have no consent column; consent is assumed for all")
            )
        else:
            rows.append(_row("consent", "events", "pass", "people without consent are left out by the gate"))
    draft.path("checks.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return Made({"checks": len(rows)})


def _row(name: str, subject: str, status: str, text: str) -> dict[str, object]:
    return {"check_name": name, "subject": subject, "status": status, "value": None, "threshold": None, "text": text}


STEP = Step(
    name="check",
    command="check",
    title="Checking inputs",
    rooms=(
        "contracts",
        "privacy",
        "workflow.step_check",
        "workflow.tables_in",
        "workflow.claims_in",
        "workflow.claims_formats",
        "workflow.files_in",
        "workflow.panel_build",
        "workflow.panel_table",
    ),
    skip=lambda job: "",
    inputs=_inputs,
    settings=_settings,
    build=_build,
)
