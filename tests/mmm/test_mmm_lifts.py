"""Lift tests become windowed counterfactuals; their rows are used once."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import numpy as np
import pytest
from mmm_worlds import make_panel

from contracts.errors import ContractError
from contracts.evidence import Experiment, LiftEstimate, LiftLibrary
from mmm.design import build_design
from mmm.lifts import lift_terms, mask_tests
from mmm.spec import ModelSpec


def _experiment(panel, kind="geo", channel="c0", treated=("g0", "g2"), weeks=(30, 35)) -> Experiment:
    end = panel.weeks[weeks[1]] + timedelta(days=6)
    return Experiment("test", kind, channel, panel.weeks[weeks[0]], end, treated if kind == "geo" else (), None)


def _estimate(experiment, spend_delta=1000.0, arm_ratio=np.nan) -> LiftEstimate:
    return LiftEstimate(
        experiment.name, "e", experiment.kind, experiment.channel, "exposed" if experiment.kind == "user" else "",
        "conversions", experiment.start, experiment.end, experiment.treated, 50.0, 20.0, 17.0, 24.0, 50.0, 76.0, 83.0,
        30.0, 0.01, 0.2, spend_delta, 0.0, ("experiment:test",), arm_ratio,
    )  # fmt: skip


def _library(estimate) -> LiftLibrary:
    return LiftLibrary((estimate,), np.array([[estimate.std_error**2]]))


def test_a_geo_test_replaces_only_the_treated_window():
    panel, _ = make_panel(geos=4, periods=50)
    experiment = _experiment(panel)
    would_be = np.full((2, 6), 123.0)
    (term,) = lift_terms(panel, _library(_estimate(experiment)), [experiment], {"test": would_be})
    (part,) = term.parts
    window = np.arange(30, 36)
    price = panel.media[[0, 2], :, 0].sum(1) / panel.spend[[0, 2], :, 0].sum(1)
    assert np.allclose(part.counterfactual[:, window], would_be * price[:, None])
    outside = np.setdiff1d(np.arange(50), window)
    assert np.array_equal(part.counterfactual[:, outside], panel.media[[0, 2]][:, outside, 0])
    assert np.array_equal(part.factual, panel.media[[0, 2], :, 0])
    assert term.coverage == 1.0


def test_a_test_of_two_channels_has_a_part_for_each_and_counts_after_the_spend_is_normal():
    panel, _ = make_panel(geos=4, periods=50)
    experiment = _experiment(panel, channel="c0;c2")
    later = dataclasses.replace(_estimate(experiment), end=experiment.end + timedelta(weeks=3))
    would_be = np.stack([np.zeros((2, 6)), np.full((2, 6), 50.0)])
    (term,) = lift_terms(panel, _library(later), [experiment], {"test": would_be})
    assert [p.channel for p in term.parts] == [0, 2]
    assert term.window.tolist() == list(range(30, 39))  # the readout goes on; the spend change does not
    spent = np.arange(30, 36)
    assert (term.parts[0].counterfactual[:, spent] == 0).all()
    for part in term.parts:
        outside = np.setdiff1d(np.arange(50), spent)
        assert np.array_equal(part.counterfactual[:, outside], panel.media[[0, 2]][:, outside, part.channel])
    design = build_design(panel, ModelSpec(), (term,))
    assert design.lifts.membership.tolist() == [[1.0, 1.0]]
    assert design.lifts.channel.tolist() == [0, 2]
    with pytest.raises(ContractError, match="counterfactual spend of 2 channels"):
        lift_terms(panel, _library(later), [experiment], {"test": np.zeros((2, 6))})


@pytest.mark.parametrize(("treated", "control"), [(0.5, 0.5), (0.85, 0.15), (0.1, 0.1), (0.2, 0.05)])
def test_a_user_test_recovers_the_shares_of_its_arms(treated: float, control: float):
    panel, _ = make_panel(geos=3, periods=50)
    experiment = _experiment(panel, kind="user")
    window = np.arange(30, 36)
    spend = panel.spend[:, window, 0].sum()
    estimate = _estimate(experiment, spend_delta=spend * treated / (1 - control), arm_ratio=treated / control)
    (term,) = lift_terms(panel, _library(estimate), [experiment], {})
    (part,) = term.parts
    assert term.coverage == pytest.approx(treated)
    assert np.allclose(part.factual[:, window], panel.media[:, window, 0] / (1 - control))
    assert (part.counterfactual[:, window] == 0).all()


def test_other_metrics_are_left_out_and_correlations_are_kept():
    panel, _ = make_panel(geos=4, periods=50)
    experiment = _experiment(panel)
    a = _estimate(experiment)
    b = dataclasses.replace(a, metric="revenue")
    c = dataclasses.replace(a, arm="")
    covariance = np.array([[400.0, 0, 100.0], [0, 400.0, 0], [100.0, 0, 400.0]])
    terms = lift_terms(panel, LiftLibrary((a, b, c), covariance), [experiment], {"test": np.zeros((2, 6))})
    assert len(terms) == 2
    assert np.allclose([t.correlation for t in terms], [[1, 0.25], [0.25, 1]])


def test_masking_touches_geo_tests_only():
    panel, _ = make_panel(geos=4, periods=50)
    masked = mask_tests(panel, [_experiment(panel), _experiment(panel, kind="user", weeks=(10, 15))])
    assert np.isnan(masked.kpi[[0, 2]][:, 30:36]).all()
    assert np.isnan(masked.kpi).sum() == 12


def test_refusals():
    panel, _ = make_panel(geos=4, periods=50)
    wrong = _experiment(panel, channel="radio")
    with pytest.raises(ContractError, match="tests channel 'radio', which the panel does not hold"):
        lift_terms(panel, _library(_estimate(wrong)), [wrong], {"test": np.zeros((2, 6))})
    late = Experiment(
        "test", "geo", "c0", panel.weeks[-1] + timedelta(weeks=9), panel.weeks[-1] + timedelta(weeks=12), ("g0",), None
    )
    with pytest.raises(ContractError, match="lies outside the panel"):
        lift_terms(panel, _library(_estimate(late)), [late], {"test": np.zeros((1, 1))})
    user = _experiment(panel, kind="user")
    with pytest.raises(ContractError, match="needs a positive spend_delta"):
        lift_terms(panel, _library(_estimate(user, spend_delta=float("nan"), arm_ratio=1.0)), [user], {})
