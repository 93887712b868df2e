"""What the commands that bring steps up to date have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from workflow.cli_base import console, date_of, execute


def run_steps(
    root: Path,
    as_json: bool,
    as_of: str | None,
    command: str | None,
    found: Callable[[Path], dict[str, Any]] | None = None,
    show: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Brings the steps of one command up to date, or all of them when it is None, and says what happened.

    `found` adds to the answer what the workspace then holds, `show` says that in words.
    """

    def work() -> dict[str, Any]:
        from workflow.job import Job
        from workflow.runner import run, run_command

        job = Job.open(root, date_of(as_of), quiet=as_json)
        result = run(job) if command is None else run_command(job, command)
        logged = ""
        if command is None and "publish" in result.made:
            from workflow.tracking import track

            logged = track(job.config, result.run_id, job.workspace.warehouse, job.workspace.report)
        return {
            "run_id": result.run_id,
            "logged": logged,
            "made": list(result.made),
            "rho_charged": result.charged_nano_rho / 1e9,
            "steps": [
                {"step": o.step, "status": o.status, "reason": o.reason, "made": o.made,
                 "seconds": o.artifact.seconds if o.artifact else None}
                for o in result.outcomes
            ],
            **(found(root) if found else {}),
        }  # fmt: skip

    def say(answer: dict[str, Any]) -> None:
        _show(root, answer)
        if show is not None:
            show(answer)

    execute(root, as_json, work, say)


def _show(root: Path, answer: dict[str, Any]) -> None:
    if not answer["made"]:
        typer.echo("Nothing to do: everything is up to date. No privacy budget was spent.")
        for row in answer["steps"]:
            if row["status"] == "done" and row["reason"]:
                typer.echo(f"{row['step']}: {row['reason']}")
        return
    table = Table("step", "what happened", "seconds", box=None, pad_edge=False)
    for row in answer["steps"]:
        happened = row["status"] if row["made"] else ("up to date" if row["status"] == "done" else row["status"])
        text = f"{happened}: {row['reason']}" if row["reason"] else happened
        table.add_row(row["step"], text, f"{row['seconds']:.1f}" if row["made"] else "")
    console().print(table)
    typer.echo(f"Privacy budget charged by this run: rho {answer['rho_charged']:g}.")
    if answer["logged"]:
        typer.echo(answer["logged"])
    if (root / "report.html").is_file():
        typer.echo(f"Report: {root / 'report.html'}   Explorer: plumb serve -C {root}")
