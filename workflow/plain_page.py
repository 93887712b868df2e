"""The readout page of `plumb lift --panel FILE --readout PAGE`: the same page as in a workspace, the plan beside it."""

from __future__ import annotations

import dataclasses
import math
from datetime import date
from typing import Any

import numpy as np

from app.lift_page import lift_page
from contracts.errors import InputError
from contracts.evidence import LiftEstimate
from contracts.readout import PlanLine
from lift.geo import GeoFit, t_columns
from lift.protocol import GeoEstimator, GeoResult, GeoTest
from lift.readout import geo_readout
from workflow.panel_file import PlainPanel


def plain_page(
    panel: PlainPanel, estimator: GeoEstimator, test: GeoTest, result: GeoResult, answer: dict[str, Any],
    record: dict[str, Any],
) -> str:  # fmt: skip
    """HTML of one plain readout. `answer`: as printed by the command; `record`: of a sealed design, or empty."""
    estimate = LiftEstimate(
        experiment=record.get("experiment", panel.path.stem), estimator=result.estimator, kind="geo",
        channel=record.get("channel") or "not named", arm="", metric="kpi", start=date.fromisoformat(answer["start"]),
        end=date.fromisoformat(answer["end"]), treated=tuple(answer["treated"]), mean=result.mean,
        std_error=result.std_error,
        dof=result.dof, **_columns(estimator, test, result), p_value=result.p_value,
        noise_variance_share=result.noise_variance_share, spend_delta=answer.get("spend_delta", math.nan),
        spend_delta_se=answer.get("spend_delta_se", 0.0), evidence_ids=(),
    )  # fmt: skip
    fit = GeoFit(estimate, result.cell_weights, result.own_variance, result)
    page = geo_readout(test, fit, panel.periods, "", _plan(record, answer, test, result), estimator=estimator)
    return lift_page(page)


def _columns(estimator: GeoEstimator, test: GeoTest, result: GeoResult) -> dict[str, Any]:
    """p05 to p95: of the t where the estimator has one, else its own intervals at 90 and 80 %, read again."""
    if not math.isnan(result.dof):
        columns = t_columns(result.mean, result.std_error, result.dof)
        del columns["p_value"]
        return columns
    if not (dataclasses.is_dataclass(estimator) and hasattr(estimator, "level")):
        raise InputError(
            f"--readout needs an interval at 90 %, which {result.estimator!r} cannot give; choose another."
        )
    wide, narrow = (dataclasses.replace(estimator, level=x)(test) for x in (0.9, 0.8))
    return {"p05": wide.lower, "p10": narrow.lower, "p50": result.mean, "p90": narrow.upper, "p95": wide.upper}


def _plan(record: dict[str, Any], answer: dict[str, Any], test: GeoTest, result: GeoResult) -> tuple[PlanLine, ...]:
    """The sealed design's promises beside what came; nothing without a design."""
    if not record:
        return ()
    chosen = record["chosen"]
    without = float(np.nansum(result.counterfactual[test.window]))
    lines = [
        PlanLine("periods in the window", float(chosen["duration"]), float(answer["window_periods"]), ""),
        PlanLine("effect (planned: smallest detectable)", chosen["mde"], _share(result.mean, without), "of the level"),
        PlanLine("same, KPI units", chosen["mde_kpi"], result.mean, "kpi"),
        PlanLine("standard error", chosen["std_error_kpi"], result.std_error, "kpi"),
    ]
    if chosen.get("noise_share") is not None:
        lines.append(PlanLine("noise share of the variance", chosen["noise_share"], result.noise_variance_share, ""))
    return tuple(lines)


def _share(value: float, level: float) -> float:
    return value / level if level > 0 else math.nan
