"""The command `plumb`. Each command prints a short table, or one JSON object with `--json`; errors are one sentence.

Exit codes: 0 done, 1 a fault of Plumbline, 2 something that the user can mend, 3 an earlier step is missing, 4 the
model did not pass its gate.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from contracts.errors import InputError, PlumblineError, WorkspaceError

app = typer.Typer(
    name="plumb",
    help="Privacy-first marketing measurement: aggregates in, an experiment-calibrated answer out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Folder = Annotated[Path, typer.Argument(metavar="[DIR]", help="The workspace: a folder with your input files.")]
Chosen = Annotated[Path | None, typer.Option("-C", "--workspace", metavar="DIR", help="The same, as an option.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
AsOf = Annotated[
    str | None,
    typer.Option("--as-of", metavar="DATE", help="Take this day for today and release the open quarter up to it, too."),
]
HERE = Path(".")


def _root(directory: Path, option: Path | None) -> Path:
    if option is not None and directory != HERE and directory != option:
        raise WorkspaceError(f"two folders are named, {directory} and {option}; name one.")
    return option or directory


def _date(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InputError(f"--as-of is {text!r}; write an ISO date such as 2026-01-31.") from None


def _execute(
    root: Path, as_json: bool, work: Callable[[], dict[str, Any]], show: Callable[[dict[str, Any]], None]
) -> None:
    """Runs one command and turns what it raises into a sentence and an exit code."""
    try:
        answer = work()
    except typer.Exit:
        raise
    except PlumblineError as error:
        _fail(as_json, str(error), error.exit_code, type(error).__name__)
    except KeyboardInterrupt:
        _fail(as_json, "interrupted; run again to go on from here.", 130, "Interrupted")
    except Exception as error:  # the last door: everything else becomes a sentence and a log
        _unexpected(root, as_json, error)
    else:
        if as_json:
            typer.echo(json.dumps({"status": "ok"} | answer, default=str))
        else:
            show(answer)


def _unexpected(root: Path, as_json: bool, error: Exception) -> None:
    from workflow.runner import disk_full

    if disk_full(error):
        sentence = f"the disk is full ({root}); make room and run again. What was published before is unchanged."
        _fail(as_json, sentence, WorkspaceError.exit_code, "WorkspaceError")
    if isinstance(error, PermissionError):
        sentence = f"{error.filename or root} may not be read or written; mend its permissions and run again."
        _fail(as_json, sentence, WorkspaceError.exit_code, "WorkspaceError")
    where = _log(root, error)
    _fail(
        as_json,
        f"an unexpected fault ({type(error).__name__}); the details are in {where}. Please report it.",
        1,
        "Fault",
    )


def _log(root: Path, error: Exception) -> str:
    """Writes the traceback beside the workspace; to the error stream when that cannot be written."""
    text = "".join(traceback.format_exception(error))
    folder = root / ".plumb" / "log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{datetime.now():%Y%m%dT%H%M%S%f}.log"
        path.write_text(text, encoding="utf-8")
    except OSError:
        typer.echo(text, err=True)
        return "the lines above"
    return str(path)


def _fail(as_json: bool, sentence: str, code: int, kind: str) -> None:
    if as_json:
        typer.echo(json.dumps({"status": "error", "error": sentence, "kind": kind, "exit_code": code}))
    else:
        typer.echo(sentence, err=True)
    raise typer.Exit(code)


def _console() -> Console:
    """Standard output; tables in a pipe or a log are not squeezed into 80 columns."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 140)


@app.command()
def init(directory: Folder = HERE, workspace: Chosen = None, as_json: Json = False) -> None:
    """Recognise the input files of a folder and write its plumb.toml."""
    root = _root(directory, workspace)

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

    _execute(root, as_json, work, show)


def _steps(root: Path, as_json: bool, as_of: str | None, command: str | None) -> None:
    def work() -> dict[str, Any]:
        from workflow.job import Job
        from workflow.runner import run, run_command

        job = Job.open(root, _date(as_of), quiet=as_json)
        result = run(job) if command is None else run_command(job, command)
        return {
            "run_id": result.run_id,
            "made": list(result.made),
            "rho_charged": result.charged_nano_rho / 1e9,
            "steps": [
                {"step": o.step, "status": o.status, "reason": o.reason, "made": o.made,
                 "seconds": o.artifact.seconds if o.artifact else None}
                for o in result.outcomes
            ],
        }  # fmt: skip

    _execute(root, as_json, work, lambda answer: _show_steps(root, answer))


def _show_steps(root: Path, answer: dict[str, Any]) -> None:
    if not answer["made"]:
        typer.echo("Nothing to do: everything is up to date. No privacy budget was spent.")
        return
    table = Table("step", "what happened", "seconds", box=None, pad_edge=False)
    for row in answer["steps"]:
        happened = row["status"] if row["made"] else ("up to date" if row["status"] == "done" else row["status"])
        text = f"{happened}: {row['reason']}" if row["reason"] else happened
        table.add_row(row["step"], text, f"{row['seconds']:.1f}" if row["made"] else "")
    _console().print(table)
    typer.echo(f"Privacy budget charged by this run: rho {answer['rho_charged']:g}.")
    if (root / "report.html").is_file():
        typer.echo(f"Report: {root / 'report.html'}   Explorer: plumb serve -C {root}")


