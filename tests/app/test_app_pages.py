"""Every page in every state, run as Streamlit runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import app_sample_warehouse as sample
import pytest
from streamlit.testing.v1 import AppTest

from app import scenario
from app.store import ENV
from app.wording import figure

ROOT = Path(__file__).resolve().parents[2]
MAIN = ROOT / "app" / "main.py"
PAGES = {"overview": None, "reconcile": "views/reconcile_page.py", "scenarios": "views/scenarios_page.py"}
TITLES = {"overview": "Overview: fixture shop", "reconcile": "Reconcile", "scenarios": "Scenarios"}
VARIANTS = ("full", "aggregate_only", "failed_gate", "no_experiments", "no_revenue", "one_period", "released_only")
NOW = scenario.current(sample.surface())


@pytest.fixture
def page(warehouse: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., AppTest]:
    """Opens a page of a variant of the fixture; no exception may reach the screen."""

    def open_page(name: str, variant: str = "full", **query: str) -> AppTest:
        monkeypatch.setenv(ENV, str(warehouse(variant)))
        at = AppTest.from_file(MAIN, default_timeout=60)
        for key, value in query.items():
            at.query_params[key.replace("__", ".")] = value
        at.run()
        if PAGES[name]:
            at.switch_page(PAGES[name]).run()
        assert not at.exception
        return at

    return open_page


def words(at: AppTest) -> str:
    """All text on the page, without Markdown's escapes."""
    kinds = (at.header, at.subheader, at.markdown, at.caption, at.info, at.warning, at.error, at.success)
    return "\n".join(e.value for kind in kinds for e in kind).replace("\\", "")


def metrics(at: AppTest) -> dict[str, str]:
    """Label and value of each headline figure."""
    return {m.label: m.value for m in at.metric}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_page_opens_in_every_state(page: Callable[..., AppTest], variant: str) -> None:
    at = page("overview", variant)
    for name, title in TITLES.items():
        if PAGES[name]:
            at.switch_page(PAGES[name]).run()
        assert not at.exception
        assert at.header[0].value == title
        assert at.caption, "a page has a footer"
        if variant == "aggregate_only":
            assert "No user-level data was used" in words(at)
            assert "consenting" not in words(at)
        if variant == "released_only":
            assert f"{'credit' if name == 'reconcile' else 'fit'} has too few weeks." in words(at)
        if variant == "failed_gate":
            assert any("Not published" in e.value for e in at.error)


