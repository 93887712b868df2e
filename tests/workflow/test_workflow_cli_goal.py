"""Goals on a small warehouse: what is answered, that the answer is the edge it claims to be, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_workflow_cli_scenario import root, saved_names
from typer.testing import CliRunner

from app import store
from app.saved import pricing
from planning.surface import Surface, evaluate
from workflow.cli import app as cli

__all__ = ["root"]
Plumb = Callable[..., tuple[int, dict[str, Any]]]


def brings(surface: Surface, per_week: dict[str, float]) -> np.ndarray:
    """Draws (D,) of what these weekly amounts bring, spread as today's spend is."""
    share = surface.response.steady.current_spend / surface.response.steady.current_spend.sum(axis=0)
    amounts = share * np.array([per_week[c] for c in surface.response.channels])
    spend = np.broadcast_to(amounts, (surface.periods, *amounts.shape)).copy()
    return np.asarray(evaluate(surface, spend).plan.sum(axis=(0, 2)))


@pytest.fixture
def surface(root: Path) -> Surface:
    return pricing.surface(store.load(root / "warehouse.duckdb"))


def test_the_least_budget_reaches_its_target_and_a_little_less_does_not(
    root: Path, plumb: Plumb, surface: Surface
) -> None:
    today = brings(surface, {"tv": 400.0, "web": 400.0})
    target = float(np.quantile(today, 0.3))
    code, found = plumb("scenario", "goal", "--target", target, "--probability", "0.7", "-C", root)
    assert code == 0, found
    draws = brings(surface, found["plan"])
    assert (draws >= target - 1e-6).mean() == pytest.approx(found["probability"], abs=0.03)
    assert found["probability"] >= 0.7
    assert found["total"] == pytest.approx(4 * found["per_week"]) == pytest.approx(4 * sum(found["plan"].values()))
    less = {c: 0.97 * v for c, v in found["plan"].items()}
    assert (brings(surface, less) >= target).mean() < 0.7
    surer = plumb("scenario", "goal", "--target", target, "--probability", "0.8", "-C", root)[1]
    assert surer["total"] > found["total"], "more certainty costs more"
    assert saved_names(root) == [], "nothing is saved unless it is asked"
    saved = plumb("scenario", "goal", "--target", target, "--save", "goal", "-C", root)[1]
    assert saved["saved"] == "goal" and saved_names(root) == ["goal"]


def test_the_largest_budget_earns_its_ratio(root: Path, plumb: Plumb, surface: Surface) -> None:
    average = 3200.0 / brings(surface, {"tv": 400.0, "web": 400.0}).mean()
    code, found = plumb("scenario", "afford", "--cpa", average, "-C", root)
    assert code == 0, found
    cost = found["total"] / brings(surface, found["plan"]).mean()
    assert cost <= average * 1.001
    tighter = plumb("scenario", "afford", "--cpa", 0.97 * average, "-C", root)[1]
    assert tighter["total"] < found["total"]
    assert plumb("scenario", "afford", "-C", root)[1]["error"].startswith("a free total needs one of a target ROI")


def test_the_frontier_trades_the_mean_for_the_bad_case(root: Path, plumb: Plumb) -> None:
    code, found = plumb("scenario", "frontier", "--points", "3", "-C", root)
    assert code == 0, found
    means, worst = ([row[k] for row in found["plans"]] for k in ("mean", "cvar"))
    assert means[0] >= means[-1] - 1e-6 * abs(means[0]) and worst[-1] >= worst[0] - 1e-6 * abs(worst[0])
    assert [row["caution"] for row in found["plans"]] == [0.0, 0.5, 1.0]
    assert all(sum(row["plan"].values()) == pytest.approx(800.0) for row in found["plans"])
    assert plumb("scenario", "frontier", "--points", "1", "-C", root)[0] == 2


def test_the_next_money_goes_where_it_brings_most(root: Path, plumb: Plumb, surface: Surface) -> None:
    code, found = plumb("scenario", "next", "--amount", "100", "-C", root)
    assert code == 0, found
    rows = {r["channel"]: r for r in found["channels"]}
    assert [r["channel"] for r in found["channels"]] == ["web", "tv"], "web is three times as good"
    more = brings(surface, {"tv": 400.0, "web": 425.0}) - brings(surface, {"tv": 400.0, "web": 400.0})
    assert rows["web"]["mean"] == pytest.approx(more.mean(), rel=1e-6)
    assert rows["web"]["per_currency"] == pytest.approx(more.mean() / 100)
    plumb("scenario", "create", "push", "--spend", "web=+100%", "-C", root)
    later = plumb("scenario", "next", "--amount", "100", "--from", "push", "-C", root)[1]
    assert {r["channel"]: r["mean"] for r in later["channels"]}["web"] < rows["web"]["mean"], "returns fall"


@pytest.mark.parametrize("total", ["budget = 800", "budget_range = [700, 900]"])
def test_a_goal_frees_the_total_that_plumb_toml_fixes(root: Path, plumb: Plumb, total: str) -> None:
    free = plumb("scenario", "afford", "--cpa", "50", "-C", root)[1]["total"]
    config = root / "plumb.toml"
    config.write_text(config.read_text(encoding="utf-8") + f"{total}\n", encoding="utf-8")
    code, found = plumb("scenario", "afford", "--cpa", "50", "-C", root)
    assert code == 0 and found["total"] == pytest.approx(free), found


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (("goal", "--target", "1e9"), "Lower the target or the probability, or allow more spend"),
        (("goal", "--target", "10", "--probability", "1.5"), "the probability of a goal must lie between 0 and 1"),
        (("goal", "--target", "10", "--lock", "radio"), "names 'radio'; the model knows tv, web"),
        (("goal", "--target", "10", "--most", "-5"), "[planning] budget_range"),
        (("afford", "--cpa", "1e-9"), "meets the CPA of"),
        (("next", "--amount", "0"), "--amount is 0; it must be more than 0"),
        (("next", "--from", "plan9"), "there is no saved scenario 'plan9'"),
    ],
)
def test_what_cannot_be_answered_is_a_sentence(
    root: Path, plumb: Plumb, command: tuple[str, ...], sentence: str
) -> None:
    code, answer = plumb("scenario", *command, "-C", root)
    assert code == 2 and sentence in answer["error"], answer
    assert saved_names(root) == []


def test_answers_are_written_for_people(root: Path) -> None:
    def said(*command: str) -> str:
        result = CliRunner().invoke(cli, ["scenario", *command, "-C", str(root)])
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    assert "Least budget for 100 incremental conversions: " in said("goal", "--target", "100")
    assert "worst case: mean of the worst 10% of draws" in said("frontier", "--points", "2")
    assert "The next 100 EUR on top of current, in incremental conversions:" in said("next", "--amount", "100")
    assert "Saved spare, version 1." in said("afford", "--cpa", "50", "--save", "spare")
