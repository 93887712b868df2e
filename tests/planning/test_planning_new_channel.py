"""A channel that never ran, from a stated prior."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import pytest

from contracts.errors import ContractError
from planning.new_channel import NewChannel, stated_return, with_new_channel
from planning.surface import Assumptions, build_surface, evaluate, extrapolated, held

Make = Callable[..., Any]
BELIEF: dict[str, Any] = {
    "name": "ctv", "return_low": 0.1, "return_high": 0.4, "reference_spend": 1000.0, "half_at": 1500.0,
    "source": "sister market",
}  # fmt: skip


def test_the_stated_return_comes_back(make_dynamic: Make) -> None:
    """4,000 weighted draws (about 3,300 effective): the standard error of a log quantile is under 3 %, 4 allowed."""
    response = with_new_channel(make_dynamic(1, channels=2, draws=4000), NewChannel(**BELIEF))
    found = stated_return(response, "ctv", 1000.0)
    assert [found["p10"], found["p50"], found["p90"]] == pytest.approx([0.1, 0.2, 0.4], rel=0.12)
    more = stated_return(response, "ctv", 4000.0)
    assert more["p50"] < found["p50"]  # it saturates


def test_the_others_keep_what_they_bring_and_the_new_one_is_marked(make_dynamic: Make) -> None:
    before = make_dynamic(1, channels=2)
    after = with_new_channel(before, NewChannel(**BELIEF))
    old, new = (build_surface(r, date(2025, 1, 13), 4) for r in (before, after))
    plan = np.concatenate([held(old), 200.0 * np.ones((4, 2, 1))], axis=2)
    found = evaluate(new, plan)
    assert found.plan[:2] == pytest.approx(evaluate(old, held(old)).plan)
    assert (found.plan[2] >= 0).all() and found.plan[2].sum() > 0 and not found.in_flight[2].any()
    assert extrapolated(new, plan) == ("ctv",)
    nothing = build_surface(after, date(2025, 1, 13), 4, Assumptions(extrapolation_sd=0.0))
    assert evaluate(nothing, plan).plan[2] == pytest.approx(found.plan[2])  # the stated interval is the whole interval
    assert not np.allclose(evaluate(nothing, 20 * plan).plan[2], evaluate(new, 20 * plan).plan[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"return_high": 0.05}, "return_high must be over 0.1; got 0.05"),
        ({"return_low": 0.0}, "return_low must be a finite number > 0"),
        ({"half_factor": 1.0}, "half_factor must be over 1"),
        ({"retention": 1.0}, "retention must lie between 0 and 1"),
        ({"source": " "}, "needs a source: say where the belief comes from"),
    ],
)
def test_beliefs_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        NewChannel(**(BELIEF | change))


def test_names_are_checked(make_dynamic: Make) -> None:
    response = make_dynamic(1, channels=2)
    with pytest.raises(ContractError, match="'c0' is in the model already"):
        with_new_channel(response, NewChannel(**(BELIEF | {"name": "c0"})))
    with pytest.raises(ContractError, match="'ctv' is not there; the model knows c0, c1"):
        stated_return(response, "ctv", 1.0)
