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
from workflow.init import initialise


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


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small workspace with everything released, and its secrets beside it."""
    folder = tmp_path_factory.mktemp("released")
    simulate(folder / "work", people=500, geos=4, weeks=26, seed=4)
    shutil.rmtree(folder / "work" / "truth")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CONFIG_HOME", str(folder / "secrets"))
        initialise(folder / "work")
        result = CliRunner().invoke(app, ["release", str(folder / "work"), "--json"])
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def work(released: Path, tmp_path: Path, private_config: Path) -> Path:
    """A copy of the released workspace that a test may break or go on with, and its secrets."""
    shutil.copytree(released / "secrets", private_config, dirs_exist_ok=True)
    shutil.copytree(released / "work", tmp_path / "work")
    return tmp_path / "work"


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
