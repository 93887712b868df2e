"""Budget, health, lineage and the glossary: counts and traces of what the file says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from app import audit, budgets, condition, evidence, glossary
from app.charts import budget
from app.store import Snapshot

Read = Callable[[str], Snapshot]


def test_every_quarter_of_the_chart_adds_up_to_its_grant(snapshot: Read) -> None:
    s = snapshot("full")
    frame = budgets.charges(s)
    caps = s.charges.groupby("block")["block_cap"].first()
    assert frame.groupby("block")["rho"].sum().tolist() == pytest.approx(caps.tolist())
    assert "90 % of it" in budgets.sentence(s)
    spec = budget.spent_by_quarter(frame).to_dict()
    assert "zCDP rho of one person" in str(spec) and budget.budget_alt(frame).count("spent") == len(caps)


def test_four_times_the_budget_halves_the_noise(snapshot: Read) -> None:
    frame = budgets.what_epsilon_costs(snapshot("full"), "kpi", "conversions").set_index("rho")["sd"]
    assert frame.loc[0.4] == pytest.approx(frame.loc[0.1] / 2)
    assert frame.loc[0.1] == pytest.approx(4.0 / np.sqrt(0.2))


def test_a_panel_has_no_budget(snapshot: Read) -> None:
    s = snapshot("aggregate_only")
    assert budgets.blocks(s) == () and budgets.sentence(s) == "" and budgets.noise(s).empty


def test_a_trace_follows_every_step_once_and_survives_a_circle(snapshot: Read) -> None:
    rows = [("plan", "pool", ""), ("pool", "fit", ""), ("fit", "release:a", "h1"), ("fit", "spend:s.csv", "h2"),
            ("pool", "release:a", "h1"), ("fit", "plan", "")]  # fmt: skip
    s = replace(snapshot("full"), lineage=pd.DataFrame(rows, columns=["output", "input", "input_hash"]))
    links = audit.trace(s, "plan")
    assert {(k.output, k.source) for k in links} == {(a, b) for a, b, _ in rows} and len(links) == len(rows)
    assert [k.depth for k in links if k.source == "spend:s.csv"] == [3]
    assert audit.roots(s, links) == "It rests on 1 private release and the input spend:s.csv."
    assert audit.roots(s, audit.trace(s, "nothing")) == "Nothing is recorded behind it."


def test_deeds_are_told_newest_first(snapshot: Read) -> None:
    said = pd.DataFrame(
        [("co-1", "channel", "tv", "ana", "why?", pd.Timestamp("2027-01-01"), "disputed")],
        columns=["comment_id", "subject_kind", "subject_id", "author", "text", "written_at", "stance"],
    )
    deeds = audit.deeds(replace(snapshot("full"), comments=said))
    assert deeds.iloc[0].tolist() == ["2027-01-01 00:00 UTC", "ana", "commented on the channel tv", "why?"]
    assert (deeds["did"] == "published a release").sum() == 1


def test_every_check_stands_in_one_group_and_the_worst_comes_first(snapshot: Read) -> None:
    for variant in ("full", "failed_gate"):
        s = snapshot(variant)
        found = condition.groups(s)
        assert sum(g.failed + g.warned + g.passed for g in found) == len(s.checks)
    table = pd.concat([condition.checks(s, g.name, all_of_them=True) for g in found])
    assert len(table) == len(s.checks) and "fail" in set(table["verdict"])


def test_freshness_counts_days(snapshot: Read) -> None:
    s = snapshot("full")
    made = date.fromisoformat(s.meta.generated_at[:10])
    assert [level for level, *_ in condition.freshness(s, made)][1] == "ok"
    assert condition.freshness(s, made + timedelta(days=8))[1][0] == "warn"
    assert condition.completeness(s) == (1.0, 12 * 78)


def test_two_runs_are_compared_and_said_why_they_differ(snapshot: Read) -> None:
    s = snapshot("full")
    assert condition.drift(s).empty
    old = s.effects_history.assign(run_id="run-old", as_of=pd.Timestamp("2026-01-01"), model_version="mmm-old")
    scaled = old.assign(**{k: old[k] * 10 for k in ("mean", "p05", "p95")})
    both = replace(s, effects_history=pd.concat([s.effects_history, scaled]))
    table = condition.drift(both)
    assert set(table["verdict"]) == {"intervals do not overlap"}
    assert condition.changed_because(both)[0].startswith("Specification or code changed")


def test_a_conflict_takes_the_grade_of_its_channel(snapshot: Read) -> None:
    s = snapshot("full")
    assert set(evidence.grades(s).values()) <= {"A", "B", "C"}
    clash = pd.DataFrame([{"channel": "tv", "severity": "red"}]).reindex(columns=s.conflicts.columns)
    assert evidence.grades(replace(s, conflicts=clash))["tv"] == "D"
    assert set(evidence.grades(snapshot("failed_gate")).values()) == {"D"}


def test_the_glossary_finds_terms_and_columns() -> None:
    assert [t.name for t in glossary.found("carry-over")] == ["adstock"]
    assert len(glossary.found("")) == len(glossary.TERMS) == len({t.name for t in glossary.TERMS})
    found = glossary.columns("noise variance")
    assert {"v_kpi", "v_lift"} <= set(found["view"]) and glossary.columns("zzz").empty
