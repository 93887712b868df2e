"""Optional: what a run published, as a run of MLflow, where a tracking server is set. Aggregates only.

Without MLFLOW_TRACKING_URI this module does nothing. A server that is down never fails a run: the figures are published
already, and the sentence that comes back says that they were not logged.
"""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path
from typing import Any

import pandas as pd

from workflow.config import Config
from workflow.warehouse import read_view

VARIABLE = "MLFLOW_TRACKING_URI"
TAG = "plumbline.run_id"
FIGURES = ("mean", "p05", "p95")
_UNSAFE = re.compile(r"[^A-Za-z0-9_\-. /]")  # what MLflow allows in a metric's name


def metrics_of(warehouse: Path) -> dict[str, float]:
    """Name -> figure: totals and factors per channel with their 90 % interval, and every check that has a value."""
    out: dict[str, float] = {}
    effects = read_view(warehouse, "v_effects")
    for row in effects[effects["scope"] == "total"].to_dict("records"):
        out |= {f"{row['metric']}/{row['channel']}/{f}": row[f] for f in FIGURES}
    for row in read_view(warehouse, "v_incrementality").to_dict("records"):
        out |= {f"factor {row['model']}/{row['channel']}/{f}": row[f] for f in FIGURES}
    for row in read_view(warehouse, "v_checks").to_dict("records"):
        out[f"check/{row['check_name']}/{row['subject']}"] = row["value"]
    return {_UNSAFE.sub("_", name): float(value) for name, value in out.items() if not pd.isna(value)}


def params_of(config: Config, run_id: str) -> dict[str, str]:
    """Settings that made the figures."""
    model = config.part("model")["model"]
    project = {"project": config.project.name, "kpi": config.project.kpi, "currency": config.project.currency}
    return {"run_id": run_id} | project | {f"model.{k}": str(v) for k, v in model.items()}


def track(config: Config, run_id: str, warehouse: Path, report: Path) -> str:
    """Logs one published run, once. Returns a sentence for the user; '' when no tracking server is set."""
    uri = os.environ.get(VARIABLE, "")
    if not uri:
        return ""
    try:
        mlflow: Any = importlib.import_module("mlflow")
    except ImportError:
        return f"{VARIABLE} is set, but mlflow is not installed, so nothing was logged; pip install plumbline[mlflow]."
    try:
        mlflow.set_tracking_uri(uri)
        experiment = mlflow.set_experiment(config.project.name)
        filter_string = f"tags.`{TAG}` = '{run_id}'"
        if mlflow.search_runs([experiment.experiment_id], filter_string, output_format="list"):
            return f"{run_id} is logged at {uri} already."
        with mlflow.start_run(run_name=run_id, tags={TAG: run_id}):
            mlflow.log_params(params_of(config, run_id))
            mlflow.log_metrics(metrics_of(warehouse))
            mlflow.log_artifact(str(report))
    except (mlflow.exceptions.MlflowException, OSError) as error:
        return f"{run_id} was not logged at {uri}: {str(error).splitlines()[0]}"
    return f"{run_id} was logged at {uri}."
