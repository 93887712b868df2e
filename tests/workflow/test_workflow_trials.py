"""User tests with a declaration, end to end: every reading in v_lift, looks while the test runs, and bad input."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from privacy.room import plan_releases
from simulate.world import simulate
from workflow import people_inputs
from workflow.init import initialise
from workflow.job import Job
from workflow.warehouse import read_view

Plumb = Callable[..., tuple[int, dict[str, Any]]]
NAME = "retargeting_holdout"
EVERYTHING = """split = { control = 0.5, exposed = 0.5 }
pre_days = 28
exposed = "assignments"
ghost = true
ratio = ["revenue", "visits"]
strata = ["light", "heavy"]
looks = 3
"""


@pytest.fixture(scope="module")
def known_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """800 people in 26 weeks whose assignments say more than the arm."""
    folder = tmp_path_factory.mktemp("known") / "inputs"
    simulate(folder, people=800, geos=4, weeks=26, seed=5, trial_columns=True)
    return folder


@pytest.fixture()
def here(known_world: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    shutil.copytree(known_world, folder, ignore=shutil.ignore_patterns("truth"))
    initialise(folder)
    return folder


def declare(root: Path, keys: str) -> None:
    """Adds keys to the test's table, with a budget large enough to see through the noise."""
    path = root / "plumb.toml"
    text = path.read_text(encoding="utf-8")
    head = f"[experiments.{NAME}]\n"
    assert head in text
    text = text.replace(head, head + keys).replace("rho_per_user_quarter = 0.2", "rho_per_user_quarter = 100.0")
    text = text.replace("journeys = 0.25", "journeys = 0")  # they take most of the time
    path.write_text(text, encoding="utf-8")


@pytest.mark.slow
def test_every_declared_reading_reaches_the_view_and_one_of_them_the_model(here: Path, plumb: Plumb) -> None:
    declare(here, EVERYTHING)
    assert plumb("release", here)[0] == 0
    code, answer = plumb("lift", here)
    assert code == 0, answer
    rows = read_view(here / "warehouse.duckdb", "v_lift")
    mine = rows[rows["experiment"] == NAME]
    found = mine.groupby("estimator")["metric"].agg(set).to_dict()
    metrics = {"conversions", "revenue", "visits"}
    assert found == {
        "stratified_cuped": metrics, "stratified": metrics, "cuped": metrics, "difference_in_means": metrics,
        "ghost_ads": metrics, "ratio_of_sums": {"revenue per visit"},
        "always_valid": {f"{m} per person" for m in metrics},
    }  # fmt: skip
    assert set(mine.loc[mine["published"], "estimator"]) == {"stratified_cuped"}
    assert mine.loc[mine["metric"].str.contains(" per "), "iroas"].isna().all()
    assert not mine.duplicated(["arm", "metric", "estimator"]).any()
    checks = read_view(here / "warehouse.duckdb", "v_checks").set_index(["check_name", "subject"])
    assert checks.loc[("lift sample ratio", NAME), "status"] == "pass"
    assert checks.loc[("lift exposure balance exposed", NAME), "status"] == "pass"
    assert {(r["experiment"], r["estimator"]) for r in answer["lift"]} == {
        (str(e), str(k)) for e, k in rows[["experiment", "estimator"]].drop_duplicates().itertuples(index=False)
    }
    page = (here / "readouts" / f"{NAME}.html").read_text(encoding="utf-8")
    assert "Looks while the test ran" in page and "stratified_cuped" in page
    handed_on = pd.read_parquet(next(here.rglob("estimates.parquet")))
    assert set(handed_on.loc[handed_on["experiment"] == NAME, "estimator"]) == {"stratified_cuped"}


def test_exact_totals_give_the_difference_that_the_files_hold(here: Path, plumb: Plumb) -> None:
    """At rho 100 the noise of visits is a few people: the released difference is near that of the files."""
    declare(here, 'metrics = ["visits"]\nstrata = ["light", "heavy"]\nheadline = "difference_in_means"\n')
    assert plumb("release", here)[0] == 0 and plumb("lift", here)[0] == 0
    rows = read_view(here / "warehouse.duckdb", "v_lift")
    (row,) = (r for r in rows[rows["experiment"] == NAME].itertuples() if r.published)
    test = pd.read_csv(here / "experiments.csv").set_index("experiment").loc[NAME]
    people = pd.read_csv(here / "assignments.csv")
    events = pd.read_parquet(here / "events.parquet").drop_duplicates("event_id")
    day = events["ts"].dt.strftime("%Y-%m-%d")
    inside = (day >= test["start"]) & (day <= test["end"]) & (events["event"] == "visit")
    seen = events[inside & events["valid"]].groupby("user_id").size().clip(upper=3)
    people = people[people["consent"]].assign(y=lambda p: p["user_id"].map(seen).fillna(0.0))
    arms = people.groupby("arm")["y"].agg(["sum", "mean", "size"])
    want = arms.loc["exposed", "sum"] - arms.loc["exposed", "size"] * arms.loc["control", "mean"]
    assert row.mean == pytest.approx(want, abs=6 * row.sd * row.noise_variance_share**0.5 + 1e-6)
    assert row.noise_variance_share < 0.1


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ('strata = ["light", "stout"]\n', "malformed"),
        ("pre_days = 400\n", "pre_days or covariate.since"),
        ("looks = 40\n", "at most one look a week"),
        ("ghost = true\n", "ghost = true needs exposed"),
        ('metrics = ["profit"]\n', "metrics"),
        ("covariate = { bound = 9, since = 2019-01-01 }\n", "covariate.since"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_costs_nothing(here: Path, plumb: Plumb, keys: str, words: str) -> None:
    declare(here, keys)
    code, answer = plumb("release", here)
    assert code == 2 and words in answer["error"], answer
    assert not (here / ".plumb" / "ledger.sqlite").exists() or plumb("budget", here)[1]["charges"] == []


def test_an_arm_without_a_declaration_stops_the_load(here: Path, plumb: Plumb) -> None:
    path = here / "plumb.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('arms = ["control", "exposed"]', 'arms = ["control", "other"]'), encoding="utf-8")
    code, answer = plumb("release", here)
    assert code == 2 and "malformed" in answer["error"], answer


def test_looks_are_due_while_the_quarter_is_open_and_nothing_else_is(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(here, "looks = 3\n")
    start = date.fromisoformat(str(pd.read_csv(here / "experiments.csv").set_index("experiment").loc[NAME, "start"]))
    for weeks, due in ((1, []), (2, [1]), (3, [1, 2])):  # a week's rows count seven days after its end
        clock = datetime.combine(start, datetime.min.time(), UTC) + pd.Timedelta(days=7 * weeks + 1)
        monkeypatch.setattr(people_inputs, "utc_clock", lambda clock=clock: clock)
        job = Job.open(here)
        question = people_inputs.question(job)
        plans = plan_releases(question, job.config.privacy.policy())
        looks = [p.look for p in plans if p.measure == "trials"]
        closed = {b.id for b in question.blocks}
        assert looks == due
        assert all(set(p.blocks) <= closed for p in plans if not p.look)
