"""Benchmarks are run by hand; what they take from the rooms must be there all the same."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
ROOMS = ("contracts", "privacy", "mmm", "lift", "attribution", "reconcile", "planning", "workflow", "simulate", "app")


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def defined(tree: ast.Module) -> set[str]:
    """Names at the top of a module."""
    names = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {a.asname or a.name for a in node.names}
        else:
            names |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return names


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda p: p.stem)
def test_what_a_benchmark_imports_of_ours_exists(path: Path) -> None:
    missing = []
    for node in ast.walk(parsed(path)):
        room, _, module = (node.module or "").partition(".") if isinstance(node, ast.ImportFrom) else ("", "", "")
        if room == "benchmarks":
            known = defined(parsed(FOLDER / f"{module}.py"))
            missing += [f"{module}.{a.name}" for a in node.names if a.name not in known]
        elif room in ROOMS:
            found = importlib.import_module(str(node.module))
            missing += [
                f"{node.module}.{a.name}"
                for a in node.names
                if not hasattr(found, a.name) and importlib.util.find_spec(f"{node.module}.{a.name}") is None
            ]
    assert not missing, f"{path.name} imports what is not there: {', '.join(missing)}"
