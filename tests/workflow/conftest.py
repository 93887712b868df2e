"""A small simulated workspace, made once, and copies of it that a test may break."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from simulate.world import simulate
from workflow.cli import app


@pytest.fixture(autouse=True)
def private_config(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Secrets of each test lie in a folder of their own."""
    home = tmp_path_factory.mktemp("config")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Input files of a small world (600 people, 4 geos, 39 weeks) without a plumb.toml."""
    folder = tmp_path_factory.mktemp("world") / "inputs"
    simulate(folder, people=600, geos=4, weeks=39, seed=3)
    return folder


@pytest.fixture()
def workspace(world: Path, tmp_path: Path) -> Path:
    """A copy of the small world that a test may change."""
    folder = tmp_path / "work"
    shutil.copytree(world, folder, ignore=shutil.ignore_patterns("truth"))
    return folder


Plumb = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture()
def plumb() -> Plumb:
    """Runs a `plumb` command with --json: (exit code, its JSON object)."""

    def call(*arguments: object) -> tuple[int, dict[str, Any]]:
        result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        answer: dict[str, Any] = json.loads(result.stdout)
        return result.exit_code, answer

    return call
