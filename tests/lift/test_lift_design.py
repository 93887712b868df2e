"""Design: every feasible set, honest power, seals, files, random assignment; cells and staggered starts."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lift_worlds import recast_a1, weekly

from contracts.errors import ContractError
from lift.cells import cell_covariance, fit_cells, fit_staggered, multiplicity, simultaneous
from lift.design import (
    DesignPanel,
    DesignSpec,
    candidate_sets,
    factors_of,
    market_selection,
    mde_against_noise,
    power_of,
)
from lift.design_engine import learn_movement, score, shrink
from lift.design_record import open_sealed, platform_rows, seal_design
from lift.gls import GlsControl
from lift.protocol import GeoTest
from lift.randomise import matched_pairs, randomise_pairs, randomise_strata

NAMES = tuple(f"g{i:02d}" for i in range(12))
SPEC = DesignSpec(candidates=NAMES[:5], sizes=(1, 2), durations=(4,), look_backs=5)


def history(seed: int = 0, noise: float = 0.0, weeks: int = 40) -> DesignPanel:
    kpi, _ = weekly(np.random.default_rng(seed), pre=weeks, post=0, noise=(noise, noise))
    return DesignPanel(NAMES, kpi, np.full(kpi.shape, noise**2), 7.0, np.full(12, 100.0))


def test_every_feasible_set_is_scored() -> None:
    design = market_selection(history(), replace(SPEC, rows=1000))
    assert design.sets == 15
    expected = {";".join(c) for k in (1, 2) for c in itertools.combinations(NAMES[:5], k)}
    assert set(design.table["geos"]) == expected
    assert list(design.table["mde"]) == sorted(design.table["mde"])
    assert list(design.table["rank"]) == list(range(1, 16))


def test_forced_excluded_and_neighbours_are_kept() -> None:
    spec = replace(
        SPEC, candidates=(), sizes=(2, 2), forced=("g03",), excluded=("g05",), neighbours={"g03": ("g07", "g08")}
    )
    table = market_selection(history(), replace(spec, rows=1000)).table
    assert all("g03" in geos.split(";") for geos in table["geos"])
    assert not any("g05" in geos.split(";") for geos in [*table["geos"], *table["control_geos"]])
    assert not any({"g03", "g07", "g08"} & set(geos.split(";")) for geos in table["control_geos"])


def test_power_is_the_share_of_tests_that_find_the_effect() -> None:
    """400,000 readouts, half of them of a wild history, whose standard error is not the planned one."""
    rng = np.random.default_rng(3)
    pool = np.sort(rng.standard_t(6, 20_000))
    pool = np.sort(np.concatenate([pool, -pool]))
    z = np.where(rng.random(400_000) < 0.5, rng.choice(pool, 400_000), rng.standard_normal(400_000))
    shift = np.array([0.0, 1.5, 2.9, 4.0])
    for factors in (np.ones(1), np.array([0.9, 1.0, 1.6]), np.exp(0.3 * rng.standard_normal(50))):
        measured = [(np.abs(z + s / rng.choice(factors, 400_000)) > 2.0).mean() for s in shift]
        assert power_of(shift, pool, 2.0, factors) == pytest.approx(measured, abs=0.004)


def test_factors_scatter_as_the_look_backs_do_and_as_sigma_is_uncertain() -> None:
    look_backs = np.exp(0.2 * np.random.default_rng(0).standard_normal((300, 10)))
    alone, both = factors_of(look_backs, 0.0), factors_of(look_backs, 0.15)
    assert np.log(alone).std() == pytest.approx(0.2, rel=0.1)
    assert np.log(both).std() == pytest.approx(0.25, rel=0.1), "the two are independent"
    assert np.median(both) == pytest.approx(1.0, abs=0.02)
    assert factors_of(np.ones((3, 2)), 0.0) == pytest.approx(1.0)


def slow_and_quick(seed: int) -> DesignPanel:
    """20 geos of one size and one sd; g00 and g01 drift (AR .95), the others do not."""
    rng = np.random.default_rng(seed)
    phi = np.where(np.arange(20) < 2, 0.95, 0.0)
    move = np.empty((20, 90))
    move[:, 0] = rng.standard_normal(20)
    for t in range(1, 90):
        move[:, t] = phi * move[:, t - 1] + np.sqrt(1 - phi**2) * rng.standard_normal(20)
    kpi = 1000 * np.exp(0.05 * move)
    return DesignPanel(tuple(f"g{i:02d}" for i in range(20)), kpi, np.zeros_like(kpi), 1.0)


def test_what_is_read_out_has_the_readout_s_own_error() -> None:
    """A geo that drifts is scored as if it moved like the others; read out, it is not."""
    spec = DesignSpec(sizes=(1, 1), candidates=tuple(f"g{i:02d}" for i in range(8)), durations=(10,), look_backs=5)
    drift, rest = [], []
    for seed in range(4):
        scored, read = (
            market_selection(slow_and_quick(seed), replace(spec, read=n)).table.set_index("geos")["std_error_kpi"]
            for n in (0, 60)
        )
        ratio = read / scored
        drift += ratio[["g00", "g01"]].tolist()
        rest += ratio.drop(["g00", "g01"]).tolist()
    assert np.median(drift) > 1.3
    assert np.median(rest) == pytest.approx(1.0, abs=0.15)


def test_only_what_is_read_is_listed() -> None:
    table = market_selection(history(), replace(SPEC, read=4, rows=1000)).table
    assert len(table) == 4 and list(table["mde"]) == sorted(table["mde"])
    assert len(market_selection(history(), replace(SPEC, read=0, rows=1000)).table) == 15
    with pytest.raises(ContractError, match="read must be 0 or more sets; got -1"):
        replace(SPEC, read=-1)


def test_power_grows_with_the_effect_and_falls_to_the_level() -> None:
    table = market_selection(history(), replace(SPEC, effects=(1e-9, 0.02, 0.05, 0.1, 0.5))).table
    powers = table[["power_1e-09", "power_0.02", "power_0.05", "power_0.1", "power_0.5"]].to_numpy()
    assert (np.diff(powers, axis=1) >= -1e-12).all()
    assert (powers[:, 0] < 0.15).all() and (powers[:, -1] > 0.99).all()


def test_the_engine_reads_a_look_back_as_the_readout_does() -> None:
    """Sets of one and two geos on five panels: the engine's estimate and error are the readout's, within a few %."""
    ratios, gaps = [], []
    for seed in range(5):
        kpi = recast_a1(np.random.default_rng([seed, 3]))
        panel = DesignPanel(tuple(f"m{i:02d}" for i in range(21)), kpi, np.zeros_like(kpi), 1.0)
        sets = candidate_sets(panel, DesignSpec(candidates=panel.geos[:4], sizes=(1, 2)))
        everyone = np.arange(21)
        movement = learn_movement(kpi, np.zeros_like(kpi), 90, 1.0, everyone)
        s = score(kpi, np.zeros_like(kpi), np.zeros(21), sets, 90, 15, 1.0, everyone, movement)
        for row in range(0, 10, 3):
            treated = np.flatnonzero(sets.masks[row] > 0)
            test = GeoTest(
                "e", kpi, np.zeros_like(kpi), treated, np.setdiff1d(np.arange(21), treated), np.arange(90),
                np.arange(90, 105), 1.0,
            )  # fmt: skip
            r = GlsControl()(test)
            se = np.sqrt(np.exp(2 * s.log_sigma[row]) * s.unit_variance[row] + s.slope_variance[row]) * s.level[row]
            ratios.append(r.std_error / se)
            gaps.append((r.mean - s.placebo[row] * s.level[row]) / r.std_error)
    assert 0.93 < np.median(ratios) < 1.12
    assert np.sqrt(np.mean(np.square(gaps))) < 0.3


def test_shrinking_corrects_the_luckiest_of_many() -> None:
    """True log sizes differ by sd 0.1, estimates err by 0.1: of 1,000 sets the quietest looks 2.3 sd too quiet."""
    rng = np.random.default_rng(4)
    truth = 0.1 * rng.standard_normal((50, 1000))
    seen = truth + 0.1 * rng.standard_normal(truth.shape)
    raw, shrunk = [], []
    for t, s in zip(truth, seen, strict=True):
        mean, _ = shrink(s, 0.1, np.ones(1000, int))
        best = int(s.argmin())
        raw.append(s[best] - t[best])
        shrunk.append(mean[best] - t[best])
    assert np.mean(raw) < -0.15
    assert abs(np.mean(shrunk)) < 0.05


def test_released_noise_raises_the_mde() -> None:
    table = mde_against_noise(history(1, noise=40.0), SPEC, (0.25, 1.0, 4.0))
    assert list(table["mde"]) == sorted(table["mde"])
    assert table["noise_share"].is_monotonic_increasing
    with pytest.raises(ContractError, match="does not depend on epsilon"):
        mde_against_noise(history(), SPEC, (1.0,))


def test_budget_and_kinds_of_test() -> None:
    add = market_selection(history(), replace(SPEC, cost_per_kpi=2.0, rows=100)).table
    assert add["spend_change"].to_numpy() == pytest.approx(2.0 * add["mde_kpi"].to_numpy())
    dark = market_selection(history(), replace(SPEC, kind="go_dark", rows=100)).table
    assert set(dark["spend_change"]) == {-400.0, -800.0}
    heavy = market_selection(history(), replace(SPEC, kind="heavy_up", heavy_up=3.0, budget=900.0, rows=100)).table
    assert set(heavy["spend_change"]) == {800.0}
    assert (heavy["iroas_half_width"] > 0).all()
    with pytest.raises(ContractError, match="no design costs 1 or less"):
        market_selection(history(), replace(SPEC, kind="heavy_up", budget=1.0))


def test_refusals_say_what_to_do() -> None:
    for change, match in [
        ({"candidates": ("atlantis",)}, "candidates names 'atlantis'"),
        ({"forced": ("g01",), "excluded": ("g01",)}, "both forced and excluded"),
        ({"durations": (30,)}, "planning a test of 30 needs 90 or more"),
        ({"look_backs": 99}, "room for 29 look-backs"),
        ({"candidates": (), "sizes": (12, 12)}, "fewer than two control geos"),
        ({"forced": ("g00", "g01", "g02"), "candidates": ("g00",), "sizes": (5, 6)}, "no set of geos"),
    ]:
        with pytest.raises(ContractError, match=match):
            market_selection(history(), replace(SPEC, **change))  # type: ignore[arg-type]
    with pytest.raises(ContractError, match="kind must be one of"):
        DesignSpec(kind="guess")
    holes = history().kpi.copy()
    holes[3, 3] = np.nan
    with pytest.raises(ContractError, match="geo 'g03' has periods without a KPI"):
        DesignPanel(NAMES, holes, np.zeros_like(holes), 7.0)
    with pytest.raises(ContractError, match="go_dark test changes present spend"):
        market_selection(replace(history(), spend=None), replace(SPEC, kind="go_dark"))


def test_a_sealed_record_breaks_when_touched() -> None:
    design = market_selection(history(), SPEC)
    sealed = seal_design(
        design, 1, experiment="spring", channel="tv", start=date(2026, 3, 2), period_days=7, estimator="gls_control"
    )
    again = seal_design(
        market_selection(history(), SPEC), 1, experiment="spring", channel="tv", start=date(2026, 3, 2), period_days=7,
        estimator="gls_control",
    )  # fmt: skip
    assert sealed.seal == again.seal
    assert open_sealed(sealed.text, sealed.seal).record["end"] == "2026-03-29"
    with pytest.raises(ContractError, match="changed after it was sealed"):
        open_sealed(sealed.text.replace("spring", "autumn"), sealed.seal)
    with pytest.raises(ContractError, match="there is no rank 99"):
        seal_design(design, 99, experiment="x", channel="", start=date(2026, 3, 2), period_days=7, estimator="e")
    rows = platform_rows(sealed)
    assert {r["group"] for r in rows} == {"treatment", "control"}
    assert len(rows) == len({r["geo"] for r in rows}) == 12


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 15), st.integers(0, 1000))
def test_pairs_use_each_geo_once_and_assignments_repeat(geos: int, seed: int) -> None:
    kpi = np.random.default_rng(seed).lognormal(5, 1, (geos, 1)) * np.random.default_rng(seed).uniform(
        0.9, 1.1, (geos, 9)
    )
    pairs = matched_pairs(kpi)
    flat = [g for p in pairs for g in p]
    assert len(pairs) == geos // 2 and len(set(flat)) == len(flat)
    one, two = randomise_pairs(kpi, seed), randomise_pairs(kpi, seed)
    assert np.array_equal(one.treated, two.treated)
    assert not set(one.treated) & set(one.control)
    strata = randomise_strata(kpi, seed, strata=2)
    for k in (0, 1):
        members = set(np.flatnonzero(strata.blocks == k))
        assert members & set(strata.treated) and members & set(strata.control)


def test_pairs_are_of_least_total_distance() -> None:
    kpi = np.random.default_rng(3).lognormal(5, 1, (6, 1)) * np.ones((6, 8))
    size = np.log(kpi[:, 0])

    def cost(pairs: list[tuple[int, int]]) -> float:
        return sum((size[a] - size[b]) ** 2 for a, b in pairs)

    order = np.argsort(size)
    assert cost(matched_pairs(kpi)) == pytest.approx(cost([(order[i], order[i + 1]) for i in (0, 2, 4)]))


def _cell_world(seed: int) -> GeoTest:
    kpi = recast_a1(np.random.default_rng([seed, 6]))[:9]
    return GeoTest("c", kpi, np.zeros_like(kpi), np.array([0]), np.arange(4, 9), np.arange(90), np.arange(90, 105), 1.0)


def test_cells_that_share_controls_are_correlated() -> None:
    base = _cell_world(0)
    cells = {"a": np.array([0, 1]), "b": np.array([2, 3])}
    r = fit_cells(GlsControl(), base, cells)
    correlation = r.covariance[0, 1] / np.sqrt(r.covariance[0, 0] * r.covariance[1, 1])
    assert 0.1 < correlation < 0.8
    total, difference = r.contrast((1, 1)), r.contrast((1, -1))
    apart = np.sqrt(np.trace(r.covariance))
    assert difference[1] < apart < total[1]
    intervals = simultaneous(r)
    for k, cell in enumerate(r.results):
        assert intervals[k, 0] < cell.lower and intervals[k, 1] > cell.upper
    assert (multiplicity(r) >= [c.p_value for c in r.results]).all()
    everyone = fit_cells(GlsControl(), replace(base, donors=np.arange(1, 9)), cells)
    assert not everyone.results[0].cell_weights[2:4].any()  # no cell is another's control
    with pytest.raises(ContractError, match="in two cells"):
        fit_cells(GlsControl(), base, {"a": np.array([0, 1]), "b": np.array([1, 2])})


def test_released_noise_of_a_shared_control_is_shared_exactly() -> None:
    base = _cell_world(1)
    noisy = replace(base, noise=np.full(base.kpi.shape, 400.0**2))
    r = fit_cells(GlsControl(), noisy, {"a": np.array([0]), "b": np.array([1])})
    a, b = r.results
    still = [replace(x, own_variance=np.zeros(9)) for x in (a, b)]
    exact = float((a.cell_weights * b.cell_weights * noisy.noise).sum())
    assert cell_covariance(still[0], still[1], noisy.noise) == pytest.approx(exact)


def test_staggered_starts_are_cohorts() -> None:
    base = replace(_cell_world(2), treated=np.array([0, 1, 2]))
    kpi = base.kpi.copy()
    for geo, start in ((0, 90), (1, 90), (2, 98)):
        kpi[geo, start:] += 3000.0
    before, after = (
        fit_staggered(GlsControl(), t, {0: 90, 1: 90, 2: 98}) for t in (base, replace(base, kpi=kpi))
    )  # fmt: skip
    assert before.names == ("90", "98")
    added = after.contrast((1, 1))[0] - before.contrast((1, 1))[0]
    assert added == pytest.approx(3000.0 * (15 + 15 + 7), rel=1e-9)
    with pytest.raises(ContractError, match="has no start period"):
        fit_staggered(GlsControl(), base, {0: 90})


@pytest.mark.slow
def test_market_selection_on_the_public_panel(shared_data: Path) -> None:
    wide = pd.read_csv(shared_data / "lift" / "geolift_pretest.csv").pivot(index="location", columns="date", values="Y")
    kpi = wide.to_numpy(float)
    panel = DesignPanel(tuple(wide.index), kpi, np.zeros_like(kpi), 1.0)
    largest = tuple(wide.index[np.argsort(-kpi.mean(axis=1))][:20])
    design = market_selection(panel, DesignSpec(candidates=largest))
    assert design.sets == 21_679
    assert 0.02 < design.table["mde"].iloc[0] < 0.08
