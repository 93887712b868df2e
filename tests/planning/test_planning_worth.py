"""Money of a plan: margin × revenue less the spend, and the first week that has covered it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from planning.surface import Assumptions, Outcome, evaluate, held, value_draws
from planning.worth import worth

Make = Callable[..., Any]


def test_revenue_and_contribution_are_those_of_the_surface(make_surface: Make) -> None:
    s = make_surface(3, channels=2, assumptions=Assumptions(price=20.0, margin=0.4))
    plan = held(s)
    found = worth(s, evaluate(s, plan), float(plan.sum()))
    assert found is not None and found.contribution is not None
    assert found.revenue == pytest.approx(value_draws(s, plan, "revenue"))
    assert found.contribution == pytest.approx(value_draws(s, plan, "margin"))


def test_payback_is_the_first_week_that_has_covered_all_the_spend(make_surface: Make) -> None:
    """10, 20 and 40 KPI units a period; worth 0.5 each; 40 to earn."""
    s = make_surface(3, channels=2, assumptions=Assumptions(price=1.0, margin=0.5))
    periods = s.periods + s.response.lags - 1
    brought = np.array([10.0, 20.0, 40.0])[None, :, None] * np.ones((1, 3, periods))
    found = worth(s, Outcome(brought, np.zeros_like(brought), s.periods), 40.0)
    week = s.response.period_days / 7
    assert found is not None and found.payback is not None and found.weeks == periods * week
    first = np.array([8.0, 4.0, 2.0])
    assert found.payback == pytest.approx(np.where(first <= periods, first, np.inf) * week)
    never = worth(s, Outcome(brought, np.zeros_like(brought), s.periods), 1e9)
    assert never is not None and never.payback is not None and np.isinf(never.payback).all()


def test_without_a_price_there_is_no_money_and_without_a_margin_no_contribution(make_surface: Make) -> None:
    s = make_surface(3, channels=2, assumptions=Assumptions(price=20.0))
    found = worth(s, evaluate(s, held(s)), 1.0)
    assert found is not None and found.contribution is None and found.payback is None
    assert worth(replace(s, price=None), evaluate(s, held(s)), 1.0) is None
