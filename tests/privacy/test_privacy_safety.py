"""Integers proved at plan time: no hostile row passes the stated worst case, and an unsafe plan is refused by name."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import ConfigError
from privacy.bounding import linf_units
from privacy.bounds import MAX_CELLS_PER_PERSON, MAX_UNITS, MIN_UNITS
from privacy.safety import INT64, check_integers, intermediates

bounds = st.integers(MIN_UNITS, MAX_UNITS)


@given(bounds, st.integers(1, 20_000), st.sampled_from([0, 1, 4, 1024]), st.data())
def test_no_vector_of_one_person_passes_its_worst_case(bound, per_person, l0, data) -> None:  # type: ignore[no-untyped-def]
    """The steps of the expression in Python integers, on cells as large as any row can make them."""
    most = {i.step: i.most for i in intermediates(bound, 1, per_person, l0)}
    cap = linf_units(bound, l0) if l0 else bound
    count = min(per_person, l0 or MAX_CELLS_PER_PERSON)
    few = data.draw(st.lists(st.integers(0, cap), max_size=12))
    x = (few + [cap] * count)[:count]
    square = sum(v * v for v in x)
    assert max(v * v for v in x) <= most["the square of a cell"]
    assert square <= most["one person's sum of squares"] <= INT64
    norm = math.ceil(math.sqrt(square)) + 1
    assert norm <= most["the norm"]
    assert max(v * bound for v in x) <= most["cell times bound"]
    kept = x if l0 or square <= bound * bound else [v * bound // norm for v in x]
    assert sum(v * v for v in kept) <= most["one person's sum of kept squares"] <= bound * bound


@given(bounds, st.integers(1, 20_000), st.sampled_from([0, 1, 4, 1024]))
def test_every_bound_that_the_policy_allows_is_safe(bound, per_person, l0) -> None:  # type: ignore[no-untyped-def]
    check_integers("conversions", bound, 10**6, per_person, l0)


@pytest.mark.parametrize(
    ("bound", "step", "cells", "message"),
    [
        (2**27, 1, 13, r"vector 'revenue' is not safe in 64-bit integers: the square of a cell could reach 18,014"),
        (2**30, 1, 13, "one person's cell, summed over rows could reach"),
        (2**26, 10**9, 13, "clipped mass in micro-units could reach"),
        (0, 1, 13, "has no cell or no room in it"),
        (2**26, 1, 0, "has no cell or no room in it"),
    ],
)
def test_an_unsafe_vector_is_refused(bound, step, cells, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=message):
        check_integers("revenue", bound, step, cells)
