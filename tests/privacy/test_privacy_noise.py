"""T5, T6, T7 and T9: what a release says about one person, from the events file to the noisy integers.

D holds one person whose vector fills the bound; D' is D without them. Both are written, loaded and bounded by the
engine; the mechanism draws n times from each. Projected on the direction in which the person moves the table, the draws
are N(t, sigma²) and N(t - C, sigma²), so a test that sees one table gains at most mu = C / sigma (Gaussian DP).

| test | alarm when | false alarm |
|---|---|---|
| T5 | measured shift / measured sd is 5 standard errors over the claim | 3e-7 |
| T5 | sd of the projections, of single cells, or correlation between cells, draws or vectors is 5 (6) se off | 6e-7 |
| T6 | Clopper-Pearson bounds (1e-6) on the power of the best test prove more than the claimed mu | 2e-6 |
| T7 | a key is missing where nobody is. No threshold is used, so there is no delta of one | 0 |

T9: each alarm goes off on mutants of the code (sigma x 0.95, no bound, C x 1.41, randomness used twice).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import stats

from privacy import kpi, mechanism
from privacy.bounding import bounded, total
from privacy.bounds import Bound
from privacy.plan import plan_releases
from privacy.policy import PrivacyPolicy
from privacy.room import read_release

DRAWS = 10_000
ALPHA = 1e-6
RHO = 8.0  # large, so that mu = sqrt(2 rho) = 4 is measured to about half a percent
VECTORS = ("conversions", "revenue")


@dataclass(frozen=True)
class Neighbours:
    """Draws (n, cells) of each vector from D and from D', the direction (cells,) and the claim."""

    with_person: dict[str, np.ndarray]
    without: dict[str, np.ndarray]
    direction: dict[str, np.ndarray]
    sigma: dict[str, float]
    mu: dict[str, float]

    def projected(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Draws on the line of the person's vector, in units of the claimed sigma."""
        d = self.direction[name] / self.sigma[name]
        middle = self.without[name][0]
        return (self.with_person[name] - middle) @ d, (self.without[name] - middle) @ d


@pytest.fixture
def pair(world, make_event, no_trial, make_question):  # type: ignore[no-untyped-def]
    """Noise-free totals of D and D', and the plan: two weeks, one geo, a person far beyond every bound."""
    whole = make_question(**no_trial)
    block = replace(whole.blocks[0], weeks=whole.blocks[0].weeks[:2])
    vectors = {"conversions": Bound(2.0, 0.5), "revenue": Bound(50.0, 0.5)}
    policy = PrivacyPolicy(rho_per_user_quarter=2 * RHO, shares={"kpi": 1.0}, kpi=vectors)
    here = world(question=replace(whole, blocks=(block,), geos=("north",)), policy=policy)
    rng = np.random.default_rng(0)

    def rows(person, count):  # type: ignore[no-untyped-def]
        return [
            make_event(person, i, f"2024-01-{rng.integers(1, 15):02}T{i % 24:02}:00:00Z", "conversion", value="9.5",
                       currency="USD")
            for i in range(count)
        ]  # fmt: skip

    others = [row for k in range(30) for row in rows(f"p{k}", 1 + k % 3)]
    giant = rows("giant", 200)

    def exact() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        kpi.statement.cache_clear()
        tables = [here.exact(here.inputs(here.write(r))) for r in (others + giant, others)]
        kpi.statement.cache_clear()
        return tuple({name: t[f"kpi {block.id}", name] for name in VECTORS} for t in tables)  # type: ignore[return-value]

    (plan,) = plan_releases(here.question, policy)
    return exact, plan


def neighbours(pair, draws: int = DRAWS) -> Neighbours:  # type: ignore[no-untyped-def]
    exact, plan = pair
    yes, no = exact()
    drawn: list[dict[str, np.ndarray]] = []
    for table in (yes, no):  # as a release draws: one call a vector, vectors in turn
        rows: dict[str, list[np.ndarray]] = {v.name: [] for v in plan.vectors}
        for _ in range(draws):
            for v in plan.vectors:
                rows[v.name].append(mechanism.add_noise(table[v.name], v.sigma_units))
        drawn.append({name: np.array(r) for name, r in rows.items()})
    moved = {name: (yes[name] - no[name]).astype(float) for name in VECTORS}
    return Neighbours(
        *drawn,
        {name: m / np.linalg.norm(m) for name, m in moved.items()},
        {v.name: v.sigma_units for v in plan.vectors},
        {v.name: v.bound_units / v.sigma_units for v in plan.vectors},
    )


def shift_alarm(n: Neighbours) -> bool:
    """T5: the shift over the measured sd against the claimed mu, 5 standard errors."""
    for name, mu in n.mu.items():
        a, b = n.projected(name)
        sd = math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
        found = (a.mean() - b.mean()) / sd
        error = math.sqrt(2 / len(a) + found**2 / (4 * len(a)))
        if found > mu + 5 * error:
            return True
    return False


def spread_alarm(n: Neighbours) -> bool:
    """T5: the noise has the claimed sd on the line and in every cell, 5 standard errors of a variance."""
    for name in n.mu:
        tables = (n.with_person[name], n.without[name])
        cells = np.concatenate([(t - t.mean(axis=0)) / n.sigma[name] for t in tables])
        line = cells @ n.direction[name]
        limit = 5 * math.sqrt(2 / len(cells))
        if abs(line.var() - 1) > limit or (np.abs(cells.var(axis=0) - 1) > limit).any():
            return True
    return False


def reuse_alarm(n: Neighbours) -> bool:
    """T5: no two cells, draws, tables or vectors share noise; correlations within 6 / sqrt(n)."""
    parts = []
    for name in n.mu:
        for table in (n.with_person[name], n.without[name]):
            noise = (table - table.mean(axis=0)) / n.sigma[name]
            parts += [noise, np.roll(noise, 1, axis=0)]
    with np.errstate(invalid="ignore"):
        correlation = np.corrcoef(np.concatenate(parts, axis=1), rowvar=False)
    off = correlation[~np.eye(len(correlation), dtype=bool)]
    return bool(np.isnan(off).any() or np.abs(off).max() > 6 / math.sqrt(len(parts[0])))


def power_alarm(n: Neighbours) -> bool:
    """T6: lower confidence bound of mu from the best threshold test, on draws that did not choose the threshold."""
    for name, mu in n.mu.items():
        a, b = n.projected(name)
        half = len(a) // 2
        cut = (a[:half].mean() + b[:half].mean()) / 2
        hits, alarms, m = int((a[half:] > cut).sum()), int((b[half:] > cut).sum()), len(a) - half
        low = stats.beta.ppf(ALPHA, hits, m - hits + 1) if hits else 0.0
        high = stats.beta.ppf(1 - ALPHA, alarms + 1, m - alarms) if alarms < m else 1.0
        if stats.norm.ppf(low) - stats.norm.ppf(high) > mu:
            return True
    return False


ALARMS = {"shift": shift_alarm, "spread": spread_alarm, "reuse": reuse_alarm, "power": power_alarm}


def raised(n: Neighbours) -> set[str]:
    """Names of the alarms that go off."""
    return {name for name, alarm in ALARMS.items() if alarm(n)}


def test_one_person_shows_no_more_than_is_claimed(pair) -> None:  # type: ignore[no-untyped-def]
    n = neighbours(pair)
    assert raised(n) == set()
    for name, mu in n.mu.items():  # and the pair does push against the claim, so that the tests can see something
        a, b = n.projected(name)
        assert a.mean() - b.mean() > 0.97 * mu
        assert mu == pytest.approx(math.sqrt(2 * RHO), rel=1e-6)


@pytest.fixture
def mutate(monkeypatch) -> Iterator[dict[str, object]]:  # type: ignore[no-untyped-def]
    """Mutants of the code, by name."""
    honest, fixed = mechanism.add_noise, {}

    def unbounded(rows, bound, cells, l0=0):  # type: ignore[no-untyped-def]
        return rows.group_by(["person", "cell"]).agg(x=total(rows.x))

    def same_every_call(exact, sigma):  # type: ignore[no-untyped-def]
        key = (len(exact), sigma)
        fixed.setdefault(key, honest(np.zeros(len(exact), dtype=np.int64), sigma))
        return exact + fixed[key]

    def same_for_vectors(exact, sigma):  # type: ignore[no-untyped-def]
        """Noise is drawn once a release and scaled to each vector."""
        if fixed.get("used", 2) == 2:
            fixed["unit"], fixed["used"] = honest(np.zeros(len(exact), dtype=np.int64), 1e6) / 1e6, 0
        fixed["used"] += 1
        return exact + np.rint(fixed["unit"] * sigma).astype(np.int64)

    def same_in_cells(exact, sigma):  # type: ignore[no-untyped-def]
        return exact + honest(np.zeros(1, dtype=np.int64), sigma)[0]

    yield {
        "sigma x 0.95": lambda: monkeypatch.setattr(mechanism, "add_noise", lambda x, s: honest(x, 0.95 * s)),
        "no bound": lambda: monkeypatch.setattr(kpi, "bounded", unbounded),
        "C x 1.41": lambda: monkeypatch.setattr(kpi, "bounded", lambda r, b, c, l0=0: bounded(r, round(1.41 * b), c)),
        "one draw for all": lambda: monkeypatch.setattr(mechanism, "add_noise", same_every_call),
        "one draw for two vectors": lambda: monkeypatch.setattr(mechanism, "add_noise", same_for_vectors),
        "one draw for all cells": lambda: monkeypatch.setattr(mechanism, "add_noise", same_in_cells),
    }


MUST = {  # the alarms that a mutant must raise, and the draws that make them certain
    "sigma x 0.95": ({"shift", "spread"}, DRAWS),
    "no bound": ({"shift", "power"}, 3000),
    "C x 1.41": ({"shift", "power"}, 3000),
    "one draw for all": ({"spread", "reuse"}, 1000),
    "one draw for two vectors": ({"reuse"}, 1000),
    "one draw for all cells": ({"spread", "reuse"}, 1000),
}


@pytest.mark.parametrize("mutant", MUST)
def test_each_alarm_goes_off_on_its_mutant(pair, mutate, mutant) -> None:  # type: ignore[no-untyped-def]
    mutate[mutant]()
    alarms, draws = MUST[mutant]
    assert alarms <= raised(neighbours(pair, draws))


def test_no_key_depends_on_who_is_there(world, make_event, no_trial, make_question) -> None:  # type: ignore[no-untyped-def]
    """T7: keys are public and no threshold is applied: one person or none, the same rows, all with noise."""
    policy = PrivacyPolicy(shares={"kpi": 0.2, "journeys": 0.2, "media": 0.2, "credit": 0.2, "diagnostics": 0.2})
    tables = []
    for consent in ("true", "false"):
        here = world(policy=policy, question=make_question(**no_trial))
        here.root = here.root / consent
        rows = [make_event("ann", i, f"2024-01-0{i}", "conversion", consent=consent) for i in range(1, 9)]
        paths = here.publish(here.inputs(here.write(rows)))
        tables.append([read_release(p).table for p in paths])
    for some, none in zip(*tables, strict=True):
        keys = [c for c in some.columns if c not in ("units", "value")]
        assert some[keys].equals(none[keys])
        assert len(none) < 5 or (none["units"] != 0).mean() > 0.5
