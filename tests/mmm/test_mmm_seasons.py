"""What the date explains: the same columns in the panel and after it."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest

from contracts.errors import ContractError
from mmm.seasons import seasons
from mmm.spec import Event, ModelSpec

WEEKS = tuple(date(2023, 1, 2) + timedelta(weeks=i) for i in range(104))
DAYS = tuple(date(2023, 1, 1) + timedelta(days=i) for i in range(400))


def column(found, name: str) -> np.ndarray:
    return found.columns[:, found.names.index(name)]


def test_a_holiday_s_window_is_shared_out_over_the_periods_it_meets():
    spec = ModelSpec(holidays=("US",), holiday_window=(3, 1), yearly_terms=0)
    christmas = column(seasons(WEEKS, WEEKS, 7, spec), "holiday Christmas Day")
    # 2023-12-25 is a Monday: 3 of its 5 days lie in the week before; 2024-12-25 is a Wednesday: the 22nd is a Sunday
    at = {WEEKS[i]: v for i, v in enumerate(christmas) if v > 0}
    assert at == pytest.approx({date(2023, 12, 18): 0.6, date(2023, 12, 25): 0.4, date(2024, 12, 16): 0.2,
                                date(2024, 12, 23): 0.8})  # fmt: skip


def test_every_column_exists_after_the_panel_and_means_the_same():
    sales = (
        Event("sale", date(2023, 5, 1), date(2023, 5, 9)),
        Event("sale", date(2025, 2, 3), date(2025, 2, 4)),
    )
    spec = ModelSpec(holidays=("US", "DE"), monthly_terms=1, changepoints=(date(2023, 6, 5),), events=sales)
    later = tuple(WEEKS[-1] + timedelta(weeks=i) for i in range(1, 9))
    inside, after = seasons(WEEKS, WEEKS, 7, spec), seasons(later, WEEKS, 7, spec)
    both = seasons((*WEEKS, *later), WEEKS, 7, spec)
    assert inside.names == after.names == both.names
    assert np.allclose(np.concatenate([inside.columns, after.columns]), both.columns)
    assert np.allclose(column(inside, "changepoint 2023-06-05"), [float(w >= date(2023, 6, 5)) for w in WEEKS])
    assert column(inside, "event sale").sum() == pytest.approx(9 / 7)
    assert column(after, "event sale").sum() == pytest.approx(2 / 7)
    assert np.abs(inside.columns[:, :6].mean(axis=0)).max() < 1e-12


def test_a_daily_panel_has_weekday_contrasts_and_a_short_one_no_year():
    found = seasons(DAYS[:200], DAYS[:200], 1, ModelSpec())
    assert found.names == tuple(f"weekday {d}" for d in range(6))
    assert set(np.unique(found.columns)) == {-1.0, 0.0, 1.0}
    assert len(seasons(DAYS, DAYS, 1, ModelSpec()).names) == 10


def test_what_the_panel_never_saw_has_no_column():
    spec = ModelSpec(
        yearly_terms=0, changepoints=(date(2030, 1, 1),), events=(Event("x", date(2030, 1, 1), date(2030, 1, 2)),)
    )
    assert seasons(WEEKS, WEEKS, 7, spec).columns.shape == (104, 0)


def test_refusals():
    with pytest.raises(ContractError, match="holidays of 'XX' are not known"):
        seasons(WEEKS, WEEKS, 7, ModelSpec(holidays=("XX",)))
    with pytest.raises(ContractError, match=r"event 'x' ends \(2024-01-01\) before it starts"):
        Event("x", date(2024, 1, 2), date(2024, 1, 1))
    with pytest.raises(ContractError, match="monthly_terms must lie between 0 and 6; got 9"):
        ModelSpec(monthly_terms=9)
