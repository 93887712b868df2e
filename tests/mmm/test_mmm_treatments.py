"""A treatment's contribution is counted from the value that means none of it."""

from __future__ import annotations

import dataclasses

import numpy as np
from mmm_worlds import make_panel

from mmm.design import build_design
from mmm.posterior import Posterior
from mmm.spec import ModelSpec
from mmm.treatments import treatment_effects


def test_the_contribution_is_the_coefficient_times_the_distance_from_the_baseline():
    panel, _ = make_panel(geos=3, periods=30, channels=1, controls=2, shares=(0.1,))
    controls = panel.controls.copy()
    controls[:, :, 0] = 4.0  # constant: dropped, so that positions shift
    panel = dataclasses.replace(panel, controls=controls, treatments={"z0": 0.0, "z1": -2.0}, scale_back=(1.1, 0.0))
    design = build_design(panel, ModelSpec())
    shared = np.zeros((1, 5, design.common.shape[1] + 30 + 1))
    shared[..., -1] = np.linspace(0.01, 0.05, 5)
    q = design.local.shape[1]
    local = np.zeros((1, 5, 3, q + 1 + 1))
    posterior = Posterior(("c0",), {}, {}, local, shared, 0, 0.9, 1, "x")
    table = treatment_effects(panel, ModelSpec(), posterior)
    assert set(table.treatment) == {"z1"}
    column = panel.controls[:, :, 1]
    exact = 1.1 * 0.03 * (design.level[:, None] * (column + 2.0) / column.std()).sum(axis=1)
    assert np.allclose(table["mean"], [exact.sum(), *exact])
    assert table.geo.tolist() == [None, "g0", "g1", "g2"]
    local[:, :, 1, q] = 0.02  # g1 answers more than the others
    more = treatment_effects(panel, ModelSpec(), posterior)["mean"].to_numpy()
    assert np.allclose(more, [exact.sum() + exact[1] * 2 / 3, exact[0], exact[1] * 5 / 3, exact[2]])
