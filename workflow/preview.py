"""`plumb fit --preview`: approximate totals on the screen. Nothing is written, so nothing can be published so."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from contracts.errors import InputError
from contracts.intervals import summarise
from mmm.preview import preview
from workflow.cli_base import console
from workflow.job import Job
from workflow.runner import bring, locked
from workflow.step_fit import spec_of, terms_of, uncalibrated_panel

BEFORE = ("check", "release", "lift")


def preview_of(job: Job) -> dict[str, Any]:
    """Approximate incremental KPI by channel, lifts included. Raises MissingStep when an earlier step is stale."""
    with locked(job.workspace):
        for name in BEFORE:
            bring(job, name, build=name == "check")
        if not job.has_spend:
            raise InputError("there is no spend table, so there is no model to preview; name one under [inputs.spend].")
        panel, config = uncalibrated_panel(job), job.config
        found = preview(panel, spec_of(config), terms_of(job), seed=config.model.seed)
    totals = found.totals * panel.scale_back[0]
    rows = [{"channel": c, **summarise(totals[:, i])} for i, c in enumerate(found.channels)]
    return {"approximate": True, "quality": found.quality, "pareto_k": found.pareto_k, "kpi": panel.kpi_name,
            "incremental_kpi": rows}  # fmt: skip


def show_preview(answer: dict[str, Any]) -> None:
    """The table, its label above and below."""
    screen = console()
    screen.print(f"PREVIEW, {answer['quality']}. Not published; run plumb fit for figures to decide on.")
    table = Table("channel", f"approximate incremental {answer['kpi']}", "P05", "P95", box=None, pad_edge=False)
    for row in answer["incremental_kpi"]:
        table.add_row(row["channel"], *(f"{row[k]:,.0f}" for k in ("mean", "p05", "p95")))
    screen.print(table)
