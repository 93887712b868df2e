"""What a test says, what it could have found, and how long another would have to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from app import experiments, figures
from app.experiments import Trial
from app.store import Snapshot

Read = Callable[[str], Snapshot]
ONE = Trial("dark", "", "tv", "geo", "conversions", "gls control", 28, 12.0, 10.0, -4.4, 28.4, 0.23, 0.1, -500.0)


def test_the_smallest_effect_has_power_of_four_fifths_at_the_length_of_the_test() -> None:
    curve = experiments.power(ONE, ONE.smallest)
    assert curve.loc[curve["length"] == 1, "power"].item() == pytest.approx(0.8, abs=1e-3)
    assert curve["power"].is_monotonic_increasing and curve["days"].tolist()[2] == 28
    assert experiments.days_needed(ONE, ONE.smallest) in (28, 29)
    assert experiments.days_needed(ONE, ONE.smallest / 2) == pytest.approx(4 * 28, abs=1)


def test_no_effect_is_found_as_often_as_the_test_errs() -> None:
    assert experiments.power(ONE, 0.0)["power"].tolist() == pytest.approx([0.05] * 7)
    assert experiments.days_needed(ONE, 0.0) is None


def test_the_sentence_tells_signal_from_noise(snapshot: Read) -> None:
    units = figures.units(snapshot("full"))
    assert "does not tell the effect from none" in experiments.sentence(ONE, units)
    sure = replace(ONE, p05=2.0, noise_share=0.6)
    assert "leaves out 0" in experiments.sentence(sure, units)
    assert "a larger privacy budget would narrow it" in experiments.sentence(sure, units)


def test_tests_are_listed_once_and_newest_first(snapshot: Read) -> None:
    s = snapshot("full")
    found = experiments.tests(s)
    assert len({t.label for t in found}) == len(found) == s.lift.groupby(["experiment", "arm"]).ngroups
    assert experiments.tests(snapshot("no_experiments")) == ()
    assert experiments.queue(s).empty == s.next_tests.empty
