"""States of order k: names, neighbours, and the order that a release's table tells."""

from __future__ import annotations

import pytest

from attribution.states import order_of, state_names, states_of
from contracts.errors import ContractError


def test_states_of_order_two() -> None:
    states = states_of(2, 2)
    names = state_names(("a", "b"), 2)
    assert list(names) == ["start", "a", "b", "a>a", "a>b", "b>a", "b>b"]
    at = list(names)
    assert [[at[i] for i in row] for row in states.onward] == [
        ["a", "b"], ["a>a", "a>b"], ["b>a", "b>b"], ["a>a", "a>b"], ["b>a", "b>b"], ["a>a", "a>b"], ["b>a", "b>b"],
    ]  # fmt: skip
    assert list(states.newest) == [0, 1, 0, 1, 0, 1]
    assert [at[i] for i in states.shorter] == ["start", "start", "a", "b", "a", "b"]


@pytest.mark.parametrize(("channels", "order"), [(1, 1), (1, 3), (3, 1), (3, 2), (4, 3)])
def test_the_order_is_told_by_the_number_of_sources(channels: int, order: int) -> None:
    assert order_of(channels, states_of(channels, order).count) == order


def test_a_number_of_sources_that_fits_no_order_is_refused() -> None:
    with pytest.raises(ContractError, match="7 sources for 3 channels, which fits no order from 1 to 4"):
        order_of(3, 7)
