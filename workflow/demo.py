"""`plumb demo`: a simulated world whose causes are known, run through everything, beside the truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from contracts.errors import InputError, WorkspaceError
from simulate.world import simulate
from workflow.init import initialise
from workflow.job import Job
from workflow.paths import CONFIG_NAME
from workflow.progress import bar
from workflow.runner import run
from workflow.step_plan import RECOMMENDED
from workflow.warehouse import read_view

CREDIT_MODEL = "last_touch"


def run_demo(root: Path, *, people: int, geos: int, weeks: int, seed: int, quiet: bool) -> dict[str, Any]:
    """Simulates unless the same world already lies there, initialises, runs, and compares with the truth.

    Raises WorkspaceError when the folder holds something else, InputError for sizes that no world can have.
    """
    sizes = {"people": people, "geos": geos, "weeks": weeks, "seed": seed}
    if not _same_world(root, sizes):
        _refuse_foreign(root, sizes)
        with bar("Simulating a world", quiet) as report:
            try:
                simulate(
                    root, people=people, geos=geos, weeks=weeks, seed=seed,
                    progress=lambda part, share: report(share, None),
                )  # fmt: skip
            except ValueError as error:
                raise InputError(f"such a world cannot be made: {error}.") from None
        (root / "demo.json").write_text(json.dumps(sizes), encoding="utf-8")
    initialise(root)
    result = run(Job.open(root, quiet=quiet))
    return {
        "workspace": str(root),
        "made": list(result.made),
        "rho_charged": result.charged_nano_rho / 1e9,
        "channels": compare(root),
        "explorer": f"plumb serve -C {root}",
        "report": str(root / "report.html"),
    }


def _same_world(root: Path, sizes: dict[str, int]) -> bool:
    note = root / "demo.json"
    return note.is_file() and json.loads(note.read_text(encoding="utf-8")) == sizes


def _refuse_foreign(root: Path, sizes: dict[str, int]) -> None:
    if root.is_dir() and (root / CONFIG_NAME).exists():
        wanted = ", ".join(f"{key} {value}" for key, value in sizes.items())
        raise WorkspaceError(
            f"{root} already holds a workspace that is not this demo ({wanted}); name another folder, or remove it."
        )


def compare(root: Path) -> list[dict[str, Any]]:
    """One row per channel: truth, model, lift, credit, incrementality factor and recommended change."""
    warehouse = root / "warehouse.duckdb"
    truth = pd.read_csv(root / "truth" / "effects_total.csv").set_index("channel")
    effects = read_view(warehouse, "v_effects")
    effects = effects[(effects["scope"] == "total") & (effects["metric"] == "incremental_kpi")].set_index("channel")
    factors = read_view(warehouse, "v_incrementality")
    whole = (factors["period_start"] == factors["period_start"].min()) & (
        factors["period_end"] == factors["period_end"].max()
    )
    factors = factors[whole & (factors["model"] == CREDIT_MODEL)].set_index("channel")
    plans = read_view(warehouse, "v_scenarios")
    plans = plans[plans["scenario"] == RECOMMENDED].set_index("channel")
    lifts = read_view(warehouse, "v_lift")
    rows = []
    for channel in truth.index:
        row: dict[str, Any] = {"channel": channel, "truth": _number(truth, channel, "incremental")}
        row["model"] = _interval(effects, channel, ("mean", "p05", "p95"))
        row["lift"] = _lifts(lifts[(lifts["channel"] == channel) & (lifts["metric"] == "conversions")])
        row["last_touch"] = _interval(factors, channel, ("credited",))
        row["factor"] = _interval(factors, channel, ("mean", "p05", "p95"))
        row["change"] = _interval(plans, channel, ("spend_change",))
        rows.append(row)
    return rows


def _number(frame: pd.DataFrame, channel: str, column: str) -> float:
    return float(frame[column].astype(float).loc[channel])


def _interval(frame: pd.DataFrame, channel: str, columns: tuple[str, ...]) -> list[float] | None:
    if channel not in frame.index:
        return None
    row = frame.loc[[channel], list(columns)].astype(float).to_numpy()[0]
    return None if (row != row).any() else [float(v) for v in row]


def _lifts(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {"experiment": r.experiment, "mean": r.mean, "p05": r.p05, "p95": r.p95}
        for r in rows.itertuples(index=False)
    ]  # fmt: skip


def show_table(answer: dict[str, Any], console: Console) -> None:
    """Prints the comparison and where the explorer is."""
    table = Table(
        "channel", "truth", "model (90 %)", "lift tests (90 %)", "last touch", "true ÷ credited (90 %)", "change",
        title="Incremental conversions of consenting people (a lift test: of its own window and scope, signed)",
        box=None, pad_edge=False, title_justify="left",
    )  # fmt: skip
    for row in answer["channels"]:
        tests = "\n".join(f"{t['mean']:,.0f} ({t['p05']:,.0f} to {t['p95']:,.0f})" for t in row["lift"])
        table.add_row(
            row["channel"],
            f"{row['truth']:,.0f}",
            _shown(row["model"], ",.0f"),
            tests or "–",
            _shown(row["last_touch"], ",.0f"),
            _shown(row["factor"], ".2f"),
            _shown(row["change"], "+.0%"),
        )
    console.print(table)
    console.print(f"Report:   {answer['report']}", soft_wrap=True)
    console.print(f"Explorer: {answer['explorer']}", soft_wrap=True)


def _shown(values: list[float] | None, form: str) -> str:
    if values is None:
        return "–"
    if len(values) == 1:
        return format(values[0], form)
    return f"{values[0]:{form}} ({values[1]:{form}} to {values[2]:{form}})"
