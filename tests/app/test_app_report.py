"""The offline report."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import altair as alt
import app_sample_warehouse as sample
import pytest

from app import figures, report, tables
from app.report import build_report
from app.store import Snapshot
from contracts.errors import WorkspaceError


class Reader(HTMLParser):
    """Collects tags with attributes and the text outside styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(html: str) -> tuple[list[tuple[str, dict[str, str | None]]], str]:
    """Tags and flat text of a document."""
    reader = Reader()
    reader.feed(html)
    return reader.tags, re.sub(r"\s+", " ", " ".join(reader.text))


@pytest.fixture(scope="module")
def full(warehouse: Callable[[str], Path]) -> str:
    """Report of the complete workspace."""
    return build_report(warehouse("full"))


def test_nothing_in_it_points_to_a_network(full: str) -> None:
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", full)
    tags, _ = read(full)
    assert not {t for t, _ in tags} & {"script", "link", "iframe", "img", "object", "embed", "base"}
    for tag, attributes in tags:
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)


def test_charts_have_title_description_and_ids_of_their_own(full: str) -> None:
    tags, _ = read(full)
    charts = [a for t, a in tags if t == "svg" and a.get("role") == "img"]
    assert len(charts) == 13, "totals, timeline, factors, five forests, five curves"
    ids = [a["id"] for _, a in tags if a.get("id")]
    assert len(ids) == len(set(ids))
    for a in charts:
        assert all(part in ids for part in (a["aria-labelledby"] or "").split())
    for name in re.findall(r"url\(#([^)]+)\)", full):
        assert name in ids


def test_tables_hold_the_numbers_of_the_screens(full: str, snapshot: Callable[[str], Snapshot]) -> None:
    _, text = read(full)
    s = snapshot("full")
    total = figures.incremental_total(s)
    assert total is not None
    assert figures.units(s).kpi_figure(total.amount.mean) in text
    for cell in tables.overview(s).to_numpy().ravel():
        assert re.sub(r"\s+", " ", cell) in re.sub(r" (?=\))|(?<=\() ", "", text)


def test_it_says_how_to_read_it_and_what_it_rests_on(full: str) -> None:
    _, text = read(full)
    for part in (
        "How to read this", "Assumptions", "Privacy spent per quarter and measure", "Checks", "Runs",
        "Credit is descriptive", "consenting people", "Consent was assumed", "31 % of conversions have no recorded",
        "as of 2026-07-08 06:30 UTC", "model mmm-4f2a91c0",
    ):  # fmt: skip
        assert part in text, part


def test_it_prints_and_knows_the_dark(full: str) -> None:
    assert "@media print" in full
    assert "prefers-color-scheme: dark" in full
    assert '<html lang="en">' in full
    assert 'name="viewport"' in full


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        (
            "aggregate_only",
            "No user-level data was used. This workspace started from an aggregate panel, so no privacy",
        ),
        ("failed_gate", "Not published: the model did not pass its gate"),
        ("no_experiments", "No experiment has been run"),
        ("no_revenue", "marginal cost, EUR per incremental conversions"),
        ("released_only", "nothing can be said about cause. fit has too few weeks."),
        ("empty", "The warehouse is empty"),
    ],
)
def test_every_state_is_told(
    warehouse: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, variant: str, said: str
) -> None:
    # Drawing is slow and tested above; the states are told in words.
    monkeypatch.setattr(report, "inline_svg", lambda chart, name, text: "<svg></svg>")
    _, text = read(build_report(warehouse(variant)))
    assert said in text


def test_the_same_file_gives_the_same_report(warehouse: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "inline_svg", lambda chart, name, text: chart.to_json())
    assert build_report(warehouse("full")) == build_report(warehouse("full"))


def test_names_from_the_users_files_are_not_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "inline_svg", lambda chart, name, text: "<svg></svg>")  # has a test of its own
    data = sample.variant("full")
    data.meta["project"] = "<script>alert(1)</script>"
    data.rows["v_checks"][0]["text"] = '<img src="x">'
    html = build_report(sample.write(tmp_path / "w.duckdb", data))
    assert "<script>" not in html
    assert "<img" not in html
    assert "&lt;script&gt;" in html


def test_an_inline_chart_escapes_its_words() -> None:
    chart = alt.layer(alt.Chart(alt.Data(values=[{"a": 1}])).mark_point().encode(x="a:Q"))
    drawn = report.inline_svg(chart, 'a "b" <c>', "x < y & z")
    root = ElementTree.fromstring(drawn)
    assert root.find("title").text == 'a "b" <c>'  # type: ignore[union-attr]
    assert root.find("desc").text == "x < y & z"  # type: ignore[union-attr]


def test_a_missing_warehouse_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match=r"there is no warehouse at"):
        build_report(tmp_path / "none.duckdb")


def test_two_charts_in_one_page_keep_their_clips_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = '<svg xmlns="x"><clipPath id="clip1"></clipPath><g clip-path="url(#clip1)"></g></svg>'
    monkeypatch.setattr(report.vl_convert, "vegalite_to_svg", lambda spec: drawn)
    chart = alt.layer(alt.Chart(alt.Data(values=[{"a": 1}])).mark_point().encode(x="a:Q"))
    for name in ("A", "B"):
        svg = report.inline_svg(chart, name, "words")
        assert f'id="{name}-clip1"' in svg
        assert f"url(#{name}-clip1)" in svg
