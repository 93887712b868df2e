"""Charts, tested by the data and the encodings that they hand to the renderer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import pytest
import vl_convert

from app import evidence, figures, scenario
from app.charts import comparison, curve, factors, forest, incremental, theme, timeline
from app.store import Snapshot
from app.wording import Units

Read = Callable[[str], Snapshot]
UNITS = Units("conversions", "EUR", "week")
NAMES = ("retargeting", "search", "social", "tv", "video")


def rows_of(chart: alt.LayerChart) -> list[dict[str, Any]]:
    """All data rows of a chart."""
    return [row for data in chart.to_dict()["datasets"].values() for row in data]


def titles(spec: Any) -> Iterator[str]:
    """Every axis title in a chart's specification."""
    if isinstance(spec, dict):
        if isinstance(spec.get("axis"), dict) and spec["axis"].get("title"):
            yield spec["axis"]["title"]
        for value in spec.values():
            yield from titles(value)
    if isinstance(spec, list):
        for value in spec:
            yield from titles(value)


def every_chart(s: Snapshot) -> dict[str, alt.LayerChart]:
    """One chart of each kind."""
    period = evidence.periods(s)[0]
    assert s.surface is not None
    plan = scenario.compare(s.surface, scenario.from_changes(s.surface, {"social": 0.2}))
    tv = s.curves[s.curves["channel"] == "tv"]
    parts, total = figures.timeline(s)
    return {
        "incremental": incremental.incremental_totals(figures.effect(s, "incremental_kpi"), NAMES, UNITS),
        "curve": curve.response_curve(tv, "tv", NAMES, 15_000.0, UNITS, 18_000.0),
        "forest": forest.forest_plot(evidence.sources(s, "tv", period), "tv", NAMES, UNITS),
        "factors": factors.factor_plot(evidence.factors(s, period), NAMES),
        "timeline": timeline.kpi_timeline(parts, total, NAMES, UNITS),
        "spend": comparison.spend_bars(scenario.spend_rows(plan), NAMES, UNITS),
        "change": comparison.outcome_change(scenario.change_rows(plan), NAMES, UNITS),
    }


def test_every_chart_renders_and_names_its_units(snapshot: Read) -> None:
    for name, chart in every_chart(snapshot("full")).items():
        spec = chart.to_dict()
        assert vl_convert.vegalite_to_svg(spec).startswith("<svg"), name
        said = " ".join(titles(spec))
        unit = "caused ÷ credited" if name == "factors" else "EUR" if name == "spend" else "conversions"
        assert unit in said, name
        assert not any(t in ("x", "p05", "mean", "spend") for t in titles(spec)), name


def test_totals_show_the_interval_that_they_are_given(snapshot: Read) -> None:
    effect = figures.effect(snapshot("full"), "incremental_kpi")
    rows = {r["channel"]: r for r in rows_of(incremental.incremental_totals(effect, NAMES, UNITS)) if "channel" in r}
    for r in effect.itertuples():
        assert (rows[r.channel]["p05"], rows[r.channel]["mean"], rows[r.channel]["p95"]) == (r.p05, r.mean, r.p95)


def test_a_channel_has_one_colour_and_one_shape_on_every_page() -> None:
    colours, some = theme.channel_colours(NAMES), theme.channel_colours(reversed(NAMES))
    assert colours == some
    many = [f"c{i:02d}" for i in range(16)]
    pairs = {(theme.channel_colours(many)[c], theme.channel_shapes(many)[c]) for c in many}
    assert len(pairs) == 16, "colour is never alone: the second round has other shapes"


def test_colours_can_be_seen_on_white_and_on_dark() -> None:
    for colour in (*theme.COLOURS, theme.BASELINE):
        for page in ("#ffffff", "#0e1117", "#14161b", "#171614"):
            assert contrast(colour, page) >= 3.0, (colour, page)


def test_colours_stay_apart_for_the_colour_blind() -> None:
    # Full deuteranopia and protanopia, Machado, Oliveira and Fernandes (2009), table 1, on linear RGB.
    deutan = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    protan = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    for matrix in (np.eye(3), np.array(deutan), np.array(protan)):
        seen = [lab(np.clip(matrix @ linear(c), 0, 1)) for c in theme.COLOURS]
        assert min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2)) > 20


