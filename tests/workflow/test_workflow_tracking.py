"""Logging to MLflow: nothing without a server, once with one, and never a reason to fail."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from contracts.intervals import normal_interval
from workflow import tracking
from workflow.config import Config, parse

CONFIG: Config = parse({"project": {"id": "abcd", "name": "Shop"}, "inputs": {"events": {"path": "events.csv"}}})
SCOPES = (("total", 2.0), ("geo", 9.0))
EFFECT = {"channel": "tv (new)", "metric": "roi"}
CHECKS = (("ess", "b", 700.0), ("plan", "x", None))
VIEWS = {
    "v_effects": pd.DataFrame([EFFECT | {"scope": s} | normal_interval(m, 0.1) for s, m in SCOPES]),
    "v_incrementality": pd.DataFrame([{"model": "last_touch", "channel": "tv"} | normal_interval(float("nan"), 0.1)]),
    "v_checks": pd.DataFrame(CHECKS, columns=["check_name", "subject", "value"]),
}


class MlflowException(Exception):
    """As MLflow's."""


class Server(ModuleType):
    """What we call of mlflow, recorded."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.logged: dict[str, Any] = {}
        self.runs: list[str] = []
        self.down = False
        self.exceptions = type("exceptions", (), {"MlflowException": MlflowException})

    def set_tracking_uri(self, uri: str) -> None:
        self.logged["uri"] = uri

    def set_experiment(self, name: str) -> Any:
        if self.down:
            raise MlflowException("no answer\nfrom the server")
        self.logged["experiment"] = name
        return type("Experiment", (), {"experiment_id": "7"})

    def search_runs(self, ids: list[str], filter_string: str, output_format: str) -> list[str]:
        assert ids == ["7"] and output_format == "list"
        return [r for r in self.runs if f"'{r}'" in filter_string]

    @contextmanager
    def start_run(self, run_name: str, tags: dict[str, str]) -> Iterator[None]:
        assert tags == {tracking.TAG: run_name}
        self.runs.append(run_name)
        yield

    def log_params(self, params: dict[str, str]) -> None:
        self.logged["params"] = params

    def log_metrics(self, metrics: dict[str, float]) -> None:
        self.logged["metrics"] = metrics

    def log_artifact(self, path: str) -> None:
        self.logged["artifact"] = path


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """A recording stand-in for mlflow, and a warehouse with three views."""
    found = Server()
    monkeypatch.setitem(sys.modules, "mlflow", found)
    monkeypatch.setattr(tracking, "read_view", lambda path, name: VIEWS[name])
    monkeypatch.setenv(tracking.VARIABLE, "http://tracking")
    return found


def call() -> str:
    """Tracks the run 'run-1'."""
    return tracking.track(CONFIG, "run-1", Path("w.duckdb"), Path("report.html"))


def test_without_a_server_nothing_happens(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tracking.VARIABLE)
    assert call() == "" and server.logged == {}


def test_a_published_run_is_logged_once(server: Server) -> None:
    assert call() == "run-1 was logged at http://tracking."
    metrics = server.logged["metrics"]
    assert metrics["roi/tv _new_/mean"] == 2.0 and metrics["check/ess/b"] == 700.0
    assert len(metrics) == 4, "missing figures and other scopes stay out"
    assert server.logged["params"]["run_id"] == "run-1" and server.logged["params"]["model.seed"] == "1"
    assert server.logged["experiment"] == "Shop" and server.logged["artifact"] == "report.html"
    assert "already" in call() and server.runs == ["run-1"]


def test_a_server_that_is_down_is_said_and_does_not_fail_the_run(server: Server) -> None:
    server.down = True
    assert call() == "run-1 was not logged at http://tracking: no answer"


def test_a_missing_library_is_said(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert "mlflow is not installed" in call()
