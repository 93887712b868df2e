"""Credit of enumerated journeys against a count per journey; refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribution.paths import path_credit, read_paths
from contracts.errors import ContractError

TEXTS = ["a > b > a", "b", "c > a", "a"]
WON, LOST, VALUE = np.array([2.0, 1, 3, 0]), np.array([1.0, 0, 0, 5]), np.array([20.0, 7, 9, 0])


def test_rules_on_four_paths() -> None:
    paths = read_paths(TEXTS, WON, LOST, VALUE)
    assert paths.channels == ("a", "b", "c")
    np.testing.assert_allclose(path_credit(paths, "last_touch"), [5, 1, 0])
    np.testing.assert_allclose(path_credit(paths, "first_touch"), [2, 1, 3])
    np.testing.assert_allclose(path_credit(paths, "linear"), [4 / 3 + 1.5, 2 / 3 + 1, 1.5])
    np.testing.assert_allclose(path_credit(paths, "shapley"), [1 + 1.5, 1 + 1, 1.5])
    np.testing.assert_allclose(path_credit(paths, "last_touch", revenue=True), [29, 7, 0])


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=6), min_size=3, max_size=30),
    st.sampled_from(["last_touch", "first_touch", "linear", "shapley", "markov"]),
    st.integers(1, 3),
)
def test_credit_sums_to_the_conversions(journeys: list[list[str]], model: str, order: int) -> None:
    won = np.arange(len(journeys)) % 3 + 1.0
    paths = read_paths([">".join(j) for j in journeys], won, np.ones(len(journeys)), won * 10)
    for revenue in (False, True):
        found = path_credit(paths, model, order=order, revenue=revenue)
        assert found.sum() == pytest.approx(won.sum() * (10 if revenue else 1))
        assert (found >= -1e-9).all()


def test_refusals() -> None:
    paths = read_paths(TEXTS, WON, LOST)
    with pytest.raises(ContractError, match=r"path 2 \('a >  > b'\) holds an empty channel"):
        read_paths(["a", "a >  > b"], np.ones(2))
    with pytest.raises(ContractError, match="unknown credit model 'best' of paths"):
        path_credit(paths, "best")
    with pytest.raises(ContractError, match="the order of a Markov model must be 1 or more; got 0"):
        path_credit(paths, "markov", order=0)
    with pytest.raises(ContractError, match="no path converts"):
        path_credit(read_paths(TEXTS, np.zeros(4), np.ones(4)), "markov")
    with pytest.raises(ContractError, match="conversions must be finite numbers >= 0"):
        read_paths(TEXTS, -WON)
