"""`plumb scenario` on a small warehouse: what is saved, and what is refused in a sentence and saves nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.draws import Period
from app.saved import database, scenarios
from contracts.response import SteadyResponse
from contracts.surface import DynamicResponse
from workflow.warehouse import Content, build, read_view

Plumb = Callable[..., tuple[int, dict[str, Any]]]
CONFIG = """
[project]
id = "abcd"
currency = "EUR"
[inputs.events]
path = "events.csv"
[inputs.spend]
path = "spend.csv"
[planning]
horizon_weeks = 4
"""
DRAWS = 40


def response() -> DynamicResponse:
    """Two channels in two geos, the second three times as good."""
    rng = np.random.default_rng(0)
    spend = np.array([[100.0, 100.0], [300.0, 300.0]])
    steady = SteadyResponse(
        channels=("tv", "web"), geos=("north", "south"), amplitude=np.exp(0.2 * rng.standard_normal((DRAWS, 2, 2)))
        * np.array([[10.0, 30.0], [30.0, 90.0]]), unit=1 / spend, half_saturation=np.full((DRAWS, 2), 1.5),
        slope=np.ones((DRAWS, 2)), current_spend=spend, observed_max=np.array([800.0, 800.0]),
        weights=np.full(DRAWS, 1 / DRAWS),
    )  # fmt: skip
    return DynamicResponse(
        steady=steady, retention=np.full((DRAWS, 2), 0.3), delay=np.zeros((DRAWS, 2)), lags=3,
        recent=np.ones((2, 2, 2)), observed=np.full((2, 2), 2.0), population=np.ones(2),
        last_period=date(2026, 1, 5), period_days=7, currency="EUR", kpi_name="conversions", revenue_per_kpi=None,
    )  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "plumb.toml").write_text(CONFIG, encoding="utf-8")
    meta = {"currency": "EUR", "kpi": "conversions", "period_end": "2026-01-11", "user_level": "true"}
    period = Period(date(2026, 1, 12), 4, {})
    build(tmp_path / "warehouse.duckdb", tmp_path / "tables", Content({}, response(), meta, period))
    return tmp_path


def saved_names(root: Path) -> list[str]:
    with database.reading(root / "state.sqlite") as con:
        return [e.name for e in scenarios.entries(con)]


def test_a_scenario_is_saved_priced_and_copied_into_the_warehouse(root: Path, plumb: Plumb) -> None:
    code, made = plumb("scenario", "create", "push", "--spend", "web=+10%", "--spend", "tv=100", "-C", root)
    assert code == 0, made
    assert made["plan"] == pytest.approx({"tv": 100.0, "web": 440.0}) and made["p10"] < made["p50"] < made["p90"]
    rows = read_view(root / "warehouse.duckdb", "v_scenarios")
    assert rows["spend"].tolist() == pytest.approx([400.0, 1760.0]) and not rows["of_record"].any()
    cells = read_view(root / "warehouse.duckdb", "v_scenario_cells")
    assert len(cells) == 2 * 2 * 4
    assert plumb("scenario", "duplicate", "push", "-C", root)[1]["name"] == "push (copy)"
    assert plumb("scenario", "lock", "push", "--channel", "tv", "-C", root)[1]["locked"] == ["tv"]


def test_the_best_plan_moves_money_and_keeps_locks(root: Path, plumb: Plumb) -> None:
    code, made = plumb("scenario", "best", "more", "-C", root)
    assert code == 0 and made["gain_p50"] > 0 and made["plan"]["web"] == pytest.approx(520.0, abs=0.1)
    assert sum(made["plan"].values()) == pytest.approx(800.0)
    code, made = plumb("scenario", "best", "held", "--lock", "tv", "--lock", "web", "-C", root)
    assert made["plan"] == pytest.approx({"tv": 400.0, "web": 400.0}) and made["locked"] == ["tv", "web"]
    code, answer = plumb("scenario", "best", "clash", "--lock", "tv", "--lock", "web", "--budget", "900", "-C", root)
    assert code == 2 and "'budget'" in answer["error"] and "smallest relaxation" in answer["error"]
    code, answer = plumb("scenario", "best", "luck", "--objective", "luck", "-C", root)
    assert code == 2 and "[planning] objective is 'luck'; use 'mean'" in answer["error"]
    code, answer = plumb("scenario", "best", "x", "--lock", "radio", "-C", root)
    assert code == 2 and "[planning.channels] names 'radio'; the model knows tv, web" in answer["error"]
    assert saved_names(root) == ["held", "more"]


def test_plans_are_compared_on_the_same_draws(root: Path, plumb: Plumb) -> None:
    plumb("scenario", "create", "push", "--spend", "web=+10%", "-C", root)
    code, answer = plumb("scenario", "compare", "current", "push", "-C", root)
    base, push = answer["plans"]
    assert code == 0 and base["gain_p50"] == 0 and 0 < push["gain_p10"] < push["gain_p90"]
    assert push["gain_p90"] - push["gain_p10"] < 0.5 * (push["p90"] - push["p10"])
    code, answer = plumb("scenario", "compare", "current", "pull", "-C", root)
    assert code == 2 and "there is no saved scenario 'pull'; there are 'push'" in answer["error"]
    code, answer = plumb("scenario", "compare", "recommended", "push", "-C", root)
    assert code == 2 and "there is no recommendation in the warehouse" in answer["error"]


@pytest.mark.parametrize("ending", ["csv", "json", "xlsx"])
def test_a_plan_survives_its_file(root: Path, plumb: Plumb, ending: str) -> None:
    plumb("scenario", "create", "push", "--spend", "web=+10%", "-C", root)
    file = root / f"push.{ending}"
    assert plumb("scenario", "export", "push", file, "-C", root)[1]["rows"] == 16
    assert plumb("scenario", "export", "push", file, "-C", root)[0] == 2, "nothing is overwritten"
    code, made = plumb("scenario", "import", file, "--name", "back", "-C", root)
    assert code == 0 and made["plan"] == pytest.approx({"tv": 400.0, "web": 440.0}), made


BROKEN = [
    (lambda t: t.replace("EUR", "USD"), "is in USD and this workspace plans in EUR"),
    (lambda t: t.replace("web", "radio"), "names channel 'radio'; the model knows tv, web"),
    (lambda t: t.replace("north", "mars"), "names geo 'mars'"),
    (lambda t: t.replace("2026-", "2025-"), "starts on 2025-01-12, before the history ends; the first is 2026-01-12"),
    (lambda t: t.replace(",100.0,", ",-100.0,"), "spend must be a number >= 0; got -100.0"),
    (lambda t: t.split("\n")[0] + "\n", "holds no rows"),
    (lambda t: t.replace("spend", "money"), "has no column 'spend'"),
]


@pytest.mark.parametrize(("change", "sentence"), BROKEN, ids=[s[:24] for _, s in BROKEN])
def test_a_file_that_does_not_fit_saves_nothing(
    root: Path, plumb: Plumb, change: Callable[[str], str], sentence: str
) -> None:
    plumb("scenario", "create", "push", "-C", root)
    plumb("scenario", "export", "push", root / "push.csv", "-C", root)
    (root / "bad.csv").write_text(change((root / "push.csv").read_text(encoding="utf-8")), encoding="utf-8")
    before = (root / "warehouse.duckdb").read_bytes()
    code, answer = plumb("scenario", "import", root / "bad.csv", "--name", "bad", "-C", root)
    assert code == 2 and sentence in answer["error"], answer
    assert saved_names(root) == ["push"] and (root / "warehouse.duckdb").read_bytes() == before


@pytest.mark.parametrize(
    ("spend", "sentence"),
    [("radio=5", "names 'radio'; the model knows tv, web"), ("tv=-5", "the spend would be negative"),
     ("tv=-150%", "the spend would be negative"), ("tv=much", "write an amount per week"), ("tv", "CHANNEL=AMOUNT")],
)  # fmt: skip
def test_a_spend_that_cannot_be_is_refused(root: Path, plumb: Plumb, spend: str, sentence: str) -> None:
    code, answer = plumb("scenario", "create", "bad", "--spend", spend, "-C", root)
    assert code == 2 and sentence in answer["error"] and saved_names(root) == []


def test_approval_record_and_pacing(root: Path, plumb: Plumb) -> None:
    plumb("scenario", "create", "push", "--spend", "web=+10%", "-C", root)
    code, answer = plumb("scenario", "pace", "-C", root)
    assert code == 2 and "there is no plan of record" in answer["error"]
    assert plumb("scenario", "record", "push", "--reason", "go", "-C", root)[0] == 2
    assert plumb("scenario", "approve", "push", "--reason", "it fits", "--author", "cfo", "-C", root)[0] == 0
    assert plumb("scenario", "record", "push", "--reason", "go", "--author", "cfo", "-C", root)[0] == 0
    assert plumb("scenario", "list", "-C", root)[1]["scenarios"][0]["of_record"]
    assert read_view(root / "warehouse.duckdb", "v_scenarios")["of_record"].all()
    spend = "date,geo,channel,spend\n" + "".join(
        f"2026-01-{day},{geo},{channel},{amount}\n"
        for day, geo in (("05", "north"), ("12", "north"), ("19", "south"))
        for channel, amount in (("tv", 400), ("web", 660))
    )
    (root / "spend.csv").write_text(spend, encoding="utf-8")
    code, answer = plumb("scenario", "pace", "-C", root)
    assert code == 0, answer
    found = {r["channel"]: r for r in answer["channels"]}
    assert answer["as_of"] == "2026-01-25" and found["tv"]["alerts"] == ""
    assert "50% over plan to date" in found["web"]["alerts"]
    assert found["web"]["actual"] == pytest.approx(1320) and found["web"]["planned"] == pytest.approx(880)
    code, answer = plumb("scenario", "pace", "push", "--as-of", "2026-06-01", "-C", root)
    assert code == 2 and "outside the plan's 2026-01-12 to 2026-02-08" in answer["error"]
