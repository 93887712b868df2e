"""Looking early: coverage over all looks together, agreement of p and interval, and refusals."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.lift_trials import World, draw, looks
from contracts.errors import ContractError
from lift.arms import intention_to_treat
from lift.sequential import looks_needed, mixture_parameter, mixture_sequence, spending_sequence
from lift.totals import added


def _pairs(weeks: int, times: float, effect: float = 0.0, trials: int = 500):  # type: ignore[no-untyped-def]
    rng, world = np.random.default_rng(8), World(effect)
    return [
        (
            draw(rng, world, 3000, trials, times, treated=True, logged=False),
            draw(rng, world, 3000, trials, times, treated=False, logged=False),
        )
        for _ in range(weeks)
    ]


@pytest.mark.parametrize("times", [0.0, 1.0, 3.0])
def test_all_weekly_looks_together_are_covered(times: float) -> None:
    """2,000 trials, 10 looks, each with fresh noise: below 93.5 % with chance 1e-3 at a true 95 %, fixed seed."""
    found = looks(World(), 3000, 10, 2000, times, 6)
    assert found["normal mixture"][0] >= 0.943
    assert found["spending"][0] >= 0.943
    assert found["fixed-sample interval at every look"][0] < 0.88  # what looking early does to a fixed interval


def test_p_and_interval_agree_at_every_look() -> None:
    pairs = _pairs(6, 1.0, effect=0.02)
    for s in (mixture_sequence(pairs, "conversions", planned_looks=6), spending_sequence(pairs, "conversions")):
        outside = (s.lower > 0) | (s.upper < 0)
        np.testing.assert_array_equal(outside, s.p_value < 0.05)
        assert (np.diff(s.p_always, axis=-1) <= 0).all()
        assert ((s.lower < s.value) & (s.value < s.upper)).all()
        first = s.stopped_at()
        assert (first[outside.any(-1)] == outside[outside.any(-1)].argmax(-1)).all()
        assert (first[~outside.any(-1)] == -1).all()


def test_noise_of_every_release_adds_up() -> None:
    pairs = _pairs(4, 2.0, trials=3)
    s = mixture_sequence(pairs, "conversions", planned_looks=4)
    last = intention_to_treat(added([t for t, _ in pairs]), added([c for _, c in pairs]), "conversions")
    np.testing.assert_allclose(s.value[..., -1], last.value)
    np.testing.assert_allclose(s.std_error[..., -1], last.std_error)
    np.testing.assert_allclose(added([t for t, _ in pairs]).variance, 4 * pairs[0][0].variance)


def test_the_parameter_is_tightest_where_planned() -> None:
    def width(eta: float, time: float) -> float:
        return float(np.sqrt((time + eta) / time * np.log((time + eta) / (eta * 0.05**2))))

    best = mixture_parameter(10, 0.05)
    assert width(best, 10) <= 1.01 * min(width(best * f, 10) for f in (0.25, 0.5, 0.8, 1.25, 2, 4))


def test_looks_needed_inverts_the_limit() -> None:
    k = looks_needed(0.01, 0.008, planned_looks=8)
    eta = mixture_parameter(8, 0.05)
    assert 0.01 / 0.008 * np.sqrt(k) == pytest.approx(np.sqrt((k + eta) / k * np.log((k + eta) / (eta * 0.0025))))
    assert looks_needed(0.02, 0.008, planned_looks=8) < k


def test_refusals() -> None:
    with pytest.raises(ContractError, match="at least one look"):
        mixture_sequence([], "conversions", planned_looks=3)
    pairs = _pairs(2, 0.0, trials=2)
    with pytest.raises(ContractError, match="planned_looks must be 1 or more; got 0"):
        mixture_sequence(pairs, "conversions", planned_looks=0)
    with pytest.raises(ContractError, match="effect and first_se must be above 0"):
        looks_needed(0.0, 1.0, planned_looks=2)
