"""The metric that the chains learn."""

from __future__ import annotations

import numpy as np

from mmm.fit import Start
from mmm.sampler import SHRINK, Metric, fisher_covariance


def test_the_metric_of_a_normal_is_exact_with_few_draws():
    """160 draws in 40 directions: a covariance of the draws alone would be off by tens of per cent."""
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(40, 40))
    covariance = basis @ basis.T / 40 + 0.1 * np.eye(40)
    draws = rng.multivariate_normal(np.zeros(40), covariance, 160)
    gradients = draws @ np.linalg.inv(covariance)
    found = fisher_covariance(draws, gradients)
    whitened = np.linalg.eigvals(np.linalg.solve(covariance, found)).real
    plain = np.linalg.eigvals(np.linalg.solve(covariance, np.cov(draws, rowvar=False))).real
    assert whitened.max() / whitened.min() < 3
    assert plain.max() / plain.min() > 5


def test_the_metric_solves_its_equation():
    rng = np.random.default_rng(1)
    draws, gradients = rng.normal(size=(200, 5)) * np.arange(1, 6), rng.normal(size=(200, 5))
    shrunk = [(200 * np.cov(x, rowvar=False) + SHRINK * np.eye(5)) / (200 + SHRINK) for x in (draws, gradients)]
    m = fisher_covariance(draws, gradients)
    assert np.allclose(m @ shrunk[1] @ m, shrunk[0])


def test_a_start_survives_its_arrays_and_knows_its_sites():
    start = Start(("a", "b"), (2, 1), Metric(np.zeros(3), np.eye(3)))
    again = Start.from_arrays(start.to_arrays())
    assert again.fits({"b": np.zeros(1), "a": np.zeros(2)})
    assert not again.fits({"b": np.zeros(2), "a": np.zeros(2)})
    assert not again.fits({"b": np.zeros(1), "c": np.zeros(2)})
    assert np.array_equal(again.metric.root, np.eye(3))
