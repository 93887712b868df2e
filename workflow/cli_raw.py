"""`plumb forget` and `plumb quarantine`: the raw zone's commands for the operator."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from contracts.errors import InputError
from workflow.cli_base import HERE, Chosen, Json, execute


def add_raw(app: typer.Typer) -> None:
    """Adds both commands."""
    app.command()(forget)
    app.command()(quarantine)


def forget(
    user_id: Annotated[str, typer.Argument(help="Any id of the person; - reads it from standard input.")],
    workspace: Chosen = None,
    as_json: Json = False,
) -> None:
    """Delete a person from the raw zone and from every later release."""
    root = workspace or HERE

    def work() -> dict[str, Any]:
        from workflow.job import Job
        from workflow.people_inputs import forget as forget_person
        from workflow.runner import locked

        job = Job.open(root, quiet=True)
        if job.panel_door:
            raise InputError("this workspace holds no user-level data; there is nobody to forget.")
        with locked(job.workspace):
            done = forget_person(job, sys.stdin.readline().rstrip("\r\n") if user_id == "-" else user_id)
        return {
            "known_before": done.known_before,
            "cleaned": list(done.partitions),
            "still_in": [str(p) for p in done.still_in],
        }

    def show(answer: dict[str, Any]) -> None:
        typer.echo(f"Every later load leaves this person out{', as before' if answer['known_before'] else ''}.")
        for name in answer["cleaned"]:
            typer.echo(f"Taken out of raw/{name}.")
        for path in answer["still_in"]:
            typer.echo(f"Still holds the person, and is yours to mend: {path}")
        typer.echo("Published releases hold no row of anybody and stay as they are.")

    execute(root, as_json, work, show)


def quarantine(
    name: Annotated[str, typer.Argument(help="events or assignments")] = "events",
    workspace: Chosen = None,
    as_json: Json = False,
) -> None:
    """Print the malformed rows of the newest load as CSV. They are about people: mind where they go."""
    root = workspace or HERE

    def work() -> dict[str, Any]:
        from workflow.job import Job
        from workflow.people_inputs import quarantine_text

        return {"csv": quarantine_text(Job.open(root, quiet=True), name)}

    def show(answer: dict[str, Any]) -> None:
        typer.echo(answer["csv"] or "No row is set aside.", nl=not answer["csv"])

    execute(root, as_json, work, show)
