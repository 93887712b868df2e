"""Weights carry calibrated draws to the reconciled totals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import ContractError
from contracts.intervals import summarise
from planning.summary import weighted_interval
from planning.weights import importance_weights


def totals(rng: np.random.Generator, mean: list[float], sd: list[float], n: int = 4000) -> np.ndarray:
    """Lognormal totals (n, C)."""
    return np.exp(np.array(mean) + np.array(sd) * rng.normal(size=(n, len(mean))))


def test_weighted_draws_have_the_reconciled_mean_and_spread() -> None:
    rng = np.random.default_rng(0)
    calibrated = totals(rng, [5.0, 6.0], [0.3, 0.4])
    reconciled = totals(rng, [5.2, 5.9], [0.2, 0.3])
    found = importance_weights(calibrated, reconciled)
    logs = np.log(calibrated)
    mean = found.weights @ logs
    assert mean == pytest.approx(np.log(reconciled).mean(axis=0), abs=0.03)
    assert np.sqrt(found.weights @ (logs - mean) ** 2) == pytest.approx([0.2, 0.3], rel=0.08)
    assert 400 < found.ess < 4000 and found.enough and found.pareto_k < 0.7


def test_the_same_totals_need_no_weights() -> None:
    rng = np.random.default_rng(1)
    calibrated = totals(rng, [5.0, 6.0, 4.0], [0.3, 0.4, 0.2])
    found = importance_weights(calibrated, totals(rng, [5.0, 6.0, 4.0], [0.3, 0.4, 0.2]))
    assert found.weights.sum() == pytest.approx(1.0)
    assert found.ess > 3900


def test_totals_out_of_reach_show_a_small_effective_sample() -> None:
    rng = np.random.default_rng(2)
    found = importance_weights(totals(rng, [5.0], [0.1]), totals(rng, [5.5], [0.1]))
    assert found.ess < 100 and not found.enough


def test_misfits_are_refused() -> None:
    rng = np.random.default_rng(3)
    good = totals(rng, [5.0, 6.0], [0.3, 0.4])
    with pytest.raises(ContractError, match="must hold the same channels; got 2 and 1"):
        importance_weights(good, good[:, :1])
    with pytest.raises(ContractError, match="reconciled totals must be a table of finite numbers > 0"):
        importance_weights(good, -good)
    with pytest.raises(ContractError, match="need more than 4 draws; got 3"):
        importance_weights(good[:3], good)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40))
def test_equal_weights_give_the_shared_interval(values: list[float]) -> None:
    draws = np.array(values)
    found = weighted_interval(draws, np.full(len(draws), 1 / len(draws)))
    expected = summarise(draws)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-6 + 1e-9 * np.abs(draws).max())


def test_a_draw_of_no_weight_does_not_count() -> None:
    draws = np.array([1.0, 2.0, 3.0, 1000.0])
    found = weighted_interval(draws, np.array([1 / 3, 1 / 3, 1 / 3, 0.0]))
    assert found["mean"] == pytest.approx(2.0) and found["p50"] == pytest.approx(2.0, abs=0.01)
