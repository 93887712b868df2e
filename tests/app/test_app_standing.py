"""The standing score: per quarter and source, on tests that the source had not seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest

from app import standing
from app.store import Snapshot

ROWS = [
    ("mmm", "a", "2025-Q1", True, -2.0),
    ("pool", "a", "2025-Q1", True, -3.0),
    ("last_touch", "a", "2025-Q1", False, -9.0),
    ("mmm", "b", "2025-Q2", False, -5.0),
    ("pool", "b", "2025-Q2", True, -1.0),
    ("last_touch", "c", "2025-Q2", True, -4.0),
]


@pytest.fixture
def scored(snapshot: Callable[[str], Snapshot]) -> Snapshot:
    rows = pd.DataFrame(ROWS, columns=["source", "experiment", "quarter", "covered", "log_score"])
    return replace(snapshot("full"), pool_scores=rows)


def test_scores_are_compared_on_the_same_test(scored: Snapshot) -> None:
    found = standing.standing(scored).set_index(["quarter", "source"])
    assert found.loc[("2025-Q1", "mmm")].to_dict() == {"tests": 1, "held": 1, "against": 1.0}
    assert found.loc[("2025-Q2", "mmm"), "against"] == -4.0
    assert found.loc[("all quarters", "mmm")].to_dict() == {"tests": 2, "held": 1, "against": -1.5}
    assert pd.isna(found.loc[("2025-Q2", "last_touch"), "against"]), "nothing else foretold test c"
    assert found.loc[("all quarters", "last_touch")].to_dict() == {"tests": 2, "held": 1, "against": -6.0}
    assert found.index.get_level_values(0).unique().tolist() == ["all quarters", "2025-Q2", "2025-Q1"]


def test_one_quarter_needs_no_total(scored: Snapshot) -> None:
    one = replace(scored, pool_scores=scored.pool_scores.query("quarter == '2025-Q1'"))
    assert set(standing.standing(one)["quarter"]) == {"2025-Q1"}


def test_the_table_says_who_and_how_well(scored: Snapshot) -> None:
    rows = standing.table(scored)
    first = rows[rows["source"] == "the model, before it saw the test"].iloc[0]
    assert first.iloc[2:].tolist() == ["2", "1 of 2", "−1.50"]
    assert "the yardstick" in set(rows.iloc[:, 4]) and "–" in set(rows.iloc[:, 4])
    assert "credit of last touch, taken for cause" in set(rows["source"])
    assert "3 tests are too few to judge a share of 90 %" in standing.sentence(scored)


def test_many_tests_need_no_warning_and_none_says_so(scored: Snapshot) -> None:
    many = pd.concat([scored.pool_scores.assign(experiment=f"t{i}") for i in range(10)])
    assert "too few" not in standing.sentence(replace(scored, pool_scores=many))
    none = replace(scored, pool_scores=scored.pool_scores.iloc[:0])
    assert standing.standing(none).empty and standing.table(none).empty
    assert standing.sentence(none).startswith("No test has been foretold yet")
