"""`plumb lift --panel` and `plumb design`: what the two commands do, from plain values to plain values."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from contracts.errors import InputError
from contracts.evidence import LiftEstimate
from lift.controls import MIN_PRE, usable_donors
from lift.design import Design, DesignPanel, DesignSpec, market_selection, mde_against_noise
from lift.design_record import open_sealed, platform_rows, seal_design
from lift.geo import t_columns
from lift.iroas import require_iroas
from lift.protocol import GeoResult, GeoTest
from lift.registry import ESTIMATORS
from lift.spend import SpendDelta, spend_from_arrays
from workflow.panel_file import PlainPanel


@dataclass(frozen=True, slots=True)
class Readout:
    """What one readout was asked for. `cool_down`: periods after `end` whose outcome still counts (carry-over)."""

    treated: tuple[str, ...]
    start: date
    end: date  # inclusive, last day of the change in advertising
    cool_down: int = 0
    excluded: tuple[str, ...] = ()
    estimator: str = "gls_control"
    spend_delta: float | None = None
    want_iroas: bool = False
    dark: bool = False


def _index(panel: PlainPanel, names: tuple[str, ...], option: str) -> np.ndarray:
    unknown = [n for n in names if n not in panel.geos]
    if unknown:
        raise InputError(
            f"{option} names {', '.join(map(repr, unknown))}, which {panel.path.name} does not hold; it holds "
            f"{', '.join(panel.geos)}."
        )
    return np.array([panel.geos.index(n) for n in names], dtype=int)


def build_test(panel: PlainPanel, asked: Readout) -> GeoTest:
    """The arrays of one readout. Raises InputError for unknown geos or a window outside the file."""
    if asked.end < asked.start:
        raise InputError(f"the test ends ({asked.end}) before it starts ({asked.start}); swap --start and --end.")
    if asked.cool_down < 0:
        raise InputError(f"--cool-down is {asked.cool_down}; write 0 or more periods.")
    treated = _index(panel, asked.treated, "--treated")
    last = asked.end + timedelta(days=asked.cool_down * panel.period_days)
    window = np.array(
        [
            i
            for i, d in enumerate(panel.periods)
            if d + timedelta(days=panel.period_days - 1) >= asked.start and d <= last
        ]
    )
    file_end = panel.periods[-1] + timedelta(days=panel.period_days - 1)
    if not len(window) or last > file_end:
        raise InputError(
            f"{panel.path.name} covers {panel.periods[0]} to {file_end}, not the whole test from {asked.start} to "
            f"{last}; correct the dates or load the missing rows."
        )
    pre = np.arange(int(window[0]))
    if len(pre) < MIN_PRE:
        raise InputError(
            f"{panel.path.name} has {len(pre)} periods before {asked.start}; a readout needs at least {MIN_PRE}. Load "
            "a longer history."
        )
    barred = np.concatenate([treated, _index(panel, asked.excluded, "--exclude")])
    candidates = np.setdiff1d(np.arange(len(panel.geos)), barred)
    donors = usable_donors(panel.kpi, panel.noise, candidates, pre)
    if not len(donors):
        raise InputError(
            f"{panel.path.name} leaves no control geo: every other geo is excluded, has fewer than {MIN_PRE} values "
            "before the test, or a KPI that does not stand clear of its released noise. Leave some geos untreated."
        )
    return GeoTest(panel.path.stem, panel.kpi, panel.noise, treated, donors, pre, window, float(panel.period_days))


def read_lift(
    panel: PlainPanel, asked: Readout, page: Path | None = None, record: dict[str, Any] | None = None
) -> dict[str, Any]:
    """One readout as plain values; `page`: also write its HTML there, against the sealed design `record`.

    Raises ContractError or InputError with a sentence that says what to mend.
    """
    if asked.estimator not in ESTIMATORS:
        raise InputError(f"--estimator is {asked.estimator!r}; choose one of {', '.join(ESTIMATORS)}.")
    test = build_test(panel, asked)
    result = ESTIMATORS[asked.estimator](test)
    answer = {
        "estimator": result.estimator, "inference": result.inference, "treated": list(asked.treated),
        "start": asked.start.isoformat(), "end": asked.end.isoformat(), "cool_down": asked.cool_down,
        "history_periods": len(test.pre), "window_periods": len(test.window), "control_geos": len(test.donors),
        "mean": result.mean, "std_error": result.std_error, "level": result.level, "lower": result.lower,
        "upper": result.upper, "p_value": result.p_value, "lift": _relative(result, test),
        "noise_variance_share": result.noise_variance_share, **_return(panel, asked, test, result),
        "path": [
            {"period": panel.periods[t].isoformat(), "effect": _number(e), "sd": _number(s)}
            for t, e, s in zip(test.window, result.path, result.path_sd, strict=True)
        ],
        "diagnostics": dict(result.diagnostics),
    }  # fmt: skip
    if page is not None:
        answer["readout"] = _write_page(panel, asked, test, result, answer, page, record or {})
    return answer


def _write_page(
    panel: PlainPanel, asked: Readout, test: GeoTest, result: GeoResult, answer: dict[str, Any], page: Path,
    record: dict[str, Any],
) -> str:  # fmt: skip
    from workflow.artifacts import replace_text
    from workflow.plain_page import plain_page

    if not page.parent.is_dir():
        raise InputError(f"--readout is {page}, and {page.parent} is not a folder; create it or choose another place.")
    replace_text(page, plain_page(panel, ESTIMATORS[asked.estimator], test, result, answer, record))
    return str(page)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _relative(result: GeoResult, test: GeoTest) -> float | None:
    without = float(np.nansum(result.counterfactual[test.window]))
    return result.mean / without if without > 0 else None


def _return(panel: PlainPanel, asked: Readout, test: GeoTest, result: GeoResult) -> dict[str, Any]:
    """Spend change and iROAS, where either is asked for."""
    if asked.spend_delta is None and (panel.spend is None or not asked.want_iroas):
        if asked.want_iroas:
            raise InputError("--iroas needs the spend change: give --spend-delta, or a spend column in the panel.")
        return {}
    if asked.spend_delta is not None:
        delta = SpendDelta(asked.spend_delta, 0.0, np.zeros((0, 0)))
    else:
        assert panel.spend is not None
        delta = spend_from_arrays(panel.path.stem, panel.spend, test.treated, test.donors, test.window, test.pre)
    from lift.spend import spend_correlation

    gap = (test.treated_sum()[0] - result.counterfactual)[test.pre]
    dof = result.dof if np.isfinite(result.dof) else float("inf")
    estimate = LiftEstimate(
        experiment=panel.path.stem, estimator=result.estimator, kind="geo", channel="", arm="", metric="kpi",
        start=asked.start, end=asked.end, treated=asked.treated, mean=result.mean, std_error=result.std_error, dof=dof,
        **t_columns(result.mean, result.std_error, dof), noise_variance_share=result.noise_variance_share,
        spend_delta=delta.value, spend_delta_se=delta.se, evidence_ids=(),
        spend_correlation=spend_correlation(delta, gap),
    )  # fmt: skip
    return {"spend_delta": delta.value, "spend_delta_se": delta.se, **require_iroas(estimate, dark=asked.dark)}


def design_panel(panel: PlainPanel) -> DesignPanel:
    """The file as a history to plan on; spend is its mean per geo and period."""
    return DesignPanel(
        panel.geos, panel.kpi, panel.noise, float(panel.period_days),
        None if panel.spend is None else panel.spend.mean(axis=1),
    )  # fmt: skip


def plan(panel: PlainPanel, spec: DesignSpec, noise_factors: tuple[float, ...]) -> tuple[Design, pd.DataFrame | None]:
    """The ranked table and, where factors are given, the MDE against the window's released noise."""
    history = design_panel(panel)
    return market_selection(history, spec), mde_against_noise(history, spec, noise_factors) if noise_factors else None


