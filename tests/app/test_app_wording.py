"""How figures are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import wording
from app.wording import Units

UNITS = Units("conversions", "EUR", "week")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12_345, "12,300"),
        (999.6, "1,000"),
        (999_999, "1 M"),
        (1_234_567, "1.23 M"),
        (4.5e9, "4.5 bn"),
        (0.04561, "0.0456"),
        (-7.1, "−7.1"),
        (0, "0"),
        (None, "–"),
        (float("nan"), "–"),
        (float("inf"), "–"),
    ],
)
def test_figure_has_three_digits_and_a_short_unit(value: float | None, text: str) -> None:
    assert wording.figure(value) == text


@given(st.floats(1e-6, 1e11), st.booleans())
def test_figure_never_shows_more_than_three_significant_digits(size: float, negative: bool) -> None:
    text = wording.figure(-size if negative else size)
    number, *suffix = text.lstrip("−").replace(",", "").split()
    scale = {(): 1.0, ("M",): 1e6, ("bn",): 1e9}[tuple(suffix)]
    assert float(number) * scale == pytest.approx(size, rel=0.006)
    assert len(number.replace(".", "").strip("0")) <= 3
    assert text.startswith("−") == negative


def test_money_carries_its_currency_and_the_sign_stands_first() -> None:
    assert UNITS.money(-1234.0) == "−EUR 1,230"
    assert Units("revenue", "USD", "week").kpi_figure(2_000.0) == "USD 2,000"
    assert UNITS.kpi_figure(2_000.0) == "2,000 conversions"


def test_shares_and_intervals() -> None:
    assert wording.percent(0.3149) == "31 %"
    assert wording.percent(0.2, signed=True) == "+20 %"
    assert wording.percent(-0.2, signed=True) == "−20 %"
    assert wording.with_interval(2.0, 1.04, 3.0, wording.ratio) == "2 (1 to 3)"
    assert wording.with_interval(None, 1.0, 3.0) == "–"
    assert wording.between(None, 3.0) == "–"


def test_lists_read_as_sentences() -> None:
    assert [wording.listed(x) for x in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
