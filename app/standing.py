"""Who foretold the tests: every source against each test that it had not seen, by the quarter of the test's end."""

from __future__ import annotations

import numpy as np
import pandas as pd

from app.rows import each
from app.store import Snapshot
from app.wording import MISSING, title

POOL = "pool"
NAMES = {"mmm": "the model, before it saw the test", POOL: "all other evidence"}
FEW = 10  # tests under which a share of intervals says little about 90 %


def standing(s: Snapshot) -> pd.DataFrame:
    """One row per quarter and source, newest quarter first; over all quarters where there are several.

    | column | meaning |
    |---|---|
    | tests | tests that the source foretold without having seen them |
    | held | of these, how many of its 90 % intervals held what the test showed |
    | against | mean log score less that of all other evidence on the same tests, nats; above 0 is better. NaN without |
    """
    rows = s.pool_scores
    if rows.empty:
        return pd.DataFrame(columns=["quarter", "source", "tests", "held", "against"])
    pool = rows[rows["source"] == POOL].set_index("experiment")["log_score"]
    rows = rows.assign(against=rows["log_score"] - rows["experiment"].map(pool))
    spans = [rows, rows.assign(quarter="all quarters")] if rows["quarter"].nunique() > 1 else [rows]
    found = pd.concat(
        [
            part.groupby(["quarter", "source"], as_index=False).agg(
                tests=("experiment", "size"), held=("covered", "sum"), against=("against", "mean")
            )
            for part in spans
        ]
    )
    return found.sort_values(["quarter", "against"], ascending=False, kind="stable").reset_index(drop=True)


def table(s: Snapshot) -> pd.DataFrame:
    """The standing as text."""
    return pd.DataFrame(
        [
            {
                "tests that ended in": r.quarter,
                "source": NAMES.get(r.source, f"credit of {title(str(r.source))}, taken for cause"),
                "tests foretold": f"{r.tests}",
                "90 % intervals that held the result": f"{r.held} of {r.tests}",
                "log score against all other evidence, nats per test": _signed(r.source, r.against),
            }
            for r in each(standing(s))
        ]
    )


def sentence(s: Snapshot) -> str:
    """What the table says, and how much can be read from so many tests."""
    n = s.pool_scores["experiment"].nunique()
    if n == 0:
        return "No test has been foretold yet: that needs a lift test, and a model or credit that had not seen it."
    few = f" {n} {'test is' if n == 1 else 'tests are'} too few to judge a share of 90 %." if n < FEW else ""
    return (
        "A source is scored only on tests that it had not seen. Above 0 it foretold them better than all other "
        f"evidence did, below 0 worse.{few}"
    )


def _signed(source: str, value: float) -> str:
    if source == POOL:
        return "the yardstick"
    return MISSING if np.isnan(value) else f"{value:+.2f}".replace("-", "−")
