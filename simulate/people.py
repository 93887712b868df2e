"""The people: where they live, how much they want to buy, what they see and what moves them.

People are sorted by group = 2 · geo + arm, so that everything that differs between groups only is drawn once a group.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulate.params import ONLINE, TRAITS

CONTROL, EXPOSED = 0, 1  # arms of the user-randomised holdout


@dataclass(frozen=True, slots=True)
class People:
    """One entry a person; `bounds[k] : bounds[k + 1]` are the people of group k."""

    geo: np.ndarray  # (people,) int
    arm: np.ndarray  # (people,) CONTROL or EXPOSED
    consent: np.ndarray  # (people,) bool
    intent: np.ndarray  # (people,) mean 1
    susceptibility: np.ndarray  # (channel, people) mean 1
    exposure: np.ndarray  # (online channel, people) mean 1: how much of the channel's delivery the person gets
    reach: np.ndarray  # (people,) uniform: addressable people are those below the addressable share
    bounds: np.ndarray  # (2 · geos + 1,)
    user_number: np.ndarray  # (people,) a permutation, so that an id tells nothing

    @property
    def size(self) -> int:
        """Number of people."""
        return len(self.geo)

    @property
    def per_geo(self) -> np.ndarray:
        """People in each geo, shape (geo,)."""
        return np.diff(self.bounds[::2])

    @property
    def per_group(self) -> np.ndarray:
        """People in each geo and arm, shape (geo, 2)."""
        return np.diff(self.bounds).reshape(-1, 2)


def geo_sizes(rng: np.random.Generator, people: int, geos: int, ratio: float) -> np.ndarray:
    """People per geo, in random order; the largest is `ratio` times the smallest. Sums to `people`."""
    inner = np.sort(rng.uniform(0, 1, geos - 2))
    steps = np.concatenate(([0.0], inner, [1.0]))
    weights = rng.permutation(ratio**steps)
    edges = np.round(np.cumsum(weights) / weights.sum() * people).astype(np.int64)
    return np.diff(edges, prepend=0)


def _unit_mean(values: np.ndarray) -> np.ndarray:
    return values / values.mean(axis=-1, keepdims=True)


def make_people(rng: np.random.Generator, scalars: dict[str, float], *, people: int, geos: int) -> People:
    """Draws the people. Arms are one complete randomisation of everybody, half and half."""
    geo = np.repeat(np.arange(geos), geo_sizes(rng, people, geos, scalars["geo_size_ratio"]))
    arm = rng.permutation(np.arange(people) % 2)
    order = np.argsort(2 * geo + arm, kind="stable")
    geo, arm = geo[order], arm[order]
    shape = scalars["intent_shape"]
    intent = _unit_mean(rng.gamma(shape, 1 / shape, people) + 1e-3)
    susceptibility = np.stack([intent**t.susceptibility_exponent * rng.gamma(2, 0.5, people) for t in TRAITS])
    exposure = np.stack([intent**t.intent_exponent * rng.gamma(2, 0.5, people) for t in TRAITS[: len(ONLINE)]])
    # A latent score with a slight pull of intent; ranking the intent keeps its long tail from dominating.
    rank = np.argsort(np.argsort(intent)) / people - 0.5
    pull = scalars["consent_intent_correlation"]
    score = pull * rank * np.sqrt(12) + np.sqrt(1 - pull**2) * rng.standard_normal(people)
    return People(
        geo=geo,
        arm=arm,
        consent=score > np.quantile(score, 1 - scalars["consent"]),
        intent=intent,
        susceptibility=_unit_mean(susceptibility),
        exposure=_unit_mean(exposure),
        reach=rng.random(people),
        bounds=np.searchsorted(2 * geo + arm, np.arange(2 * geos + 1)),
        user_number=rng.permutation(people),
    )


def draw_from_groups(
    rng: np.random.Generator, people: People, weight: np.ndarray, rate: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Poisson events of people whose intensity is weight[person] · rate[group of person, week].

    `weight` has shape (people,), `rate` (geo, 2, week). The sum over a group is one Poisson draw and each event
    falls on a person in proportion to the weight, which is the same law as one Poisson draw a person and week
    (superposition). Returns person and week of each event.
    """
    cumulative = np.concatenate(([0.0], np.cumsum(weight)))
    low, high = cumulative[people.bounds[:-1]], cumulative[people.bounds[1:]]
    flat = rate.reshape(-1, rate.shape[-1])
    counts = rng.poisson((high - low)[:, None] * flat)
    cell = np.repeat(np.arange(counts.size), counts.ravel())
    group, week = cell // flat.shape[1], cell % flat.shape[1]
    point = low[group] + rng.random(len(cell)) * (high - low)[group]
    person = np.searchsorted(cumulative, point, side="right") - 1
    # Rounding may put a point on the edge of its group.
    return np.clip(person, people.bounds[group], people.bounds[group + 1] - 1), week
