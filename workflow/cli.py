"""The command `plumb`. Each command prints a short table, or one JSON object with `--json`; errors are one sentence.

Exit codes: 0 done, 1 a fault of Plumbline, 2 something that the user can mend, 3 an earlier step is missing, 4 the
model did not pass its gate, 5 a release does not verify.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from workflow.cli_base import HERE, AsOf, Chosen, Folder, Json, console, execute, root_of
from workflow.cli_budget import add_budget
from workflow.cli_goal import add_goals
from workflow.cli_lift import add_lift
from workflow.cli_raw import add_raw
from workflow.cli_scenario import add_scenario
from workflow.cli_steps import run_steps
from workflow.cli_token import add_token


class Pack(StrEnum):
    """What a review pack can cover."""

    QUARTER = "quarter"


app = typer.Typer(
    name="plumb",
    help="Privacy-first marketing measurement: aggregates in, an experiment-calibrated answer out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
add_budget(app)
add_raw(app)
add_lift(app)
add_token(app)
add_goals(add_scenario(app))


@app.command()
def init(directory: Folder = HERE, workspace: Chosen = None, as_json: Json = False) -> None:
    """Recognise the input files of a folder and write its plumb.toml."""
    root = root_of(directory, workspace)

    def work() -> dict[str, Any]:
        from workflow.init import initialise

        done = initialise(root)
        return {
            "config": str(done.config), "created": done.created, "added": list(done.added), "inputs": list(done.inputs),
            "notes": list(done.notes),
        }  # fmt: skip

    def show(answer: dict[str, Any]) -> None:
        verb = "Wrote" if answer["created"] else ("Completed" if answer["added"] else "Nothing to add to")
        typer.echo(f"{verb} {answer['config']}; inputs: {', '.join(answer['inputs']) or 'none found'}.")
        for note in answer["notes"]:
            typer.echo(f"Note: {note}")
        typer.echo(f"Next: plumb run {root}")

    execute(root, as_json, work, show)


@app.command()
def check(directory: Folder = HERE, workspace: Chosen = None, as_json: Json = False) -> None:
    """Read every input against its contract, nothing else."""
    root = root_of(directory, workspace)
    run_steps(root, as_json, None, "check")


@app.command()
def release(directory: Folder = HERE, workspace: Chosen = None, as_json: Json = False, as_of: AsOf = None) -> None:
    """Publish the private aggregates of people's events; the only step that reads people's rows."""
    run_steps(root_of(directory, workspace), as_json, as_of, "release")


@app.command()
def fit(directory: Folder = HERE, workspace: Chosen = None, as_json: Json = False) -> None:
    """Fit the marketing-mix model, with and without the experiments."""
    run_steps(root_of(directory, workspace), as_json, None, "fit")


@app.command()
def credit(directory: Folder = HERE, workspace: Chosen = None, as_json: Json = False) -> None:
    """Attribution from released journeys."""
    run_steps(root_of(directory, workspace), as_json, None, "credit")


@app.command()
def reconcile(directory: Folder = HERE, workspace: Chosen = None, as_json: Json = False) -> None:
    """Pool model, experiments and attribution."""
    run_steps(root_of(directory, workspace), as_json, None, "reconcile")


@app.command()
def plan(directory: Folder = HERE, workspace: Chosen = None, as_json: Json = False) -> None:
    """Find the best split of the budget."""
    run_steps(root_of(directory, workspace), as_json, None, "plan")


@app.command()
def report(
    directory: Folder = HERE,
    workspace: Chosen = None,
    as_json: Json = False,
    pack: Annotated[
        Pack | None, typer.Option(help="Also write the review of the planning period (HTML, XLSX, PPTX, PDF).")
    ] = None,
) -> None:
    """Write report.html, one file that opens offline; with --pack quarter the budget review, too."""
    root = root_of(directory, workspace)
    if pack is None:
        run_steps(root, as_json, None, "report")
    else:
        from workflow.pack import show_pack, write_pack  # slides and paper need libraries that nothing else does

        run_steps(root, as_json, None, "report", write_pack, show_pack)


@app.command()
def run(directory: Folder = HERE, workspace: Chosen = None, as_json: Json = False, as_of: AsOf = None) -> None:
    """Do everything that is out of date. Safe to kill and to run again."""
    run_steps(root_of(directory, workspace), as_json, as_of, None)


@app.command()
def status(directory: Folder = HERE, workspace: Chosen = None, as_json: Json = False) -> None:
    """Say which steps are up to date."""
    root = root_of(directory, workspace)

    def work() -> dict[str, Any]:
        from workflow.inspect import status_of
        from workflow.job import Job

        return status_of(Job.open(root, quiet=True))

    def show(answer: dict[str, Any]) -> None:
        table = Table("step", "state", "made at", "reason", box=None, pad_edge=False)
        for row in answer["steps"]:
            table.add_row(row["step"], row["state"], row["made_at"] or "", row["reason"])
        console().print(table)

    execute(root, as_json, work, show)


@app.command()
def serve(
    directory: Folder = HERE,
    workspace: Chosen = None,
    port: Annotated[int, typer.Option(help="Port of the explorer.")] = 8501,
    address: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    as_json: Json = False,
) -> None:
    """Start the explorer in the browser; it reads the warehouse only."""
    root = root_of(directory, workspace)

    environment: dict[str, str] = {}

    def work() -> dict[str, Any]:
        from workflow.serve import prepare

        environment.update(prepare(root, port, address))
        return {"url": f"http://{address}:{port}"}

    execute(root, as_json, work, lambda answer: typer.echo(f"Explorer: {answer['url']} (Ctrl+C ends it)"))
    from workflow.serve import become

    become(port, address, environment, quiet=as_json)


@app.command()
def demo(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to put the demo workspace.")] = Path("demo"),
    people: Annotated[int, typer.Option(help="People in the simulated world.")] = 100_000,
    geos: Annotated[int, typer.Option(help="Geos.")] = 12,
    weeks: Annotated[int, typer.Option(help="Weeks.")] = 78,
    seed: Annotated[int, typer.Option(help="Seed of the world.")] = 1,
    workspace: Chosen = None,
    as_json: Json = False,
) -> None:
    """Simulate a world whose truth is known, run everything on it and compare."""
    root = workspace or directory

    def work() -> dict[str, Any]:
        from workflow.demo import run_demo

        return run_demo(root, people=people, geos=geos, weeks=weeks, seed=seed, quiet=as_json)

    def show(answer: dict[str, Any]) -> None:
        from workflow.demo import show_table

        show_table(answer, console())

    execute(root, as_json, work, show)


def main() -> None:
    """Entry point of `plumb`."""
    try:
        app()
    except BrokenPipeError:
        sys.exit(0)


if __name__ == "__main__":
    main()
