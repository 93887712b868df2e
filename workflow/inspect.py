"""`plumb status` and `plumb budget`: what there is, without doing anything."""

from __future__ import annotations

from typing import Any

from contracts.errors import MissingStep, PlumblineError
from workflow.artifacts import all_of
from workflow.job import Job
from workflow.runner import ORDER, bring
from workflow.step_release import charges_view, epsilon_of


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


def budget_of(job: Job) -> dict[str, Any]:
    """Spent and left of every quarter's grant, with epsilon, and the worst case of one person over a year."""
    delta = job.config.privacy.delta
    charges = charges_view(job)
    blocks: list[dict[str, Any]] = []
    for block, rows in charges.groupby("block", sort=True):
        spent, cap = float(rows["block_spent"].iloc[0]), float(rows["block_cap"].iloc[0])
        blocks.append({"block": block, "spent": spent, "left": cap - spent, "cap": cap,
                       "epsilon": epsilon_of(spent, delta)})  # fmt: skip
    spent_by_quarter = [float(b["spent"]) for b in blocks]
    year = max((sum(spent_by_quarter[i : i + 4]) for i in range(len(spent_by_quarter))), default=0.0)
    return {
        "blocks": blocks,
        "delta": delta,
        "year_rho": year,
        "year_epsilon": epsilon_of(year, delta) if year > 0 else 0.0,
        "charges": charges.drop(columns=["charged_at"]).to_dict("records"),
    }
