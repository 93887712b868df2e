"""`plumb report --pack quarter`: the budget review as a workbook beside the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from app import store
from app.review import digest, review
from app.workbook import workbook
from workflow.artifacts import replace_bytes

NAME = "budget-review.xlsx"


def write_pack(root: Path) -> dict[str, Any]:
    """Writes the review of what the warehouse holds. Raises WorkspaceError without a readable warehouse."""
    warehouse = root / "warehouse.duckdb"
    found = review(store.load(warehouse))
    replace_bytes(root / NAME, workbook(found, digest(warehouse)))
    return {"pack": str(root / NAME), "plan": found.chosen.name if found.chosen else None, "missing": found.missing}


def show_pack(answer: dict[str, Any]) -> None:
    """Says where the review is and what it does not hold."""
    typer.echo(f"Budget review: {answer['pack']}")
    for line in answer["missing"]:
        typer.echo(f"  {line}")
