"""The approximate look beside what it claims about itself."""

from __future__ import annotations

import numpy as np
from mmm_worlds import make_panel

from mmm.preview import RELIABLE, preview
from mmm.spec import ModelSpec


def test_a_preview_is_near_the_truth_and_says_how_approximate_it_is():
    """The world is not of the model's curve family; 0.5 on the log scale is over 3 posterior sd at this size."""
    panel, truth = make_panel(geos=1, periods=60, channels=2, seed=5, shares=(0.12, 0.08), noise_sd=3.0)
    found = preview(panel, ModelSpec(yearly_terms=1), seed=1, draws=400)
    assert found.totals.shape == (400, 2)
    assert np.abs(np.log(np.median(found.totals, axis=0) / truth.sum(axis=(0, 1)))).max() < 0.5
    assert found.quality.startswith("approximate")
    assert found.weighted == (found.pareto_k <= RELIABLE)
    again = preview(panel, ModelSpec(yearly_terms=1), seed=1, draws=400)
    assert np.array_equal(again.totals, found.totals)
