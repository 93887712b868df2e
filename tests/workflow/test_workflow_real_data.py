"""Real people's data, written as standard files or mapped in place (issue 2, "Real input")."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from workflow.warehouse import read_view

EXACT = {  # data/README.md: difference to the control arm and its standard error, per person
    ("mens", "visits"): (0.07659, 0.00339),
    ("mens", "conversions"): (0.006805, 0.000921),
    ("mens", "revenue"): (0.7698, 0.1452),
    ("womens", "visits"): (0.04523, 0.00323),
    ("womens", "conversions"): (0.003111, 0.000823),
    ("womens", "revenue"): (0.4244, 0.1303),
}


BOUNDS = {"visits": 1.0, "conversions": 1.0, "revenue": 500.0}
SIGMA = (8 / (2 * 0.1)) ** 0.5  # eight components, each at most 1, at rho 0.1


def write_hillstrom(source: Path, root: Path) -> pd.Series:
    """Row number = user_id, a visit is an event, spend is a conversion's value. Returns people per arm."""
    people = pd.read_csv(source)
    people["user_id"] = "u" + people.index.astype(str)
    names = {"Mens E-Mail": "mens", "Womens E-Mail": "womens", "No E-Mail": "control"}
    people["arm"] = people["segment"].map(names)
    visits = people.loc[people["visit"] == 1, ["user_id"]].assign(event="visit", value=np.nan)
    sales = people.loc[people["conversion"] == 1, ["user_id", "spend"]].rename(columns={"spend": "value"})
    events = pd.concat([visits, sales.assign(event="conversion")], ignore_index=True)
    events = events.assign(
        event_id="e" + events.index.astype(str), ts="2008-03-26T12:00:00Z", channel="", currency="USD"
    )
    events.to_parquet(root / "events.parquet", index=False)
    people[["user_id", "arm"]].assign(experiment="spring_mail").to_csv(root / "assignments.csv", index=False)
    (root / "experiments.csv").write_text(
        "experiment,kind,channel,start,end,treated,spend_delta\nspring_mail,user,email,2008-03-20,2008-04-02,,\n",
        encoding="utf-8",
    )
    (root / "plumb.toml").write_text(
        "[privacy.shares]\nkpi = 0.3\njourneys = 0.1\ntrials = 0.5\n"
        "[privacy.trials]\nvisits = 1\nconversions = 1\nrevenue = 500\n",
        encoding="utf-8",
    )
    return people["arm"].value_counts()


def test_hillstrom_lifts_hold_the_exact_differences(
    shared_data: Path, tmp_path: Path, plumb: Callable[..., tuple[int, dict[str, object]]]
) -> None:
    people = write_hillstrom(shared_data / "trials" / "hillstrom.csv", tmp_path)
    for command in ("init", "release", "lift"):
        code, answer = plumb(command, tmp_path)
        assert code == 0, answer
    rows = read_view(tmp_path / "warehouse.duckdb", "v_lift").set_index(["arm", "metric"])
    charges = read_view(tmp_path / "warehouse.duckdb", "v_charges")
    assert charges.loc[charges["measure"] == "trials", "rho"].tolist() == pytest.approx([0.1], rel=1e-6)
    assert set(rows.index) == set(EXACT)
    for (arm, metric), (difference, std_error) in EXACT.items():
        row, n = rows.loc[(arm, metric)], people[arm]
        # 4.9 sd of the released noise: all six hold together but for one run in 10^6.
        assert abs(row["mean"] - difference * n) < 4.9 * row["sd"]
        noise = row["sd"] ** 2 * row["noise_variance_share"]
        predicted = (BOUNDS[metric] * SIGMA) ** 2 * (1 + (n / people["control"]) ** 2)
        assert noise == pytest.approx(predicted, rel=0.1), "the released n is noisy, too, which adds a little"
        # The rest is the sampling variance. It comes from squares whose noise is larger than that of the sums by the
        # bound, which makes its own sd noise / (sqrt(2) sigma); 4.9 of them again.
        assert abs(row["sd"] ** 2 - noise - (std_error * n) ** 2) < 4.9 * noise / (2**0.5 * SIGMA) + (
            0.05 * (std_error * n) ** 2
        )


def test_foreign_journeys_are_mapped_without_rewriting_the_file(
    shared_data: Path, tmp_path: Path, plumb: Callable[..., tuple[int, dict[str, object]]]
) -> None:
    source = shared_data / "journeys" / "events_july_2018.csv"
    channels = sorted(pd.read_csv(source)["channel"].unique())
    declared = "".join(f'[channels."{c}"]\nfamily = "other"\n' for c in channels)
    (tmp_path / "plumb.toml").write_text(
        f"""
[project]
calendar_start = 2018-07-02
calendar_end = 2018-07-29
geos = ["national"]

[inputs.events]
path = "{source}"
conversion_is_touch = true
consent = "assumed"

[inputs.events.columns]
event_id = {{ hash = ["customer_id", "time", "channel", "interaction", "conversion_value"] }}
user_id = "customer_id"
ts = "time"
event = "interaction"
value = "conversion_value"
currency = {{ value = "USD" }}
geo = {{ value = "national" }}

{declared}""",
        encoding="utf-8",
    )
    before = source.stat().st_mtime_ns
    for command in ("init", "release", "credit"):
        code, answer = plumb(command, tmp_path)
        assert code == 0, answer
    assert source.stat().st_mtime_ns == before
    credit = read_view(tmp_path / "warehouse.duckdb", "v_credit")
    assert set(credit["model"]) == {"last_touch", "first_touch", "linear", "position_based", "markov", "shapley"}
    assert set(credit["channel"]) == {*channels, "unattributed"}
    totals = credit[credit["metric"] == "conversions"].groupby("model")["mean"].sum()
    assert np.ptp(totals.to_numpy()) < 1e-6 * totals.mean()
