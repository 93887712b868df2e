"""Fixture warehouses of the explorer's tests, one file per variant, made once per session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import app_sample_warehouse as sample
import pytest

from app import store
from app.store import Snapshot


@pytest.fixture(scope="session")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Path of the fixture warehouse of a variant of `app_sample_warehouse`."""
    folder = tmp_path_factory.mktemp("warehouses")

    def build(name: str) -> Path:
        path = folder / f"{name}.duckdb"
        return path if path.exists() else sample.write(path, sample.variant(name))

    return build


@pytest.fixture(scope="session")
def snapshot(warehouse: Callable[[str], Path]) -> Callable[[str], Snapshot]:
    """Snapshot of a variant."""
    held: dict[str, Snapshot] = {}

    def read(name: str) -> Snapshot:
        if name not in held:
            held[name] = store.load(warehouse(name))
        return held[name]

    return read