def test_no_warehouse_and_an_empty_one_are_screens(
    page: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    at = page("overview", "empty")
    for path, title in ((None, "The warehouse is empty"), (tmp_path / "none.duckdb", "No warehouse to show")):
        if path is not None:
            monkeypatch.setenv(ENV, str(path))
        for file in ("views/overview.py", "views/reconcile_page.py", "views/scenarios_page.py"):
            at.switch_page(file).run()
            assert not at.exception
            assert at.subheader[0].value == title
            assert "plumb run" in at.code[0].value
    monkeypatch.delenv(ENV)
    unset = AppTest.from_file(MAIN, default_timeout=60).run()
    assert not unset.exception
    assert "PLUMB_WAREHOUSE is not set" in words(unset)


def test_a_damaged_warehouse_is_a_screen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "broken.duckdb"
    path.write_bytes(b"no database" * 1000)
    monkeypatch.setenv(ENV, str(path))
    at = AppTest.from_file(MAIN, default_timeout=60).run()
    assert not at.exception
    assert "is not a readable warehouse" in words(at)


def test_overview_leads_with_health_and_intervals(page: Callable[..., AppTest]) -> None:
    at = page("overview")
    assert at.warning[0].value == "1 of 2 checks warn"
    said = words(at)
    for part in (
        "As of 2026-07-08 06:30 UTC", "model mmm-4f2a91c0", "consenting people", "Consent was assumed",
        "31 % of conversions have no recorded touch", "What to do", "factor: 2026-04-06 to 2026-07-05",
    ):  # fmt: skip
        assert part in said, part
    assert metrics(at)["caused by marketing"] == "82,600 conversions"
    assert [m.delta for m in at.metric][1] == "90 % interval: 64,900 to 100,000"
    assert at.dataframe[0].value["channel"].tolist() == ["search", "tv", "social", "video", "retargeting"]
    assert len(at.download_button) == 1


def test_a_failed_gate_says_why(page: Callable[..., AppTest]) -> None:
    assert "R-hat of search is 1.2" in words(page("overview", "failed_gate"))


def test_reconcile_shows_channel_period_flags_and_the_sentence(page: Callable[..., AppTest]) -> None:
    at = page("reconcile")
    assert "Credit is descriptive" in words(at)
    at.selectbox(key="reconcile_channel").set_value("tv").run()
    assert not at.exception
    assert at.subheader[0].value == "tv: what each source says"
    assert "search (last touch): credit is over twice" in words(at)
    at.selectbox(key="reconcile_period").select_index(5).run()
    assert not at.exception
    assert "2025-01-06 to 2025-04-06" in words(at)
    assert len(at.dataframe) == 3
    assert "Who foretold them" in words(at) and "3 tests are too few to judge a share of 90 %" in words(at)


def test_reconcile_without_experiments_says_so(page: Callable[..., AppTest]) -> None:
    assert "No experiment has been run" in words(page("reconcile", "no_experiments"))


def test_a_slider_moves_the_number_the_budget_and_the_outcome(page: Callable[..., AppTest]) -> None:
    at = page("scenarios")
    assert metrics(at)["change: conversions per week caused"] == "0 conversions"
    at.slider(key="scenario_move.social").set_value(20).run()
    assert not at.exception
    assert at.number_input(key="scenario_spend.social").value == pytest.approx(1.2 * NOW[2])
    assert at.number_input(key="scenario_budget").value == pytest.approx(NOW.sum() + 0.2 * NOW[2])
    plan = scenario.compare(sample.surface(), scenario.from_changes(sample.surface(), {"social": 0.2}))
    assert at.metric[2].value == f"{figure(plan.change.mean)} conversions"
    assert "lies above zero" in words(at)


def test_a_typed_number_moves_the_slider(page: Callable[..., AppTest]) -> None:
    at = page("scenarios")
    at.number_input(key="scenario_spend.tv").set_value(0.9 * NOW[3]).run()
    assert at.slider(key="scenario_move.tv").value == -10
    at.button[1].click().run()
    assert at.slider(key="scenario_move.tv").value == 0
    assert at.number_input(key="scenario_budget").value == pytest.approx(NOW.sum())


def test_with_the_total_locked_the_unlocked_channels_give_way(page: Callable[..., AppTest]) -> None:
    at = page("scenarios")
    at.toggle(key="scenario_hold").set_value(True).run()
    at.checkbox(key="scenario_lock.tv").set_value(True).run()
    at.slider(key="scenario_move.social").set_value(20).run()
    assert not at.exception
    plan = at.session_state["scenario_plan"]
    assert plan.sum() == pytest.approx(NOW.sum())
    assert plan[2] == pytest.approx(1.2 * NOW[2])
    assert plan[3] == NOW[3]
    assert plan[1] < NOW[1]


def test_optimise_the_rest_keeps_locks_budget_and_guardrails(page: Callable[..., AppTest]) -> None:
    at = page("scenarios")
    at.checkbox(key="scenario_lock.search").set_value(True).run()
    at.button[0].click().run()
    assert not at.exception
    plan = at.session_state["scenario_plan"]
    assert plan[1] == pytest.approx(NOW[1], abs=0.011), "planning counts in whole cents"
    assert plan.sum() == pytest.approx(NOW.sum(), rel=1e-6)
    assert (plan >= 0.7 * NOW - 0.011).all()
    assert (plan <= 1.3 * NOW + 0.011).all()
    gain = scenario.compare(sample.surface(), plan).change.mean
    assert gain > 0, "the best split is no worse than the current one"


def test_the_least_budget_reaches_its_target_and_keeps_locks(page: Callable[..., AppTest]) -> None:
    at = page("scenarios")
    at.checkbox(key="scenario_lock.search").set_value(True).run()
    target = at.number_input(key="scenario_target").value
    assert target == round(scenario.compare(sample.surface(), NOW).current.mean)
    at.slider(key="scenario_sure").set_value(60)
    next(b for b in at.button if b.label == "Find the least budget").click().run()
    assert not at.exception
    plan = at.session_state["scenario_plan"]
    assert "is the least that causes" in words(at) and plan[1] == pytest.approx(NOW[1], abs=0.011)
    draws = scenario.outcome(sample.surface(), plan).sum(axis=1)
    assert sample.surface().weights @ (draws >= target) >= 0.6 - 1e-9
    assert sample.surface().weights @ (scenario.outcome(sample.surface(), 0.97 * plan).sum(axis=1) >= target) < 0.6
    at.number_input(key="scenario_target").set_value(100 * target)
    next(b for b in at.button if b.label == "Find the least budget").click().run()
    assert "Guardrails and locks bound the spend" in words(at)
    assert at.session_state["scenario_plan"] == pytest.approx(plan), "a refusal changes nothing"


def test_a_budget_that_no_split_can_meet_is_refused_in_words(page: Callable[..., AppTest]) -> None:
    at = page("scenarios")
    at.number_input(key="scenario_budget").set_value(10 * NOW.sum()).run()
    assert not at.exception
    assert "more than locks and guardrails allow" in words(at)
    assert "not to the budget of" in words(at)
    at.button[0].click().run()
    assert "more than locks and guardrails allow" in words(at)


def test_spend_outside_the_observed_warns(page: Callable[..., AppTest]) -> None:
    at = page("scenarios")
    at.slider(key="scenario_guardrail").set_value(100).run()
    at.slider(key="scenario_move.retargeting").set_value(90).run()
    assert not at.exception
    assert "Outside observed spend: retargeting" in words(at)


def test_an_address_opens_the_plan_that_it_carries(page: Callable[..., AppTest]) -> None:
    at = page("scenarios", "full", spend__social=f"{1.1 * NOW[2]:.2f}", spend__tv="nonsense")
    assert at.slider(key="scenario_move.social").value == 10
    assert at.slider(key="scenario_move.tv").value == 0
    at.slider(key="scenario_move.video").set_value(-20).run()
    at.button[2].click().run()
    assert float("".join(at.query_params["spend.video"])) == pytest.approx(0.8 * NOW[4], abs=0.01)


def test_a_plan_survives_a_change_of_page(page: Callable[..., AppTest]) -> None:
    at = page("scenarios")
    at.slider(key="scenario_move.social").set_value(20).run()
    at.switch_page("views/overview.py").run()
    at.switch_page(PAGES["scenarios"]).run()
    assert at.slider(key="scenario_move.social").value == 20
    assert at.number_input(key="scenario_budget").value == pytest.approx(NOW.sum() + 0.2 * NOW[2])


def test_the_page_shows_the_file_that_replaced_the_old_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, warehouse: Callable[[str], Path]
) -> None:
    path = tmp_path / "w.duckdb"
    path.write_bytes(warehouse("full").read_bytes())
    monkeypatch.setenv(ENV, str(path))
    at = AppTest.from_file(MAIN, default_timeout=60).run()
    assert at.warning[0].value == "1 of 2 checks warn"
    new = tmp_path / "new.duckdb"
    new.write_bytes(warehouse("failed_gate").read_bytes())
    new.replace(path)
    at.run()
    assert "Not published" in at.error[0].value


def test_no_module_of_the_app_carries_a_root_packages_name() -> None:
    roots = {p.parent.name for p in ROOT.glob("*/__init__.py")}
    assert not roots & {p.stem for p in (ROOT / "app").iterdir() if p.name != "__init__.py"}


def test_the_process_loads_nothing_that_reads_a_users_row() -> None:
    code = (
        "import sys, app.main, app.views.overview, app.views.reconcile_page, app.views.scenarios_page, app.report\n"
        "bad = {'privacy', 'workflow', 'simulate', 'opendp'} & {m.split('.')[0] for m in sys.modules}\n"
        "assert not bad, bad\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"PYTHONWARNINGS": ""}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_pages_of_evidence_and_trust_open_in_every_state(page: Callable[..., AppTest], variant: str) -> None:
    at = page("overview", variant)
    for name, title in {
        "experiments": "Experiments", "lab": "Attribution lab", "budgets": "Data & privacy", "health": "Health",
        "audit": "Lineage & audit", "glossary": "Glossary",
    }.items():  # fmt: skip
        at.switch_page(f"views/{name}_page.py").run()
        assert not at.exception, (name, at.exception)
        assert at.header[0].value == title