@app.command()
def check(directory: Folder = HERE, workspace: Chosen = None, as_json: Json = False) -> None:
    """Read every input against its contract, nothing else."""
    root = _root(directory, workspace)
    _steps(root, as_json, None, "check")


@app.command()
def release(directory: Folder = HERE, workspace: Chosen = None, as_json: Json = False, as_of: AsOf = None) -> None:
    """Publish the private aggregates of people's events; the only step that reads people's rows."""
    _steps(_root(directory, workspace), as_json, as_of, "release")


@app.command()
def fit(directory: Folder = HERE, workspace: Chosen = None, as_json: Json = False) -> None:
    """Fit the marketing-mix model, with and without the experiments."""
    _steps(_root(directory, workspace), as_json, None, "fit")


@app.command()
def credit(directory: Folder = HERE, workspace: Chosen = None, as_json: Json = False) -> None:
    """Attribution from released journeys."""
    _steps(_root(directory, workspace), as_json, None, "credit")


@app.command()
def reconcile(directory: Folder = HERE, workspace: Chosen = None, as_json: Json = False) -> None:
    """Pool model, experiments and attribution."""
    _steps(_root(directory, workspace), as_json, None, "reconcile")


@app.command()
def plan(directory: Folder = HERE, workspace: Chosen = None, as_json: Json = False) -> None:
    """Find the best split of the budget."""
    _steps(_root(directory, workspace), as_json, None, "plan")


@app.command()
def report(directory: Folder = HERE, workspace: Chosen = None, as_json: Json = False) -> None:
    """Write report.html, one file that opens offline."""
    _steps(_root(directory, workspace), as_json, None, "report")


@app.command()
def run(directory: Folder = HERE, workspace: Chosen = None, as_json: Json = False, as_of: AsOf = None) -> None:
    """Do everything that is out of date. Safe to kill and to run again."""
    _steps(_root(directory, workspace), as_json, as_of, None)


@app.command()
def status(directory: Folder = HERE, workspace: Chosen = None, as_json: Json = False) -> None:
    """Say which steps are up to date."""
    root = _root(directory, workspace)

    def work() -> dict[str, Any]:
        from workflow.inspect import status_of
        from workflow.job import Job

        return status_of(Job.open(root, quiet=True))

    def show(answer: dict[str, Any]) -> None:
        table = Table("step", "state", "made at", "reason", box=None, pad_edge=False)
        for row in answer["steps"]:
            table.add_row(row["step"], row["state"], row["made_at"] or "", row["reason"])
        _console().print(table)

    _execute(root, as_json, work, show)


@app.command()
def budget(directory: Folder = HERE, workspace: Chosen = None, as_json: Json = False) -> None:
    """Show the privacy budget, spent and left, per quarter."""
    root = _root(directory, workspace)

    def work() -> dict[str, Any]:
        from workflow.inspect import budget_of
        from workflow.job import Job

        return budget_of(Job.open(root, quiet=True))

    def show(answer: dict[str, Any]) -> None:
        if not answer["blocks"]:
            typer.echo("Nothing was released yet; no privacy budget is spent.")
            return
        table = Table("quarter", "spent rho", "left rho", "grant rho", "epsilon", box=None, pad_edge=False)
        for row in answer["blocks"]:
            figures = [f"{row[k]:.4g}" for k in ("spent", "left", "cap", "epsilon")]
            table.add_row(row["block"], *figures)
        _console().print(table)
        typer.echo(f"epsilon at delta {answer['delta']:g} of one person in that quarter; "
                   f"worst case of one person over a year: {answer['year_epsilon']:.3g}.")  # fmt: skip

    _execute(root, as_json, work, show)


@app.command()
def serve(
    directory: Folder = HERE,
    workspace: Chosen = None,
    port: Annotated[int, typer.Option(help="Port of the explorer.")] = 8501,
    address: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    as_json: Json = False,
) -> None:
    """Start the explorer in the browser; it reads the warehouse only."""
    root = _root(directory, workspace)

    environment: dict[str, str] = {}

    def work() -> dict[str, Any]:
        from workflow.serve import prepare

        environment.update(prepare(root, port, address))
        return {"url": f"http://{address}:{port}"}

    _execute(root, as_json, work, lambda answer: typer.echo(f"Explorer: {answer['url']} (Ctrl+C ends it)"))
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

        show_table(answer, _console())

    _execute(root, as_json, work, show)


def _register() -> None:
    """Commands in modules of their own, which read the helpers above."""
    from workflow.cli_lift import register

    register(app)


_register()


def main() -> None:
    """Entry point of `plumb`."""
    try:
        app()
    except BrokenPipeError:
        sys.exit(0)


if __name__ == "__main__":
    main()
