"""Multiplier files: the newest factor of each channel, its expiry, and nothing where no factor may be printed."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from workflow.factor_files import ADJUSTED, FOLDER, adjusted, multipliers, write

Q1, Q2 = (date(2024, 1, 1), date(2024, 3, 31)), (date(2024, 4, 1), date(2024, 6, 30))
ALL = (Q1[0], Q2[1])


def row(channel: str, model: str, span: tuple[date, date], factor: float) -> dict[str, object]:
    """A row of v_incrementality."""
    quantiles = dict.fromkeys(("mean", "p05", "p10", "p50", "p90", "p95"), factor)
    return {
        "channel": channel, "model": model, "period_start": span[0], "period_end": span[1], "sd": 0.1,
        "incremental_kpi": 50.0, "incremental_p05": 40.0, "incremental_p95": 60.0, "credited": 100.0, "flag": "",
        "run_id": "run-1",
    } | quantiles  # fmt: skip


FACTORS = pd.DataFrame(
    [
        row("tv", "last_touch", ALL, 0.7), row("tv", "last_touch", Q1, 0.5), row("tv", "last_touch", Q2, np.nan),
        row("web", "last_touch", ALL, 0.3), row("web", "last_touch", Q1, 0.2), row("web", "last_touch", Q2, 0.4),
        row("web", "my rule/2", ALL, np.nan),
    ]
)  # fmt: skip


def test_the_newest_factor_counts_and_expires() -> None:
    found = multipliers(FACTORS, 13)["last_touch"].set_index("channel")
    assert found.at["web", "multiplier"] == 0.4, "the last quarter, not the whole stretch that ends with it"
    assert found.at["tv", "multiplier"] == 0.7, "the last quarter has no factor, the stretch that ends with it has"
    assert found.at["web", "learned_from"] == Q2[0] and found.at["web", "valid_from"] == date(2024, 7, 1)
    assert found.at["web", "expires_on"] == date(2024, 9, 29)


def test_a_factor_that_must_not_be_printed_is_empty() -> None:
    assert multipliers(FACTORS, 13)["my rule/2"]["multiplier"].isna().all()


def test_adjusted_credit_keeps_every_period() -> None:
    found = adjusted(FACTORS)
    assert len(found) == len(FACTORS) and (found["credited"] == 100.0).all() and (found["incremental"] == 50.0).all()


def test_files_follow_the_warehouse(tmp_path: Path) -> None:
    write(tmp_path, FACTORS, 13)
    folder = tmp_path / FOLDER
    assert sorted(f.name for f in folder.iterdir()) == [ADJUSTED, "last_touch.csv", "my_rule_2.csv"]
    back = pd.read_csv(folder / "last_touch.csv").set_index("channel")
    credit = pd.Series({"web": 100.0, "tv": 10.0})
    assert (credit * back["multiplier"]).to_dict() == {"tv": 7.0, "web": 40.0}
    write(tmp_path, FACTORS[FACTORS["model"] == "last_touch"], 13)
    assert sorted(f.name for f in folder.iterdir()) == [ADJUSTED, "last_touch.csv"]
    write(tmp_path, None, 13)
    assert list(folder.iterdir()) == []
