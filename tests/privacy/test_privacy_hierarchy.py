"""Generalised least squares over levels: parts add up, nothing is biased, no cell gets worse than its measurement."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import ContractError
from privacy.hierarchy import design, reconcile


@st.composite
def levels(draw):  # type: ignore[no-untyped-def]
    """(H of geos, disjoint regions and the nation, variances (m,), generator)."""
    geos = draw(st.integers(1, 8))
    cut = draw(st.integers(1, geos))
    names = [f"g{i}" for i in range(geos)]
    areas = {g: (g,) for g in names}
    areas |= {f"r{i}": tuple(names[i:geos:cut]) for i in range(cut)} | {"nation": tuple(names)}
    h = design(names, areas)
    variance = np.array(draw(st.lists(st.floats(1e-3, 1e6), min_size=len(h), max_size=len(h))))
    return h, variance, np.random.default_rng(draw(st.integers(0, 2**32)))


@settings(deadline=None, max_examples=40)
@given(levels())
def test_parts_add_up_to_wholes(world) -> None:  # type: ignore[no-untyped-def]
    h, variance, rng = world
    geos = h.shape[1]
    out = reconcile(rng.normal(0, 1e3, len(h)), variance, h)
    assert out.values[:geos] == pytest.approx(out.leaves)
    assert out.values[-1] == pytest.approx(out.leaves.sum(), abs=1e-6)
    assert out.values[geos:-1].sum() == pytest.approx(out.values[-1], abs=1e-6), "regions cover the nation"


@settings(deadline=None, max_examples=40)
@given(levels())
def test_the_estimate_is_unbiased_and_linear(world) -> None:  # type: ignore[no-untyped-def]
    """G H = I: noise-free measurements come back exactly, so the mean of the estimate is the truth."""
    h, variance, rng = world
    truth = rng.normal(0, 1e3, h.shape[1])
    assert reconcile(h @ truth, variance, h).leaves == pytest.approx(truth, rel=1e-6, abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(levels())
def test_no_cell_has_more_variance_than_its_own_measurement(world) -> None:  # type: ignore[no-untyped-def]
    h, variance, rng = world
    out = reconcile(rng.normal(0, 1e3, len(h)), variance, h)
    assert (out.variances <= variance * (1 + 1e-9)).all()
    assert out.variances == pytest.approx(np.diag(h @ out.covariance @ h.T), rel=1e-4)


def test_the_stated_covariance_is_that_of_repeated_draws() -> None:
    """4,000 draws; each entry within 6 standard errors (a false alarm of 9e-8 or less for 15 entries)."""
    h = design(["a", "b", "c"], {"a": ("a",), "b": ("b",), "c": ("c",), "r": ("a", "b"), "nation": ("a", "b", "c")})
    variance = np.array([4.0, 9.0, 1.0, 2.0, 3.0])
    rng = np.random.default_rng(5)
    truth, n = np.array([5.0, -2.0, 8.0]), 4_000
    drawn = np.array([reconcile(h @ truth + rng.normal(0, variance**0.5), variance, h).leaves for _ in range(n)])
    v = reconcile(h @ truth, variance, h).covariance
    error = np.sqrt((np.outer(np.diag(v), np.diag(v)) + v**2) / n)
    assert (np.abs(np.cov(drawn, rowvar=False) - v) < 6 * error).all()
    assert (np.abs(drawn.mean(axis=0) - truth) < 6 * np.sqrt(np.diag(v) / n)).all()


def test_two_measurements_of_one_total_are_weighted_by_precision() -> None:
    out = reconcile(np.array([10.0, 20.0]), np.array([1.0, 4.0]), np.ones((2, 1)))
    assert out.leaves == pytest.approx([12.0]) and out.covariance == pytest.approx(np.array([[0.8]]))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: design(["a"], {"r": ("b",)}), "area 'r' names the geo 'b', which is not declared"),
        (lambda: design(["a"], {"r": ("a", "a")}), "area 'r' must name each of its geos once; got a, a"),
        (lambda: design(["a"], {"r": ()}), "area 'r' must name each of its geos once; got none"),
        (lambda: reconcile(np.ones(1), np.ones(1), np.ones((1, 2))), "1 measurements do not determine 2 leaves"),
        (lambda: reconcile(np.ones(2), np.ones(1), np.ones((2, 1))), "shapes do not fit"),
        (lambda: reconcile(np.ones(1), np.zeros(1), np.ones((1, 1))), "a finite variance above 0"),
    ],
)
def test_misfits_are_refused(call, sentence) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ContractError, match=sentence):
        call()
