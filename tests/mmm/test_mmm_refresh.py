"""An earlier posterior becomes a prior once, and a change is told from noise."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import numpy as np
import pytest
from mmm_worlds import make_panel

from contracts.errors import ContractError
from mmm.posterior import Posterior
from mmm.refresh import Earlier, earlier, what_changed, with_earlier
from mmm.spec import ChannelSpec, EffectPrior, ModelSpec


def fitted(theta: np.ndarray) -> Posterior:
    local, shared = np.zeros((1, len(theta), 1, 1)), np.zeros((1, len(theta), 1))
    return Posterior(("c0", "c1"), {"theta": theta[None]}, {}, local, shared, 0, 1.0, 1, "x")


PANEL = make_panel(geos=2, periods=40, channels=2, shares=(0.1, 0.05), revenue=20.0)[0]
THETA = np.exp(np.random.default_rng(0).normal([6.0, 5.0], [0.3, 0.1], (4000, 2)))


def test_the_earlier_fit_becomes_a_wider_prior_of_the_next_panel():
    before = earlier(PANEL, fitted(THETA))
    later = tuple(PANEL.weeks[-1] + timedelta(weeks=i + 1) for i in range(40))
    spec = ModelSpec(channels={"c1": ChannelSpec(prior=EffectPrior("mroi", 0.0, 1.0))})
    refreshed = with_earlier(spec, before, dataclasses.replace(PANEL, weeks=later), drift=0.4)
    prior = refreshed.channels["c0"].prior
    assert prior is not None and prior.kind == "roi"
    assert prior.location == pytest.approx(np.log(20.0 / PANEL.spend[:, :, 0].sum()) + 6.0, abs=0.03)
    assert prior.scale == pytest.approx(0.5, abs=0.02)
    assert refreshed.channels["c1"].prior.kind == "mroi"  # what was declared stays


def test_data_are_not_counted_twice():
    with pytest.raises(ContractError, match="would count the shared periods twice"):
        with_earlier(ModelSpec(), earlier(PANEL, fitted(THETA)), PANEL)


def test_without_revenue_the_prior_is_on_the_share_of_the_kpi():
    found = earlier(dataclasses.replace(PANEL, revenue_per_kpi=None), fitted(THETA))
    assert found.priors["c1"].kind == "contribution"
    assert np.exp(found.priors["c1"].location) == pytest.approx(np.exp(5.0) / PANEL.kpi.sum(), rel=0.02)


def test_what_changed_names_the_reason():
    def fit(location: float, scale: float, kind: str = "roi") -> Earlier:
        return Earlier(PANEL.weeks[0], PANEL.weeks[-1], {"c0": EffectPrior(kind, location, scale)})

    moved = what_changed(fit(0.0, 0.1), fit(1.0, 0.1)).iloc[0]
    assert moved["before"] == pytest.approx(1.0) and moved["after"] == pytest.approx(np.e)
    assert moved["change"] == pytest.approx(1 / np.hypot(0.1, 0.1))
    assert moved["reason"].startswith("moved by more than both")
    assert what_changed(fit(0.0, 0.4), fit(0.1, 0.1)).iloc[0]["reason"].endswith("narrowed it")
    assert np.isnan(what_changed(fit(0.0, 0.4), fit(0.1, 0.1, "contribution")).iloc[0]["change"])
