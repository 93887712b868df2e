"""Several arms and the sample-ratio test: against scipy's Dunnett, simulation, and hand computation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from contracts.errors import ContractError
from lift.several import all_inside, dunnett_limit, holm, sample_ratio, several_arms
from lift.totals import Totals


def _arm(name: str, n: float, y: float, noise: float = 0.0) -> Totals:
    value = np.array([n, y, y])
    return Totals(name, ("n", "conversions", "conversions*conversions"), value, np.full(3, noise**2))


def test_dunnett_is_exact_for_known_cases() -> None:
    assert all_inside(1.96, np.array([0.0]), np.inf) == pytest.approx(1 - 2 * stats.norm.sf(1.96), abs=1e-10)
    assert all_inside(2.0, np.zeros(3), np.inf) == pytest.approx((1 - 2 * stats.norm.sf(2.0)) ** 3, abs=1e-10)
    half = np.full(3, np.sqrt(0.5))  # equal arms: all correlations one half
    assert dunnett_limit(half, np.inf) == pytest.approx(2.349, abs=2e-3)  # Dunnett's table, K = 3, infinite dof
    assert dunnett_limit(half, 20.0) == pytest.approx(2.54, abs=1e-2)  # K = 3, 20 dof


def test_limit_holds_the_family_in_simulation() -> None:
    """100,000 draws of 4 arms: the rate's sd is .0007, so a band of .004 misses with chance 1e-8."""
    loadings = np.array([0.3, 0.6, 0.7, 0.8])
    rng = np.random.default_rng(2)
    t = loadings * rng.standard_normal((100_000, 1)) + np.sqrt(1 - loadings**2) * rng.standard_normal((100_000, 4))
    t = t / np.sqrt(rng.chisquare(12, (100_000, 1)) / 12)
    assert (np.abs(t) < dunnett_limit(loadings, 12.0)).all(1).mean() == pytest.approx(0.95, abs=0.004)


def test_arms_share_the_control_and_its_noise() -> None:
    found = several_arms(
        _arm("control", 5000, 250, 20.0), [_arm("a", 5000, 300, 20.0), _arm("b", 9000, 480, 5.0)], "conversions"
    )
    assert found.arms == ("a", "b")
    assert (found.raw <= found.dunnett).all() and (found.dunnett <= np.minimum(2 * found.raw, 1.0)).all()  # Bonferroni
    lower, upper = found.simultaneous()
    assert ((lower > 0) | (upper < 0)).tolist() == (found.dunnett < 0.05).tolist()
    mean, n, tau2 = 250 / 5000, 5000.0, 400.0
    spread = (250 - (250**2 - tau2) / n) / (n - 1)
    control = spread / n + tau2 * (1 + mean**2) / n**2
    expected = np.sqrt(control) / [float(e.std_error) for e in found.effects]
    np.testing.assert_allclose(found.loadings, expected, rtol=1e-9)


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])


def test_sample_ratio_without_noise_is_pearson() -> None:
    check = sample_ratio([_arm("a", 5100, 1), _arm("b", 4900, 1), _arm("c", 10_200, 1)], (1, 1, 2))
    pearson = stats.chisquare([5100, 4900, 10_200], [5050, 5050, 10_100])
    assert check.chi_square == pytest.approx(pearson.statistic)
    assert check.p_value == pytest.approx(pearson.pvalue)
    assert (check.dof, check.verdict, check.blind_share) == (2, "pass", 0.0)


def test_sample_ratio_keeps_its_level_under_noise_and_sees_a_real_fault() -> None:
    """2,000 splits at a 5 % level: rate sd .0049, the band .03-.07 is missed with chance 5e-5."""
    rng = np.random.default_rng(4)
    rejected = []
    for _ in range(2000):
        n = rng.multinomial(20_000, [0.5, 0.3, 0.2]) + 80 * rng.standard_normal(3)
        rejected.append(
            sample_ratio([_arm(a, x, 1, 80.0) for a, x in zip("abc", n, strict=True)], (5, 3, 2)).p_value < 0.05
        )
    assert 0.03 <= np.mean(rejected) <= 0.07
    assert sample_ratio([_arm("a", 10_600, 1, 30.0), _arm("b", 9_400, 1, 30.0)], (1, 1)).verdict == "fail"


def test_bad_arms() -> None:
    with pytest.raises(ContractError, match="distinct treated arms beside the control 'control'; got -"):
        several_arms(_arm("control", 500, 20), [], "conversions")
    with pytest.raises(
        ContractError, match="needs two arms or more and one planned share above 0 for each; got 1 arms"
    ):
        sample_ratio([_arm("a", 500, 1)], (1,))
    with pytest.raises(ContractError, match="within 5 sd of their noise; there is no split to test. Give"):
        sample_ratio([_arm("a", 20, 1, 80.0), _arm("b", -15, 1, 80.0)], (1, 1))
