"""Corrections: a closed quarter looked at again, paid by its reserve, read in place of what it corrects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from privacy_worlds import NOW, SECRET, World, event, question

from contracts.errors import BudgetExceeded, ConfigError, PrivacyError
from contracts.release import current
from privacy import publish as module
from privacy.audit import audit
from privacy.cadence import Part
from privacy.corrections import Correction
from privacy.load import LoadSettings, load_people
from privacy.plan import plan_releases
from privacy.policy import MEASURES, PrivacyPolicy
from privacy.publish import exact_totals
from privacy.room import read_charges, read_release, read_spending, void_release
from privacy.vault import Vault

Q1 = date(2024, 1, 1)
KPI = Correction(Q1, "kpi")


def asked(*corrections: Correction, **more: Any) -> PrivacyPolicy:
    return replace(PrivacyPolicy(), corrections=corrections, **more)


@pytest.fixture
def here(tmp_path: Path) -> World:
    """One closed quarter without a trial."""
    whole = question(experiments=(), arms={})
    return World(tmp_path, question=replace(whole, blocks=whole.blocks[:1]))


def rows(late: int = 0) -> list[dict[str, Any]]:
    """20 people with three events each, and a late conversion of as many more people."""
    kinds = ("visit", "click", "conversion")
    known = [event(f"p{i % 20}", i, f"2024-02-{1 + i % 28:02}", kinds[i % 3], value="20", currency="USD")
             for i in range(60)]  # fmt: skip
    return known + [event(f"late{i}", i, "2024-03-20", "conversion", value="5", currency="USD") for i in range(late)]


def test_a_correction_is_one_more_question_about_the_whole_quarter_paid_by_its_reserve(here: World) -> None:
    before = plan_releases(here.question, asked(cadence={"kpi": "week"}))
    twice = asked(Correction(Q1, "kpi", 0.25), Correction(Q1, "kpi", 0.25), cadence={"kpi": "week"})
    plans = plan_releases(here.question, twice)
    assert plans[: len(before)] == before, "declaring a correction changes no question that was asked before"
    one, two = plans[len(before) :]
    assert [p.correction for p in (one, two)] == [1, 2] and one.release_id != two.release_id
    assert one.release_id.startswith("kpi-2024-01-01-c1-") and two.release_id.startswith("kpi-2024-01-01-c2-")
    assert one.weeks == here.question.blocks[0].weeks and one.payer == "reserve" and one.measure == "kpi"
    reserve = twice.share_nano("reserve")
    assert one.nano <= reserve // 4 < one.nano + 4, "each pays its part of the reserve, rounded down"
    assert one.vectors[0].bound_units == before[0].vectors[0].bound_units, "C is the same"


def test_an_open_quarter_or_another_quarter_is_not_corrected(here: World) -> None:
    blocks = (replace(here.question.blocks[0], closed=False),)
    policy = asked(KPI, Correction(date(2023, 10, 1), "kpi"))
    assert not [p for p in plan_releases(replace(here.question, blocks=blocks), policy) if p.correction]
    assert len([p for p in plan_releases(here.question, policy) if p.correction]) == 1


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Correction(Q1, "trials"), "measure must be one of kpi.*; got 'trials'"),
        (lambda: Correction(Q1, "kpi", 0.0), "share must be > 0 and at most 1; got 0"),
        (lambda: Correction(Q1, "kpi", float("nan")), "share must be > 0 and at most 1; got nan"),
        (lambda: asked(KPI, Correction(Q1, "journeys", 0.1)), "2024-01-01 ask for 1.1 of its reserve"),
        (lambda: asked(KPI, shares={"kpi": 0.5}), "privacy.shares.reserve is 0"),
    ],
)
def test_what_cannot_be_paid_is_refused_where_it_is_declared(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()


def test_late_rows_come_in_by_a_charged_correction_only(here: World) -> None:
    files = here.publish(here.inputs(here.write(rows())))
    stored = {p.name: p.read_bytes() for p in files}
    inputs = here.inputs(here.write(rows(late=400)))
    assert {p.name: p.read_bytes() for p in here.publish(inputs)} == stored, "late rows change nothing by themselves"
    before = read_charges(here.ledger)["rho"].sum()

    here.policy = asked(KPI)
    new = [p for p in here.publish(inputs) if p.name not in stored]
    assert {p.name: p.read_bytes() for p in files} == stored, "what was out stays out, byte by byte"
    (fixed,) = (read_release(p) for p in new)
    assert fixed.correction == 1 and fixed.metadata["correction"]["as_of"] == NOW.isoformat()
    first = next(r for r in map(read_release, files) if r.measure == "kpi")
    assert fixed.rho == pytest.approx(0.01, rel=1e-6) and first.rho == pytest.approx(0.1, rel=1e-6)
    ratio = fixed.vectors[0].sigma / first.vectors[0].sigma
    assert ratio == pytest.approx(10**0.5, rel=1e-6), "a tenth of the rho, sqrt(10) times the noise"
    north = fixed.table[(fixed.table["metric"] == "conversions") & (fixed.table["geo"] == "north")]
    # 400 late people, each counted whole under a bound of 2; 7 sd of 13 cells: false alarm below 1e-11
    assert north["value"].sum() > 400 - 7 * fixed.vectors[0].sigma * 13**0.5

    charges = read_charges(here.ledger)
    assert charges["rho"].sum() == pytest.approx(before + fixed.rho)
    assert set(charges[charges["paid_by"] == "reserve"]["release_id"]) == {fixed.release_id}
    spent = {p.measure: p.spent_nano for p in read_spending(here.ledger, NOW).quarters[0].portions}  # type: ignore[union-attr]
    assert spent["reserve"] == int(fixed.metadata["nano_rho"]) and spent["kpi"] == int(first.metadata["nano_rho"])
    assert [r.release_id for r in current((first, fixed))] == [fixed.release_id], "figures are read from one of the two"

    plans = {p.release_id: p for p in plan_releases(here.question, here.policy)}
    checked = audit((), ledger=here.ledger, releases_dir=here.root / "releases", plans=plans, now=NOW)
    assert not [c for s in checked for c in s.checks if c.status == "fails"]
    payer = next(c for s in checked if s.name == fixed.release_id for c in s.checks if c.name == "payer")
    assert payer.status == "holds" and "reserve share pays it" in payer.text


def test_a_reserve_is_spent_once(here: World) -> None:
    inputs = here.inputs(here.write(rows()))
    here.publish(inputs)
    here.policy = asked(Correction(Q1, "kpi", 0.8))
    here.publish(inputs)
    here.policy = asked(Correction(Q1, "journeys", 0.8))  # the first was taken out again: it is spent all the same
    with pytest.raises(BudgetExceeded, match=r"correction 1 of journeys, costs rho 0\.0(08|07999).*the reserve has "
                       r"0\.002.* of 0\.01 left \(spent by kpi-2024-01-01-c1.*\)\. Nothing else may pay"):  # fmt: skip
        here.publish(inputs)
    assert len(read_charges(here.ledger)) == 4
    here.policy = asked(Correction(Q1, "journeys", 0.2))
    here.publish(inputs)
    (quarter,) = read_spending(here.ledger, NOW).quarters  # type: ignore[union-attr]
    assert quarter.spent_nano <= quarter.cap_nano
    assert all(p.spent_nano <= p.cap_nano for p in quarter.portions)


def test_a_measure_that_a_quarter_was_opened_without_is_paid_by_its_reserve(here: World) -> None:
    inputs = here.inputs(here.write(rows()))
    here.publish(inputs)
    shares = {"kpi": 0.4, "journeys": 0.25, "trials": 0.15, "diagnostics": 0.05, "reserve": 0.05, "media": 0.1}
    here.policy = replace(PrivacyPolicy(), shares=shares)
    with pytest.raises(PrivacyError, match="opened with a kpi grant"):
        here.publish(inputs)
    here.policy = asked(Correction(Q1, "media"), shares=shares)
    mine = [p for p in plan_releases(here.question, here.policy) if p.correction]
    settings = LoadSettings(NOW, here.root / "raw", SECRET, 35)
    job = module.Job(
        inputs,
        here.policy,
        here.question,
        here.root / "releases",
        here.root / "raw/staging",
        "run",
        NOW,
        Vault.of(SECRET),
    )
    (path,) = module.publish(tuple(mine), job, here.ledger, settings, lambda *_: None)
    made = read_release(path)
    assert made.measure == "media" and made.rho == pytest.approx(0.01, rel=1e-6)
    assert set(read_charges(here.ledger).set_index("release_id").loc[made.release_id, ["paid_by"]]) == {"reserve"}


def test_a_voided_correction_gives_back_to_the_reserve(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = here.inputs(here.write(rows()))
    here.publish(inputs)
    here.policy = asked(KPI)
    with monkeypatch.context() as patched:
        patched.setattr(module, "exact_totals", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            here.publish(inputs)
    name = next(p.release_id for p in plan_releases(here.question, here.policy) if p.correction)
    void_release(name, "the machine ran out of memory", ledger=here.ledger, releases_dir=here.root / "releases",
                 raw_dir=here.root / "raw", actor="ann", now=NOW)  # fmt: skip
    spent = {p.measure: p.spent_nano for p in read_spending(here.ledger, NOW).quarters[0].portions}  # type: ignore[union-attr]
    assert spent["reserve"] == 0 and spent["kpi"] > 0
    here.publish(inputs)
    assert "reserve" in set(read_charges(here.ledger)["paid_by"])


def test_a_correction_counts_what_one_batch_would(here: World) -> None:
    """Of kpi in batches too: bounded over the quarter at once, so one person moves it by at most C."""
    heavy = [event("heavy", i, f"2024-0{1 + i % 3}-1{i}", "conversion") for i in range(9)]
    inputs = here.inputs(here.write(rows() + heavy))
    diagnostics = Correction(Q1, "diagnostics", 0.5)

    def totals(policy: PrivacyPolicy) -> dict[tuple[str, int, str], np.ndarray]:
        with load_people(inputs, here.question, LoadSettings(NOW, here.root / "raw", SECRET, 35)) as crowd:
            return {
                (p.measure, p.correction, name): units
                for p in plan_releases(here.question, policy)
                for name, units in exact_totals(p, crowd, policy, here.question).items()
            }

    whole = totals(PrivacyPolicy())
    parts = totals(asked(Correction(Q1, "kpi", 0.5), diagnostics, cadence={"kpi": (Part(6, 0.5), Part(None, 0.5))}))
    for name in ("conversions", "revenue", "active_users"):
        assert np.array_equal(parts["kpi", 1, name], whole["kpi", 0, name])
    lost = "clipped:conversions"
    assert np.array_equal(parts["diagnostics", 1, lost], whole["diagnostics", 0, lost])
    assert (parts["diagnostics", 0, lost] < whole["diagnostics", 0, lost]).all(), "two batches clip less"


def test_only_the_last_correction_of_each_measure_and_block_is_read() -> None:
    class Fake:
        def __init__(self, name: str, measure: str, block: str, correction: int) -> None:
            self.release_id, self.measure, self.block, self.correction = name, measure, block, correction

    made = [Fake("a", "kpi", "q1", 0), Fake("b", "kpi", "q1", 0), Fake("c", "kpi", "q2", 0), Fake("d", "kpi", "q1", 1),
            Fake("e", "kpi", "q1", 2), Fake("f", "journeys", "q1", 0)]  # fmt: skip
    assert [r.release_id for r in current(made)] == ["c", "e", "f"]  # type: ignore[arg-type]


def test_the_reserve_is_a_share_like_any_other() -> None:
    assert "reserve" in MEASURES and PrivacyPolicy().share_nano("reserve") == 10_000_000
