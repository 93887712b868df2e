"""Multipliers that analysts load back into their own credit: one CSV per credit model, and all adjusted credit.

`credit_factors/MODEL.csv`: multiply that model's credit of a channel by `multiplier`, until `expires_on`. It is the
factor of the newest period that has one. `credit_factors/adjusted_credit.csv`: every period's credit beside what the
channel caused. A factor that must not be printed is an empty cell, never 1.
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pandas as pd

from workflow.artifacts import replace_text

FOLDER = "credit_factors"
ADJUSTED = "adjusted_credit.csv"
COLUMNS = (
    "channel", "multiplier", "multiplier_p10", "multiplier_p50", "multiplier_p90", "learned_from", "learned_to",
    "valid_from", "expires_on", "flag", "run_id",
)  # fmt: skip


def multipliers(factors: pd.DataFrame, valid_weeks: int) -> dict[str, pd.DataFrame]:
    """Credit model -> rows of its file, from rows of v_incrementality."""
    out: dict[str, pd.DataFrame] = {}
    held = factors[factors["model"] != ""].copy()
    for name in ("period_start", "period_end"):
        held[name] = pd.to_datetime(held[name]).dt.date
    held["days"] = [(b - a).days for a, b in zip(held["period_start"], held["period_end"], strict=True)]
    for model, rows in held.groupby("model", sort=True):
        # the newest end; of spans that end together the shortest, unless it has no factor and the longer one has
        order = rows.assign(known=rows["mean"].notna()).sort_values(
            ["channel", "period_end", "known", "days"], ascending=[True, False, False, True]
        )
        newest = order.drop_duplicates("channel")
        frame = pd.DataFrame({"channel": newest["channel"], "multiplier": newest["mean"]})
        for q in ("p10", "p50", "p90"):
            frame[f"multiplier_{q}"] = newest[q]
        frame["learned_from"], frame["learned_to"] = newest["period_start"], newest["period_end"]
        frame["valid_from"] = [d + timedelta(days=1) for d in newest["period_end"]]
        frame["expires_on"] = [d + timedelta(weeks=valid_weeks) for d in newest["period_end"]]
        frame["flag"], frame["run_id"] = newest["flag"], newest["run_id"]
        out[str(model)] = frame[list(COLUMNS)].reset_index(drop=True)
    return out


def adjusted(factors: pd.DataFrame) -> pd.DataFrame:
    """Every credit beside the incremental outcome and the factor between them."""
    rows = factors[factors["model"] != ""]
    names = {
        "credited": "credited", "incremental_kpi": "incremental", "incremental_p05": "incremental_p05",
        "incremental_p95": "incremental_p95", "mean": "factor", "p10": "factor_p10", "p50": "factor_p50",
        "p90": "factor_p90", "flag": "flag", "run_id": "run_id",
    }  # fmt: skip
    keys = ["channel", "model", "period_start", "period_end"]
    return rows[[*keys, *names]].rename(columns=names).sort_values(keys, ignore_index=True)


def write(root: Path, factors: pd.DataFrame | None, valid_weeks: int) -> None:
    """Writes the folder beside the warehouse; files of ours that have no factors any more are removed."""
    folder = root / FOLDER
    wanted: dict[str, str] = {}
    if factors is not None and (factors["model"] != "").any():
        wanted = {f"{_safe(m)}.csv": f.to_csv(index=False) for m, f in multipliers(factors, valid_weeks).items()}
        wanted[ADJUSTED] = adjusted(factors).to_csv(index=False)
        folder.mkdir(exist_ok=True)
    for name, text in wanted.items():
        replace_text(folder / name, text)
    for old in folder.glob("*.csv") if folder.is_dir() else ():
        if old.name not in wanted:
            old.unlink()


def _safe(name: str) -> str:
    """A file name of a credit model."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)
