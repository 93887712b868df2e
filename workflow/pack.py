"""`plumb report --pack quarter`: the review of the planning period as HTML, XLSX, PPTX and PDF beside the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from app import store
from app.pack import pack
from app.review import digest, review
from workflow.artifacts import replace_bytes
from workflow.paths import Workspace

NAME = "budget-review"


def write_pack(root: Path) -> dict[str, Any]:
    """Writes the review of what the warehouse holds. Raises WorkspaceError without a readable warehouse."""
    warehouse = Workspace(root).warehouse
    found = review(store.load(warehouse))
    files = pack(found, digest(warehouse))
    for kind, content in files.items():
        replace_bytes(root / f"{NAME}.{kind}", content)
    return {
        "pack": [str(root / f"{NAME}.{kind}") for kind in files],
        "plan": found.chosen.name if found.chosen else None,
        "missing": found.missing,
    }


def show_pack(answer: dict[str, Any]) -> None:
    """Says where the review is and what it does not hold."""
    typer.echo("Budget review: " + "  ".join(answer["pack"]))
    for line in answer["missing"]:
        typer.echo(f"  {line}")
