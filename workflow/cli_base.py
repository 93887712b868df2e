"""What the modules of the command line share: the arguments of every command, and how an error becomes a sentence."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from contracts.errors import InputError, PlumblineError, WorkspaceError

Folder = Annotated[Path, typer.Argument(metavar="[DIR]", help="The workspace: a folder with your input files.")]
Chosen = Annotated[Path | None, typer.Option("-C", "--workspace", metavar="DIR", help="The same, as an option.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
AsOf = Annotated[
    str | None,
    typer.Option("--as-of", metavar="DATE", help="Take this day for today and release the open quarter up to it, too."),
]
HERE = Path(".")


def root_of(directory: Path, option: Path | None) -> Path:
    """The workspace that a command names. Raises WorkspaceError for two different ones."""
    if option is not None and directory != HERE and directory != option:
        raise WorkspaceError(f"two folders are named, {directory} and {option}; name one.")
    return option or directory


def date_of(text: str | None) -> date | None:
    """The day of --as-of. Raises InputError."""
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InputError(f"--as-of is {text!r}; write an ISO date such as 2026-01-31.") from None


def execute(
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
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as stream:
            stream.write(text)  # a library's message may quote a cell
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


def console() -> Console:
    """Standard output; tables in a pipe or a log are not squeezed into 80 columns."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 140)
