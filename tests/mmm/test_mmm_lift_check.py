"""Leaving a test out by weights against the same thing in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from mmm_worlds import lift_term, make_panel
from scipy.stats import norm

from mmm.lift_check import compare

PANEL = make_panel(geos=4, periods=40)[0]
N = 40_000


def terms(first: float, second: float, correlation: float = 0.0):
    a = lift_term(PANEL, "a", mean=first, se=5.0, correlation=(1.0, correlation))
    b = lift_term(PANEL, "b", mean=second, se=4.0, correlation=(correlation, 1.0))
    return a, b


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_weights_give_back_the_posterior_without_the_test(correlation: float):
    """True lifts are Normal(5, 4²) and equal in both tests; everything is normal, so both answers are known.

    The tolerances are over 6 Monte Carlo standard errors at 40,000 draws.
    """
    pair = terms(9.0, 4.0, correlation)
    noise = np.array([[25.0, 20.0 * correlation], [20.0 * correlation, 16.0]])
    ones, measured = np.ones(2), np.array([9.0, 4.0])
    precision = 1 / 16 + ones @ np.linalg.solve(noise, ones)
    centre = (5 / 16 + ones @ np.linalg.solve(noise, measured)) / precision
    draws = centre + np.random.default_rng(0).standard_normal(N) / np.sqrt(precision)
    checks = compare(pair, np.stack([draws, draws], axis=1), np.ones((N, 2)), 0.0)
    for k, (se, other) in enumerate(((5.0, 1), (4.0, 0))):
        rest = 1 / 16 + 1 / noise[other, other]
        mean = (5 / 16 + measured[other] / noise[other, other]) / rest
        low, got, high = checks[k].left_out
        assert got == pytest.approx(mean, abs=0.15)
        assert (high - low) / 2 == pytest.approx(1.645 / np.sqrt(rest), rel=0.08)
        assert checks[k].fitted[1] == pytest.approx(centre, abs=0.1)
        assert checks[k].reliable
        if correlation == 0.0:
            z = (measured[k] - mean) / np.sqrt(se**2 + 1 / rest)
            assert checks[k].p_left_out == pytest.approx(2 * norm.sf(abs(z)), abs=0.03)


def test_a_test_that_the_model_cannot_reproduce_is_a_warning():
    pair = terms(40.0, 4.0)
    draws = np.random.default_rng(1).normal(4.5, 1.0, (4000, 2))
    odd, fine = (c.check() for c in compare(pair, draws, np.ones((4000, 2)), 0.1))
    assert (odd.name, odd.subject, odd.status) == ("lift_reproduced", "a", "warn")
    assert "lift test a measured 40 ± 5; the model" in odd.text
    assert fine.status == "pass"


def test_the_study_bias_widens_what_is_reproduced():
    pair = terms(22.0, 4.0)
    draws = np.random.default_rng(1).normal(6.0, 0.5, (2000, 2))
    strict, lenient = (compare(pair, draws, np.ones((2000, 2)), bias)[0].p_fitted for bias in (0.0, 0.5))
    assert strict < 0.01 < lenient
