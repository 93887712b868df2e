"""Flags at the posterior mode, without sampling: each fires once and stays silent once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from contracts.evidence import LiftLibrary
from reconcile.conflicts import AMBER, RED, Conflict, find, severity, widened
from reconcile.influence import linear_at
from reconcile.inputs import PoolInputs
from reconcile.prepare import prepare
from reconcile.priors import PoolPriors
from reconcile.sampler import centre

Make = Callable[..., Any]
PRIORS = PoolPriors()


def first_test(inputs: PoolInputs, factor: float) -> PoolInputs:
    """The same with the first test's effect multiplied."""
    test = inputs.lifts.estimates[0]
    tests = (replace(test, mean=factor * test.mean), *inputs.lifts.estimates[1:])
    return replace(inputs, lifts=LiftLibrary(tests, inputs.lifts.covariance))


def at_mode(inputs: PoolInputs) -> dict[tuple[str, str], Conflict]:
    """Conflicts by channel and source, found at the mode."""
    data = prepare(inputs, PRIORS)
    with jax.enable_x64(True):
        at, _ = centre(data.arrays, PRIORS)
    found = find(inputs, data, linear_at(at, data.arrays, PRIORS), PRIORS, 1)
    return {(f.channel, f.source): f for f in found}


@pytest.fixture(scope="module")
def sure(make_world: Make) -> PoolInputs:
    """A world whose model and tests are both precise."""
    return make_world(7, mmm_sd=0.1, lift_se=0.05).inputs


@pytest.mark.parametrize(
    ("z", "colour"), [(0.0, ""), (2.0, ""), (-2.1, "amber"), (3.0, "amber"), (3.1, "red"), (-9.0, "red")]
)
def test_the_colour_of_a_score(z: float, colour: str) -> None:
    assert severity(z) == colour


def test_a_test_is_silent_amber_and_red_as_it_moves_away(sure: PoolInputs) -> None:
    found = {f: at_mode(first_test(sure, f))["c0", "lift"] for f in (1.0, 1.4, 1.7, 3.0)}
    scores = [f.z for f in found.values()]
    assert scores == sorted(scores), "the further the test, the higher its score"
    assert abs(scores[0]) < AMBER and scores[-1] > RED
    assert [f.severity for f in found.values()][0] == "" and found[3.0].severity == "red"
    assert "amber" in {f.severity for f in found.values()}
    assert found[1.0].text == "" and "test test0 shows more than the model expects (z = " in found[3.0].text
    less = at_mode(first_test(sure, 0.2))["c0", "lift"]
    assert less.z < -AMBER and "shows less than" in less.text


@pytest.mark.parametrize(("errors", "colour"), [(-1.0, ""), (2.0, "amber"), (4.0, "red")])
def test_a_sign_is_doubted_by_how_far_the_effect_lies_on_the_wrong_side(
    sure: PoolInputs, errors: float, colour: str
) -> None:
    """The first test went dark: an effect above 0 says that more spend brings less."""
    test = sure.lifts.estimates[0]
    tests = (replace(test, mean=errors * test.std_error), sure.lifts.estimates[1])
    found = at_mode(replace(sure, lifts=LiftLibrary(tests, sure.lifts.covariance)))
    sign = found["c0", "sign"]
    assert sign.severity == colour and found["c1", "sign"].severity == ""
    assert (sign.text != "") == bool(colour) and ("more spend brings less" in sign.text) == bool(colour)
    assert (sign.p_sign > 0.5) == bool(colour)


def conflict(source: str, colour: str, gap: float = 2.0) -> Conflict:
    return Conflict("c0", source, "test0", 4.0, colour, np.nan, gap, "text")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "found",
    [
        (),
        (conflict("lift", "amber"),),
        (conflict("mmm", "red"),),
        (conflict("credit", "red"),),
        (conflict("sign", "red"),),
    ],
)
def test_only_a_red_test_widens(sure: PoolInputs, found: tuple[Conflict, ...]) -> None:
    assert widened(sure, prepare(sure, PRIORS).arrays, found) is None


def test_a_red_test_widens_its_channel_and_itself_only(sure: PoolInputs) -> None:
    arrays = prepare(sure, PRIORS).arrays
    for gap, half in ((0.8, 0.4), (-0.8, 0.4), (5.0, 0.5)):  # half the distance, up to half of one log unit
        wider = widened(sure, arrays, (conflict("lift", "red", gap),))
        assert wider is not None
        assert wider.mmm_bias_sd[0] == pytest.approx(np.hypot(arrays.mmm_bias_sd[0], half))
        assert wider.lift_extra[0] == pytest.approx(np.hypot(arrays.lift_extra[0], half))
        assert (wider.mmm_bias_sd[1:] == arrays.mmm_bias_sd[1:]).all() and wider.lift_extra[1] == arrays.lift_extra[1]
    assert widened(replace(sure, lifts_pooled=False), arrays, (conflict("lift", "red"),)) is None
