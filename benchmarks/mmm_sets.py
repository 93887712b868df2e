"""The four public sets of the marketing-mix benchmark as panels with their truth.

`pymc-labs/mmm-param-recovery` (Apache-2.0), kept beside the project and never shipped: `PLUMBLINE_DATA` names the
folder that holds `mmm/SET_business/data.csv` and `truth_contributions.csv`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from contracts.panel import Panel

SETS = ("small", "growing", "medium", "large")
FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data"


@dataclass(frozen=True, slots=True)
class Known:
    """A panel whose true contributions are known."""

    name: str
    panel: Panel
    truth: np.ndarray  # (G, T, C) KPI units


def folder() -> Path:
    """Where the public data lie: PLUMBLINE_DATA, else `shared/data` beside the repository."""
    return Path(os.environ.get("PLUMBLINE_DATA", FOLDER)) / "mmm"


def load(name: str, weeks: int | None = None) -> Known:
    """One set, `weeks` first weeks of it (all when None). Raises FileNotFoundError where the data are not at hand."""
    root = folder() / f"{name}_business"
    frame, true = pd.read_csv(root / "data.csv"), pd.read_csv(root / "truth_contributions.csv")
    geos, days = sorted(frame["geo"].unique()), sorted(frame["date"].unique())
    channels = [c for c in frame if c.startswith("x")]
    controls = [c for c in frame if c[0] == "c" and c[1:].isdigit()]

    def cube(table: pd.DataFrame, columns: list[str]) -> np.ndarray:
        wide = table.set_index(["geo", "date"])[columns].reindex(pd.MultiIndex.from_product([geos, days]))
        return wide.to_numpy(float).reshape(len(geos), len(days), len(columns))[:, :weeks]

    kpi, spend = cube(frame, ["y"])[:, :, 0], cube(frame, channels)
    panel = Panel(
        geos=tuple(geos), weeks=tuple(date.fromisoformat(d) for d in days[:weeks]), channels=tuple(channels),
        kpi=kpi, kpi_variance=np.zeros_like(kpi), media=spend, spend=spend,
        # the sets know no population; a geo's share of the KPI is the size that every engine is given
        population=np.nanmean(kpi, axis=1), controls=cube(frame, controls), control_names=tuple(controls),
        organic=np.zeros((*kpi.shape, 0)), organic_names=(), revenue_per_kpi=None, kpi_name="kpi", currency="EUR",
        period_days=7, scale_back=(1.0, 0.0), user_level=False, evidence_ids=(name,),
    )  # fmt: skip
    return Known(name, panel, cube(true, channels))
