"""`plumb lift --panel` and `plumb design` on a plain file: answers, seals, and one sentence per mistake."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from workflow.cli import app


def _file(folder: Path, effect: float = 0.0, **columns: Any) -> Path:
    rng = np.random.default_rng(1)
    base = 1000 * np.exp(0.5 * rng.standard_normal(10))
    kpi = base[:, None] * np.exp(0.05 * rng.standard_normal((10, 60)))
    kpi[:2, 50:] += effect
    rows = [
        {"location": f"g{g}", "day": date(2025, 1, 1) + timedelta(days=t), "y": round(kpi[g, t], 3),
         "cost": 100.0 + (200.0 if g < 2 and t >= 50 else 0.0)}
        for g in range(10) for t in range(60)
    ]  # fmt: skip
    path = folder / "panel.csv"
    pd.DataFrame(rows).assign(**columns).to_csv(path, index=False)
    return path


def _plumb(*words: str) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(app, [*words, "--json"])
    return result.exit_code, json.loads(result.stdout.strip().splitlines()[-1])


WINDOW = ("--treated", "g0;g1", "--start", "2025-02-20", "--end", "2025-03-01")


def test_a_readout_of_a_plain_file(tmp_path: Path) -> None:
    code, answer = _plumb("lift", "--panel", str(_file(tmp_path, 150.0)), *WINDOW, "--iroas")
    assert code == 0
    assert answer["lower"] < answer["mean"] < answer["upper"]
    assert answer["p_value"] < 0.05 and abs(answer["mean"] - 3000) < 1500
    assert answer["spend_delta"] == pytest.approx(4000.0)
    assert answer["iroas"] == pytest.approx(answer["mean"] / 4000.0)
    assert len(answer["path"]) == 10
    _, other = _plumb("lift", "--panel", str(tmp_path / "panel.csv"), *WINDOW, "--estimator", "synthetic_control")
    assert other["estimator"] == "synthetic_control"


@pytest.mark.parametrize("estimator", ["gls_control", "synthetic_control"])
def test_a_readout_page_of_a_plain_file(tmp_path: Path, estimator: str) -> None:
    page = tmp_path / "page.html"
    words = ("lift", "--panel", str(_file(tmp_path, 150.0)), *WINDOW, "--estimator", estimator)
    code, answer = _plumb(*words, "--readout", str(page))
    html = page.read_text(encoding="utf-8")
    assert code == 0 and answer["readout"] == str(page)
    assert "What would change the conclusion" in html and "No sealed design was given" in html and "Placebos" in html
    code, answer = _plumb(*words, "--readout", str(tmp_path / "nowhere" / "page.html"))
    assert code == 2 and "is not a folder; create it" in answer["error"]
    code, answer = _plumb("lift", str(tmp_path), "--readout", str(page))
    assert code == 2 and "--readout goes with --panel" in answer["error"]
    code, answer = _plumb(*words, "--as-of", "2025-01-01")
    assert code == 2 and "--as-of goes with a workspace" in answer["error"]


def test_a_design_is_sealed_and_read_back(tmp_path: Path) -> None:
    whole = pd.read_csv(_file(tmp_path))
    before = tmp_path / "before.csv"
    whole[whole["day"] < "2025-02-20"].to_csv(before, index=False)
    out = tmp_path / "plan"
    words = ("design", "--panel", str(before), "--candidates", "g0;g1;g2", "--sizes", "1;2", "--durations", "10",
             "--look-backs", "5", "--out", str(out), "--experiment", "spring")  # fmt: skip
    code, answer = _plumb(*words)
    assert code == 0 and answer["sets_scored"] == 6
    assert len(pd.read_csv(out / "spring.geos.csv")) == 10
    sealed = out / "spring.design.json"
    page = tmp_path / "spring.html"
    words_of_read = ("lift", "--panel", str(tmp_path / "panel.csv"), "--design", str(sealed), "--readout", str(page))
    code, read = _plumb(*words_of_read)
    assert "What the design promised and what came" in page.read_text(encoding="utf-8")
    assert code == 0 and read["start"] == "2025-02-20"
    assert ";".join(read["treated"]) == answer["designs"][0]["geos"]
    code, refused = _plumb(*words)
    assert code == 2 and "never overwritten" in refused["error"]
    sealed.write_text(sealed.read_text().replace("spring", "autumn"))
    code, broken = _plumb("lift", "--panel", str(tmp_path / "panel.csv"), "--design", str(sealed))
    assert code == 2 and "changed after it was sealed" in broken["error"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--treated", "gx", "--start", "2025-02-20", "--end", "2025-03-01"), "--treated names 'gx'"),
        (("--treated", "g0", "--start", "2025-02-20", "--end", "2026-03-01"), "not the whole test"),
        (("--treated", "g0", "--start", "soon", "--end", "2025-03-01"), "write an ISO date"),
        (("--treated", "g0", "--start", "2025-01-03", "--end", "2025-01-09"), "needs at least 8"),
        (("--start", "2025-02-20", "--end", "2025-03-01"), "needs --treated"),
        ((*WINDOW, "--estimator", "magic"), "choose one of"),
        ((*WINDOW, "--kpi", "sales"), "has no column 'sales'"),
        ((*WINDOW, "--spend-delta", "0"), "changed no spend"),
        ((*WINDOW, "--spend-delta", "-50"), "was meant to add spend"),
        ((*WINDOW, "--cool-down", "9"), "not the whole test"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    code, answer = _plumb("lift", "--panel", str(_file(tmp_path)), *words)
    assert code == 2
    assert sentence in answer["error"]


def test_faults_of_the_file_are_named(tmp_path: Path) -> None:
    path = _file(tmp_path)
    table = pd.read_csv(path)
    for change, sentence in (
        (table.drop(columns="location"), "no column that looks like the geo"),
        (pd.concat([table, table.iloc[[5]]]), "has a second row for 2025-01-06"),
        (table[table["day"] != "2025-01-07"], "not evenly spaced"),
    ):
        change.to_csv(path, index=False)
        code, answer = _plumb("lift", "--panel", str(path), *WINDOW)
        assert code == 2 and sentence in answer["error"]
    code, answer = _plumb("lift", "--panel", str(tmp_path / "nothing.csv"), *WINDOW)
    assert code == 2 and "no panel file" in answer["error"]
