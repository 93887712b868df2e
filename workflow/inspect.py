"""`plumb status`: what there is, without doing anything."""

from __future__ import annotations

from typing import Any

from contracts.errors import MissingStep, PlumblineError
from workflow.artifacts import all_of
from workflow.job import Job
from workflow.runner import ORDER, bring


def status_of(job: Job) -> dict[str, Any]:
    """State of each step: 'up to date', 'stale', 'never run', 'skipped', 'failed_gate' or 'blocked'."""
    rows: list[dict[str, Any]] = []
    blocked = False
    for step in ORDER:
        made = all_of(job.workspace.runs, step)
        made_at = made[-1].finished_at.isoformat(" ", "seconds") if made else None
        row: dict[str, Any] = {"step": step, "state": "", "made_at": made_at, "reason": ""}
        if blocked:
            row["state"] = "stale" if made else "never run"
        else:
            try:
                outcome = bring(job, step, build=False)
                row["state"] = "up to date" if outcome.status == "done" else outcome.status
                row["reason"] = outcome.reason
            except MissingStep:
                row["state"] = "stale" if made else "never run"
                blocked = step != "check"  # nothing is made from a check
            except PlumblineError as error:
                row["state"], row["reason"], blocked = "blocked", str(error), True
        rows.append(row)
    return {"steps": rows}