def write_design(
    design: Design, panel: PlainPanel, folder: Path, *, row: int, experiment: str, channel: str, start: date | None
) -> dict[str, str]:
    """Writes table, sealed record, its seal and the platform's file; returns their paths. Nothing is overwritten."""
    begin = start or panel.periods[-1] + timedelta(days=panel.period_days)
    sealed = seal_design(
        design, row, experiment=experiment, channel=channel, start=begin, period_days=panel.period_days,
        estimator="gls_control",
    )  # fmt: skip
    paths = {n: folder / f for n, f in (("table", "design.csv"), ("record", f"{experiment}.design.json"),
             ("seal", f"{experiment}.design.sha256"), ("platform", f"{experiment}.geos.csv"))}  # fmt: skip
    if paths["record"].exists():
        raise InputError(
            f"{paths['record']} exists; a sealed design is never overwritten. Choose another --experiment or --out."
        )
    folder.mkdir(parents=True, exist_ok=True)
    design.table.to_csv(paths["table"], index=False)
    paths["record"].write_text(sealed.text, encoding="utf-8")
    paths["seal"].write_text(sealed.seal + "\n", encoding="utf-8")
    rows = platform_rows(sealed)
    with paths["platform"].open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return {"seal_hash": sealed.seal} | {k: str(v) for k, v in paths.items()}


def from_record(path: Path, asked: Readout) -> tuple[Readout, dict[str, Any]]:
    """The readout that a sealed design asks for, and the record. Raises ContractError when the seal is broken."""
    seal = path.with_suffix("").with_suffix(".design.sha256") if path.name.endswith(".design.json") else None
    if not path.is_file() or seal is None or not seal.is_file():
        raise InputError(f"{path} is no sealed design: it needs NAME.design.json and NAME.design.sha256 beside it.")
    record = open_sealed(path.read_text(encoding="utf-8"), seal.read_text(encoding="utf-8").strip()).record
    treated = tuple(record["chosen"]["geos"].split(";"))
    return replace(
        asked, treated=treated, start=date.fromisoformat(record["start"]), end=date.fromisoformat(record["end"]),
        estimator=record["estimator"], dark=record["kind"] in ("go_dark", "holdback"),
        excluded=tuple(record["spec"]["excluded"]),
    ), record  # fmt: skip


def as_json(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table as plain values, NaN as null."""
    return list(json.loads(table.to_json(orient="records", date_format="iso")))


def workspace_panel(root: Path, channel: str) -> PlainPanel:
    """The workspace's released panel as a history to plan on, with the channel's spend where one is named.

    Raises InputError for an unknown channel, MissingStep before anything is released.
    """
    from workflow.job import Job

    job = Job.open(root, quiet=True)
    panel = job.panel
    if channel and channel not in panel.channels:
        raise InputError(f"--channel is {channel!r}; the workspace has {', '.join(panel.channels)}.")
    spend = panel.spend[:, :, panel.channels.index(channel)] if channel else None
    return PlainPanel(root, panel.geos, panel.weeks, panel.kpi, panel.kpi_variance, spend, panel.period_days)
