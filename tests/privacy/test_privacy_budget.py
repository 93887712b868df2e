"""Readings of the chain: sums over several releases of one block and measure, years, voids."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from privacy_crowd import GRANT, NOW, Q1, Q2, plan

from contracts.errors import PrivacyError
from privacy.budget import Portion, Quarter, fiscal_years, read_spending, worst_year
from privacy.chain import LedgerPaths
from privacy.ledger import open_ledger


def paths_in(folder: Path) -> LedgerPaths:
    return LedgerPaths(folder / "ledger.sqlite", folder / "config" / "head")


def test_nothing_is_read_before_the_first_release(tmp_path: Path) -> None:
    assert read_spending(paths_in(tmp_path), NOW) is None
    assert not list(tmp_path.iterdir()), "reading creates nothing"


def test_several_releases_of_one_block_and_measure_add_up(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    with open_ledger(paths, NOW) as book:
        for week in range(3):
            state = book.reserve(plan(f"week {week}", 7_000_000), GRANT, NOW, "ann")
            if week < 2:
                book.note_draw(f"week {week}", state.reserve_hash, NOW)
            if week < 1:
                book.publish("week 0", "hash", NOW)
        book.reserve(plan("trial", 20_000_000, (Q1, Q2), "trials"), GRANT, NOW, "bob")
    found = read_spending(paths, NOW)
    assert found is not None
    assert [(q.block, q.spent_nano) for q in found.quarters] == [(Q1, 41_000_000), (Q2, 20_000_000)]
    assert found.quarters[0].portions == (
        Portion("kpi", 100_000_000, 21_000_000),
        Portion("trials", 50_000_000, 20_000_000),
        Portion("reserve", 50_000_000, 0),
    )
    assert [(r.release_id, r.state, r.by) for r in found.releases] == [
        ("week 0", "published", "ann"), ("week 1", "drawn", "ann"), ("week 2", "reserved", "ann"),
        ("trial", "reserved", "bob"),
    ]  # fmt: skip
    assert found.releases[0].out_hash == "hash" and found.releases[0].published_at == NOW.isoformat()
    live = found.live("trial")
    assert live is not None and live.charges == ((Q1, 20_000_000), (Q2, 20_000_000))
    assert found.live("nobody") is None


def quarter(day: str, spent: int) -> Quarter:
    return Quarter(f"quarter-{day}", 200, spent, ())


def test_years_are_fiscal_and_the_worst_is_four_in_a_row() -> None:
    days = ("2023-11-01", "2024-02-01", "2024-05-01", "2024-08-01", "2024-11-01", "2025-11-01")
    quarters = [quarter(d, s) for d, s in zip(days, (10, 20, 30, 40, 50, 100), strict=True)]
    assert fiscal_years(quarters, 2) == {
        date(2023, 2, 1): (10, 200), date(2024, 2, 1): (140, 800), date(2025, 2, 1): (100, 200),
    }  # fmt: skip
    assert worst_year(quarters) == 140, "a gap of a year is not bridged"
    assert worst_year(()) == 0


STEPS = st.lists(
    st.tuples(st.sampled_from(("reserve", "draw", "publish", "void")), st.integers(0, 4), st.integers(1, 40)),
    max_size=25,
)


@settings(max_examples=30, deadline=None)
@example([("reserve", 1, 20), ("reserve", 2, 30), ("void", 1, 1), ("reserve", 1, 40), ("void", 1, 1)])
@given(STEPS)
def test_spent_is_always_the_sum_of_what_stands(tmp_path_factory, steps) -> None:  # type: ignore[no-untyped-def]
    """Law: after any sequence, spent = sum of the charges that stand <= grant, and whatever was drawn stands."""
    paths, drawn = paths_in(tmp_path_factory.mktemp("law")), set()
    with open_ledger(paths, NOW) as book:
        for kind, number, million in steps:
            name = f"r{number}"
            state = book.state(name)
            try:
                if kind == "reserve":
                    book.reserve(plan(name, million * 1_000_000), GRANT, NOW)
                elif kind == "draw" and state is not None:
                    book.note_draw(name, state.reserve_hash, NOW)
                    drawn.add(name)
                elif kind == "publish" and state is not None and state.drawn:
                    book.publish(name, "hash", NOW)
                elif kind == "void":
                    book.void(name, {"reason": "law"}, NOW)
                    assert name not in drawn
            except PrivacyError:  # BudgetExceeded is one
                pass
        rows = book.charges()
    found = read_spending(paths, NOW)
    assert found is not None
    standing = {r.release_id: r.charges[0][1] for r in found.releases if r.state != "void"}
    assert set(rows["release_id"]) == set(standing) and drawn <= set(standing)
    for q in found.quarters:
        assert q.spent_nano == sum(standing.values()) <= q.portions[0].cap_nano


def test_a_draw_after_a_void_is_refused(tmp_path: Path) -> None:
    """The race of a publisher that was thought dead."""
    with open_ledger(paths_in(tmp_path), NOW) as book:
        first = book.reserve(plan("a"), GRANT, NOW)
        book.void("a", {"reason": "thought dead"}, NOW)
        with pytest.raises(PrivacyError, match="is not reserved any more: its charge was voided meanwhile"):
            book.note_draw("a", first.reserve_hash, NOW)
        again = book.reserve(plan("a"), GRANT, NOW)
        with pytest.raises(PrivacyError, match="voided meanwhile"):
            book.note_draw("a", first.reserve_hash, NOW)
        book.note_draw("a", again.reserve_hash, NOW)
        book.publish("a", "hash", NOW)
        with pytest.raises(PrivacyError, match="is published already; it is never drawn again"):
            book.note_draw("a", again.reserve_hash, NOW)
        with pytest.raises(PrivacyError, match="is charged nowhere"):
            book.void("b", {"reason": "never there"}, NOW)
        assert book.charges()["rho"].tolist() == [0.01]
