"""Markov credit of order k against brute force: every state that holds a channel is taken out of the whole chain."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journey_worlds import Journey, simulate

from attribution.markov import conserve, markov_shares, removal_effects, transition_rows
from attribution.paths import chain_of, path_credit, read_paths, without_runs
from attribution.paths import removal_effects as path_effects
from attribution.states import state_names, states_of

CHANNELS = ("a", "b", "c")


def flow_of(journeys: list[Journey], channels: tuple[str, ...], order: int) -> np.ndarray:
    """Counts (1 + S, K + 2), journey by journey."""
    at, k = state_names(channels, order), len(channels)
    out = np.zeros((len(at), k + 2))
    for j in journeys:
        state = "start"
        for i, c in enumerate(j.path):
            out[at[state], channels.index(c)] += 1
            state = ">".join(j.path[max(0, i + 1 - order) : i + 1])
        if j.path or j.value is not None:
            out[at[state], k if j.value is not None else k + 1] += 1
    return out


def brute_force(flow: np.ndarray, channels: tuple[str, ...], order: int) -> np.ndarray:
    """Conversions lost when entering any state that *contains* the channel leads to null, by steps to the end."""
    names, k = list(state_names(channels, order)), len(channels)
    total = flow.sum(axis=1, keepdims=True)
    rows = np.divide(flow, total, out=np.zeros_like(flow), where=total > 0)
    onward = states_of(k, order).onward

    def wins(removed: str) -> float:
        mass, won = np.zeros(len(names)), 0.0
        mass[0] = 1.0
        for _ in range(400):
            won += float((mass[1:] * rows[1:, k]).sum())
            fresh = np.zeros_like(mass)
            for s in np.flatnonzero(mass):
                for c in range(k):
                    fresh[onward[s, c]] += mass[s] * rows[s, c]
            for s, name in enumerate(names):
                if removed in name.split(">"):
                    fresh[s] = 0.0
            mass = fresh
        return won

    whole = wins("")
    return np.array([1 - wins(c) / whole for c in channels])


@pytest.mark.parametrize(("order", "seed"), [(1, 0), (2, 1), (2, 2), (3, 3)])
def test_order_k_matches_brute_force(order: int, seed: int) -> None:
    journeys = simulate(np.random.default_rng(seed), CHANNELS, 1500, longest=7)
    flow = flow_of(journeys, CHANNELS, order)
    states = states_of(3, order)
    rows = transition_rows(conserve(flow, states), np.zeros(len(flow)), states)
    expected = brute_force(flow, CHANNELS, order)
    np.testing.assert_allclose(removal_effects(rows, states), expected, atol=1e-10)
    shares = markov_shares(flow, np.zeros_like(flow), states)
    np.testing.assert_allclose(shares, expected / expected.sum(), atol=1e-10)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_engine_of_paths_agrees_with_the_released_counts(order: int) -> None:
    journeys = [j for j in simulate(np.random.default_rng(7), CHANNELS, 2000, longest=6) if j.path]
    won = np.array([float(j.value is not None) for j in journeys])
    paths = read_paths([" > ".join(j.path) for j in journeys], won, 1 - won)
    flow = flow_of(journeys, CHANNELS, order)
    expected = markov_shares(flow, np.zeros_like(flow), states_of(3, order))
    np.testing.assert_allclose(path_credit(paths, "markov", order=order), expected * won.sum(), rtol=1e-9)


def test_at_full_order_a_removal_effect_is_the_share_of_conversions_touched() -> None:
    """With a memory of whole journeys the chain is the data: no path is invented, none is lost."""
    journeys = [j for j in simulate(np.random.default_rng(3), CHANNELS, 1500, longest=4) if j.path]
    won = [j for j in journeys if j.value is not None]
    touched = np.array([sum(c in j.path for j in won) for c in CHANNELS]) / len(won)
    ends = np.array([float(j.value is not None) for j in journeys])
    paths = read_paths([">".join(j.path) for j in journeys], ends, 1 - ends)
    np.testing.assert_allclose(path_effects(chain_of(paths, 4), 3), touched, atol=1e-11)


def test_an_enumerated_chain() -> None:
    """All journeys of a chain without cycles, by hand: start to a (0.6) or b; a to b (0.5), converts (0.2), or ends."""
    flow = np.array([[60.0, 40, 0, 0], [0, 30, 12, 18], [0, 0, 35, 35]])
    # conversions: a 12, a>b 15, b 20; without a: 20 of 47 are left, without b: 12
    np.testing.assert_allclose(removal_effects(transition_rows(flow, np.zeros(3))), [27 / 47, 35 / 47])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3))
def test_conservation_and_rows_hold_at_any_order(seed: int, order: int) -> None:
    rng, states = np.random.default_rng(seed), states_of(3, order)
    flow = rng.normal(50, 40, (states.count + 1, 5))
    fixed = conserve(flow, states)
    into = np.bincount(states.onward.ravel(), weights=fixed[:, :3].ravel(), minlength=states.count + 1)[1:]
    np.testing.assert_allclose(into, fixed[1:].sum(axis=1), atol=1e-7)
    np.testing.assert_allclose(conserve(fixed, states), fixed, atol=1e-7)
    rows = transition_rows(fixed, rng.uniform(1, 500, states.count + 1), states)
    np.testing.assert_allclose(rows.sum(axis=1), 1.0, atol=1e-8)


def test_states_without_signal_borrow_from_shorter_ones() -> None:
    """Order 2 counts of order 1 data under heavy noise: nearer to the truth than the raw rows."""
    rng, states = np.random.default_rng(5), states_of(3, 2)
    journeys = simulate(rng, CHANNELS, 4000, longest=6)
    flow = flow_of(journeys, CHANNELS, 2)
    truth = transition_rows(flow, np.zeros(len(flow)), states)
    noisy = conserve(flow + 40 * rng.standard_normal(flow.shape), states)
    small = 1 + np.argsort(flow[4:].sum(axis=1))[:3] + 3
    backed = transition_rows(noisy, np.full(len(flow), 5 * 40.0**2), states)
    raw = transition_rows(noisy, np.zeros(len(flow)), states)
    assert np.abs(backed - truth)[small].mean() < 0.5 * np.abs(raw - truth)[small].mean()


def test_self_loops_matter_from_order_two_on() -> None:
    """Leaving repeats out before counting changes nothing at order 1 and what a state remembers above."""
    paths = read_paths(["a>a>b", "b > b", "a"], np.array([1.0, 2.0, 0.0]), np.array([0.0, 1.0, 3.0]))
    short = without_runs(paths)
    assert [list(short.touch[i:j]) for i, j in pairwise(short.start)] == [[0, 1], [1], [0]]
    journeys = [j for j in simulate(np.random.default_rng(13), CHANNELS, 3000, longest=6) if j.path]
    won = np.array([float(j.value is not None) for j in journeys])
    whole = read_paths([">".join(j.path) for j in journeys], won, 1 - won)
    for order, gap in ((1, 0.0), (2, 1e-4)):
        apart = np.abs(path_effects(chain_of(whole, order), 3) - path_effects(chain_of(without_runs(whole), order), 3))
        assert (apart.max() < 1e-11) if gap == 0 else (apart.max() > gap), order