def test_the_curve_is_dashed_beyond_observed_spend_and_has_no_gap() -> None:
    frame = pd.DataFrame({"spend": [0.0, 1, 2, 3], "mean": [0.0, 1, 2, 3], "observed": [True, True, False, False]})
    parts = curve.split_observed(frame)
    assert parts.loc[parts["part"] == "observed", "spend"].tolist() == [0, 1]
    assert parts.loc[parts["part"] == "beyond", "spend"].tolist() == [1, 2, 3]
    assert curve.split_observed(frame[frame["observed"]])["part"].unique().tolist() == ["observed"]


def test_the_curve_marks_now_and_a_plan_that_differs(snapshot: Read) -> None:
    s = snapshot("full")
    tv = s.curves[s.curves["channel"] == "tv"]
    for planned, labels in ((18_000.0, {"now", "plan"}), (15_000.0, {"now"}), (None, {"now"})):
        rows = rows_of(curve.response_curve(tv, "tv", NAMES, 15_000.0, UNITS, planned))
        assert {r["label"] for r in rows if "label" in r} == labels


def test_the_forest_keeps_order_and_sets_credit_apart(snapshot: Read) -> None:
    s = snapshot("full")
    frame = evidence.sources(s, "tv", evidence.periods(s)[0])
    chart = forest.forest_plot(frame, "tv", NAMES, UNITS)
    assert [r["source"] for r in rows_of(chart) if "source" in r] == frame["source"].tolist()
    fill = chart.to_dict()["layer"][2]["encoding"]["fill"]
    assert fill["condition"] == {"test": "(datum.family === 'credit')", "value": "transparent"}
    assert fill["value"] == theme.channel_colours(NAMES)["tv"]


def test_factors_on_a_log_axis_with_a_line_at_one(snapshot: Read) -> None:
    s = snapshot("full")
    rows = evidence.factors(s, evidence.periods(s)[0]).assign(p05=0.0)
    chart = factors.factor_plot(rows, NAMES)
    data = rows_of(chart)
    assert {"x": 1.0} in data
    drawn = [r for r in data if "model" in r]
    assert len(drawn) == 19, "the factor that must not be printed is not drawn"
    assert all(r["p05"] == factors.FLOOR for r in drawn)
    assert chart.to_dict()["layer"][1]["encoding"]["x"]["scale"]["type"] == "log"


def test_alt_texts_say_the_numbers(snapshot: Read) -> None:
    s = snapshot("full")
    period = evidence.periods(s)[0]
    tv = s.curves[s.curves["channel"] == "tv"]
    parts, _ = figures.timeline(s)
    assert s.surface is not None
    plan = scenario.compare(s.surface, scenario.from_changes(s.surface, {"social": 0.2}))
    said = {
        incremental.alt_text(figures.effect(s, "incremental_kpi"), UNITS): "search 21,600 (15,400 to 28,800)",
        curve.alt_text(tv, "tv", 15_000.0, UNITS): "EUR 15,000 per week",
        forest.alt_text(evidence.sources(s, "tv", period), "tv", UNITS): "test tv_heavy_up",
        factors.alt_text(evidence.factors(s, period)): "search under last touch 0.48",
        timeline.alt_text(parts, UNITS): "baseline",
        comparison.alt_text(scenario.change_rows(plan), UNITS): "total",
        comparison.spend_alt_text(scenario.spend_rows(plan), UNITS): "social EUR 9,660 now, EUR 11,600 planned",
    }
    for text, part in said.items():
        assert part in text


def test_a_chart_says_which_column_it_lacks() -> None:
    with pytest.raises(KeyError, match=r"chart data lacks p05, p95"):
        incremental.incremental_totals(pd.DataFrame({"channel": ["a"], "mean": [1.0]}), NAMES, UNITS)


def linear(colour: str) -> np.ndarray:
    """Linear RGB of '#rrggbb'."""
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    """Contrast ratio of WCAG 2."""
    light = sorted(float(np.array([0.2126, 0.7152, 0.0722]) @ linear(c)) for c in (a, b))
    return (light[1] + 0.05) / (light[0] + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of linear RGB."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ rgb
    f = np.cbrt(xyz / np.array([0.9505, 1.0, 1.089]))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])
