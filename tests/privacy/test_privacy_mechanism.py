"""The sampler and its accounting (T3, T4, T9 of the test plan). False alarm of each statistical test: 1e-6 at most."""

from __future__ import annotations

import inspect
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import privacy
from contracts.errors import PrivacyError
from contracts.release import NANO
from privacy import mechanism

FALSE_ALARM = 1e-6
DRAWS = 50_000


def draws(sigma: float) -> np.ndarray:
    return mechanism.add_noise(np.zeros(DRAWS, dtype=np.int64), sigma)


def goodness_of_fit(sample: np.ndarray, sigma: float) -> float:
    """p-value of chi-square against the exact pmf of the discrete Gaussian."""
    edge = math.ceil(4 * sigma)
    support = np.arange(-edge, edge + 1)
    wide = np.arange(-40 * edge, 40 * edge + 1)
    pmf = np.exp(-(support**2) / (2 * sigma**2)) / np.exp(-(wide**2) / (2 * sigma**2)).sum()
    observed = np.array([(sample == s).sum() for s in support])
    expected = pmf * len(sample)
    keep = expected >= 5
    rest = len(sample) - expected[keep].sum()
    chi = ((observed[keep] - expected[keep]) ** 2 / expected[keep]).sum()
    chi += (len(sample) - observed[keep].sum() - rest) ** 2 / rest
    return float(stats.chi2.sf(chi, keep.sum()))


def variance_is_off(sample: np.ndarray, sigma: float) -> bool:
    """Five standard errors of the variance of a normal sample: false alarm 6e-7."""
    return bool(abs(sample.var() / sigma**2 - 1) > 5 * math.sqrt(2 / len(sample)))


def test_the_sampler_fits_the_discrete_gaussian() -> None:
    assert goodness_of_fit(draws(3.0), 3.0) > FALSE_ALARM


def test_the_sampler_has_the_claimed_variance_at_production_scale() -> None:
    sigma = mechanism.sigma_for(2_000_000, 70_000_000)
    assert not variance_is_off(draws(sigma), sigma)


def test_the_tests_above_have_power() -> None:
    assert goodness_of_fit(draws(3.0 * 0.95), 3.0) < FALSE_ALARM
    assert variance_is_off(draws(100.0 * 0.95), 100.0)


@settings(deadline=None)
@given(st.integers(4096, 2**26), st.integers(1, 5 * NANO))
def test_sigma_fits_the_grant_and_wastes_nothing(bound: int, nano: int) -> None:
    sigma = mechanism.sigma_for(bound, nano)
    assert mechanism.cost(bound, sigma) <= Fraction(nano, NANO)
    assert sigma <= bound / math.sqrt(2 * nano / NANO) * (1 + 1e-9)


def test_golden_numbers_of_the_accountant() -> None:
    assert mechanism.sigma_for(40_000, 20_000_000) == pytest.approx(200_000, rel=1e-9)
    golden = {0.01: 0.62, 0.05: 1.47, 0.1: 2.14, 0.2: 3.13, 0.4: 4.60, 0.5: 5.22, 1.0: 7.77}
    for rho, epsilon in golden.items():
        assert mechanism.epsilon_of(round(rho * NANO), 1e-6) == pytest.approx(epsilon, abs=0.006)


def test_two_calls_draw_different_noise() -> None:
    assert not np.array_equal(draws(1e6), draws(1e6))


def test_noise_takes_int64_only() -> None:
    with pytest.raises(PrivacyError, match="one int64 vector; got float64"):
        mechanism.add_noise(np.zeros(3), 1.0)


def test_nothing_in_the_room_takes_a_seed() -> None:
    for name, function in inspect.getmembers(mechanism, inspect.isfunction):
        names = set(inspect.signature(function).parameters)
        assert not names & {"seed", "rng", "random_state", "noise", "no_noise"}, name
    for path in privacy.__path__:
        from pathlib import Path  # noqa: PLC0415

        for file in Path(path).glob("*.py"):
            text = file.read_text()
            assert "default_rng" not in text and "import random" not in text and "np.random" not in text, file.name
