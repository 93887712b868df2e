"""Markov credit against brute force: remove a channel, solve the chain again, see how many conversions are lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from attribution.markov import conserve, markov_shares, removal_effects, transition_rows


def _brute_force(transitions: np.ndarray) -> np.ndarray:
    """Removal effect by power iteration over the whole chain, with what enters the removed channel sent to null."""
    k = transitions.shape[0] - 1
    size = k + 3  # start, channels, conversion, null

    def wins(removed: int | None) -> float:
        chain = np.zeros((size, size))
        chain[: k + 1, 1:] = transitions
        if removed is not None:
            chain[:, -1] += chain[:, removed + 1]
            chain[:, removed + 1] = 0.0
        chain[-2, -2] = chain[-1, -1] = 1.0
        for _ in range(60):
            chain = chain @ chain  # 2^60 steps
        return float(chain[0, -2])

    whole = wins(None) - transitions[0, k]  # conversions from start directly pass through no channel
    return np.array([(wins(None) - wins(i)) / whole for i in range(k)])


def _chain(rng: np.random.Generator, k: int) -> np.ndarray:
    rows = rng.dirichlet(np.full(k + 2, 0.6), size=k + 1)
    rows[0, -1] = 0.0
    return rows / rows.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("seed", "k"), [(0, 1), (1, 2), (2, 5), (3, 8), (4, 12)])
def test_removal_effects_match_brute_force(seed: int, k: int) -> None:
    chain = _chain(np.random.default_rng(seed), k)
    np.testing.assert_allclose(removal_effects(chain), _brute_force(chain), atol=1e-9)


def test_a_batch_of_draws_is_each_draw_alone() -> None:
    chains = np.stack([_chain(np.random.default_rng(s), 4) for s in range(7)])
    np.testing.assert_allclose(removal_effects(chains), [removal_effects(c) for c in chains], rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 0.95))
def test_self_loops_change_nothing(seed: int, loop: float) -> None:
    chain = _chain(np.random.default_rng(seed), 4)
    longer = chain.copy()
    longer[2] *= 1 - loop
    longer[2, 1] += loop  # row 2 is channel 1
    np.testing.assert_allclose(removal_effects(longer), removal_effects(chain), rtol=1e-8)


@settings(max_examples=50, deadline=None)
@given(arrays(float, (4, 5), elements=st.floats(-50, 500)))
def test_conserved_flow_enters_as_it_leaves_and_is_nearest(flow: np.ndarray) -> None:
    fixed = conserve(flow)
    np.testing.assert_allclose(fixed[:, :3].sum(axis=0), fixed[1:].sum(axis=1), atol=1e-8)
    np.testing.assert_allclose(conserve(fixed), fixed, atol=1e-8)
    # The correction is orthogonal to every conserved flow, so it is the shortest one.
    np.testing.assert_allclose(((flow - fixed) * fixed).sum(), 0, atol=1e-5 * (1 + np.abs(flow).max() ** 2))


def test_rows_sum_to_one_and_a_channel_without_signal_borrows() -> None:
    flow = np.array([[500.0, 3.0, 20.0, 0.0], [100.0, 2.0, 150.0, 248.0], [-2.0, 1.0, 1.0, 3.0]])
    rows = transition_rows(flow, np.array([100.0, 100.0, 100.0]))
    np.testing.assert_allclose(rows.sum(axis=1), 1.0)
    pooled = flow[1:].sum(axis=0) / flow[1:].sum()
    assert np.abs(rows[2] - pooled).max() < np.abs(flow[2] / flow[2].sum() - pooled).max()
    np.testing.assert_allclose(rows[1], flow[1] / 500.0, atol=1e-3)


def test_a_channel_that_nobody_saw_gets_nothing() -> None:
    flow = np.array([[60.0, 0.0, 5.0, 0.0], [20.0, 0.0, 30.0, 30.0], [0.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(markov_shares(flow, np.zeros((3, 4))), [1.0, 0.0])


def test_public_demo_paths_match_brute_force(shared_data: Path) -> None:
    """10,000 aggregated paths over 12 channels: closed form against removal, path by path counting."""
    file = shared_data / "journeys" / "channel_attribution_paths.csv.gz"
    if not file.exists():
        pytest.skip("journeys/channel_attribution_paths.csv.gz is not in the public data folder")
    paths = pd.read_csv(file)
    split = [p.split(" > ") for p in paths["path"]]
    channels = sorted({c for p in split for c in p})
    assert len(channels) == 12
    k = len(channels)
    index = {c: i for i, c in enumerate(channels)}
    flow = np.zeros((k + 1, k + 2))
    for path, won, lost in zip(split, paths["total_conversions"], paths["total_null"], strict=True):
        at = [index[c] for c in path]
        flow[0, at[0]] += won + lost
        for a, b in zip(at[:-1], at[1:], strict=True):
            flow[a + 1, b] += won + lost
        flow[at[-1] + 1, k] += won
        flow[at[-1] + 1, k + 1] += lost
    brute = _brute_force(flow / flow.sum(axis=1, keepdims=True))
    found = markov_shares(flow, np.zeros_like(flow))
    np.testing.assert_allclose(found, brute / brute.sum(), atol=1e-9)
    assert flow[:, k].sum() == paths["total_conversions"].sum()
