"""The one-page readout: self-contained, escaped, says what is absent, shows the numbers that it was given."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from datetime import date, timedelta

import pytest

from app.lift_page import lift_page, verdict
from contracts.evidence import LiftEstimate
from contracts.readout import ArmLine, CheckLine, LiftReadout, PathPoint, PlanLine

NAN = math.nan
DAY = date(2025, 1, 6)


def _estimate(kind: str = "geo", mean: float = 1200.0) -> LiftEstimate:
    return LiftEstimate(
        experiment="spring", estimator="gls_control", kind=kind, channel="tv", arm="" if kind == "geo" else "ads",  # type: ignore[arg-type]
        metric="conversions", start=DAY, end=DAY + timedelta(days=27), treated=("north",), mean=mean, std_error=300.0,
        dof=40.0, p05=mean - 505, p10=mean - 391, p50=mean, p90=mean + 391, p95=mean + 505, p_value=0.0003,
        noise_variance_share=0.35, spend_delta=9000.0, spend_delta_se=0.0, evidence_ids=("experiment:spring",),
    )  # fmt: skip


def _geo(**change: object) -> LiftReadout:
    before = tuple(PathPoint(DAY - timedelta(days=7 * i), 900.0 + i, 905.0, NAN, NAN) for i in range(20, 0, -1))
    during = tuple(PathPoint(DAY + timedelta(days=7 * i), 1200.0, 900.0, 300.0, 80.0) for i in range(4))
    base = LiftReadout(
        name="spring", kind="geo", channel="tv", currency="EUR", estimates=(_estimate(),), inference="t",
        relative=0.33, iroas=(0.133, 0.077, 0.19),
        plan=(PlanLine("smallest detectable effect", 0.08, 0.33, "of level"),),
        history=before, path=during, placebos=tuple(float(i) for i in range(-30, 30)), statistic=1200.0, arms=(),
        checks=(CheckLine("released noise", "pass", "35% of the variance is noise"),), changes=("A bias would do.",),
    )  # fmt: skip
    return replace(base, **change)  # type: ignore[arg-type]


def test_the_page_stands_alone_and_shows_its_numbers() -> None:
    html = lift_page(_geo(library=("3 tests pooled.",)))
    assert not re.search(r'(src|href)="(?!#)', html) and "http" not in html and "<script" not in html
    assert html.count("<svg") == 4
    for text in ("1,200 conversions", "695 conversions to 1,700 conversions", "+33 %", "EUR 9,000", "35 %",
                 "smallest detectable effect", "A bias would do.", "3 tests pooled.", "experiment:spring"):  # fmt: skip
        assert text in html, text
    assert html == lift_page(_geo(library=("3 tests pooled.",)))
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))


def test_what_is_absent_is_said() -> None:
    bare = lift_page(_geo(plan=(), placebos=(), iroas=(NAN, NAN, NAN), relative=NAN))
    assert "No sealed design was given" in bare and "too short for placebo windows" in bare and bare.count("<svg") == 3
    arms = tuple(ArmLine(a, 5012.0, 14.0, (("conversions", 0.09),)) for a in ("ads", "control"))
    user = _geo(kind="user", estimates=(_estimate("user"),), history=(), path=(), placebos=(), arms=arms)
    html = lift_page(user)
    assert "only totals over the whole window were released" in html and "conversions per person" in html
    assert html.count("<svg") == 1


def test_names_are_escaped() -> None:
    html = lift_page(_geo(name="<script>alert(1)</script>", channel='a"b', changes=("<b>x</b>",)))
    assert "<script>" not in html and "&lt;script&gt;" in html and "&lt;b&gt;x" in html


@pytest.mark.parametrize(
    ("mean", "text"), [(1200.0, "shows more"), (-1200.0, "shows fewer"), (100.0, "does not show whether")]
)
def test_the_verdict_follows_the_interval(mean: float, text: str) -> None:
    assert text in verdict(_geo(estimates=(_estimate(mean=mean),)))
    failed = _geo(estimates=(_estimate(mean=mean),), checks=(CheckLine("sample ratio", "fail", "x"),))
    assert "not to decide on" in verdict(failed) and 'class="health fail"' in lift_page(failed)
