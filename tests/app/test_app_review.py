"""The budget review: figures against the warehouse and the draws, its states, its page and its workbook."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html import escape
from pathlib import Path

import app_sample_warehouse as sample
import numpy as np
import openpyxl
import pandas as pd
import pytest
from pptx import Presentation
from streamlit.testing.v1 import AppTest
from typer.testing import CliRunner

from app import experiments, figures, review_tables, scenario
from app.handout import handout, unprintable
from app.review import Band, Money, Review, digest, review
from app.review_text import Section, page, sections
from app.slides import slides
from app.store import ENV, Snapshot
from app.workbook import workbook
from contracts.errors import WorkspaceError
from planning.scenarios import evaluate_plan, plan_of_cells
from planning.summary import weighted_interval
from planning.surface import Assumptions, build_surface, held, value_draws
from workflow.cli import app as cli
from workflow.pack import write_pack

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def full(snapshot: Callable[[str], Snapshot]) -> Snapshot:
    return snapshot("full")


def test_figures_are_those_of_the_scenarios(full: Snapshot) -> None:
    found = review(full)
    assert found.plan == "B" and found.chosen is not None and found.chosen.name == "best"
    assert [o.name for o in found.options] == ["current", "best"], "the current split comes first"
    rows = full.scenarios[full.scenarios["scenario"] == "best"].set_index("channel")
    now = full.scenarios[full.scenarios["scenario"] == "current"].set_index("channel")
    assert {x.channel for x in found.lines} == set(rows.index)
    for x in found.lines:
        assert (x.caused.p10, x.caused.p50, x.caused.p90) == tuple(rows.loc[x.channel, ["p10", "p50", "p90"]])
        assert x.caused_now.p50 == now.loc[x.channel, "p50"]
        assert x.plan == pytest.approx(rows.loc[x.channel, "spend"])
        assert x.change == pytest.approx(rows.loc[x.channel, "spend_change"])
    assert found.chosen.spend == pytest.approx(rows["spend"].sum())
    roi = figures.effect(full, "roi").set_index("channel")
    assert all(x.roi and x.roi.p90 == roi.loc[x.channel, "p90"] for x in found.lines)


def test_gains_are_paired_on_the_draws(full: Snapshot) -> None:
    surface, found = full.surface, review(full)
    assert surface is not None
    rows = full.scenarios[full.scenarios["scenario"] == "best"].set_index("channel")["spend"]
    spend = rows.reindex(surface.response.channels).to_numpy() / surface.periods
    told = scenario.compare(surface, spend)
    current, best = found.options
    assert (current.gain.p10, current.gain.p90, current.chance) == (0.0, 0.0, 0.0)
    assert best.chance == pytest.approx(min(max(told.probability, 0.01), 0.99))
    gain = (scenario.outcome(surface, spend) - scenario.outcome(surface, scenario.current(surface))).sum(axis=1)
    assert best.gain.p50 == pytest.approx(np.median(gain) * surface.periods, rel=0.02)
    assert best.gain.p90 - best.gain.p10 < best.caused.p90 - best.caused.p10, "what both share cancels"


def saved_plan(full: Snapshot, spend: np.ndarray, **change: object) -> Snapshot:
    """The same file with a saved scenario that spends (T, G, C) so."""
    assert full.surface is not None
    done = evaluate_plan(full.surface, spend, "flights")
    own = {"scenario_id": "s1", "version": 1, "author": "ada", "of_record": True, "outdated": False} | change
    days = ["period_start", "period_end"]
    rows, cells = (f.assign(**own) for f in (done.channels, done.cells))
    rows[days], cells[days] = rows[days].astype("datetime64[us]"), cells[days].astype("datetime64[us]")
    frames = {"scenarios": (full.scenarios, rows), "scenario_cells": (full.scenario_cells, cells)}
    return replace(full, **{k: pd.concat(v, ignore_index=True) for k, v in frames.items()})


def test_a_flighted_plan_is_valued_as_it_is_split(full: Snapshot) -> None:
    surface = full.surface
    assert surface is not None
    even = held(surface, scenario.current(surface))
    flights = even * np.where(np.arange(surface.periods) < 3, surface.periods / 3, 0.0)[:, None, None]
    found = review(saved_plan(full, flights))
    assert found.chosen is not None and found.chosen.name == "flights"
    done = evaluate_plan(surface, flights, "flights")
    total = weighted_interval(done.draws.sum(axis=1), surface.weights)
    assert [found.chosen.caused.p10, found.chosen.caused.p90] == pytest.approx([total["p10"], total["p90"]])
    assert found.chosen.spend == pytest.approx(found.options[0].spend), "the same money"
    assert found.chosen.gain.p90 < 0 and found.chosen.chance == 0.01, "in three weeks it meets saturation"


def test_what_lies_beyond_anything_observed_is_marked(full: Snapshot) -> None:
    assert full.surface is not None
    far = review(saved_plan(full, held(full.surface, 5 * scenario.current(full.surface))))
    assert all(x.extrapolated for x in far.lines)
    assert "the plan goes beyond any spend that was observed" in " ".join(far.missing)
    assert all("(beyond observed)" in cell for cell in review_tables.channels(far).iloc[:, 2])
    near = review(saved_plan(full, held(full.surface, 0.5 * scenario.current(full.surface))))
    assert not any(x.extrapolated for x in near.lines) and "beyond any spend" not in " ".join(near.missing)


def test_a_scenario_without_a_split_is_said_to_be_valued_evenly(full: Snapshot) -> None:
    found = review(replace(full, scenario_cells=full.scenario_cells.iloc[:0]))
    for even, split in zip(found.options, review(full).options, strict=True):
        assert even.gain.p50 == pytest.approx(split.gain.p50, abs=1e-6), "the job's plans are even"
    assert "current and best: the file holds no split by week and geo" in " ".join(found.missing)


def test_many_scenarios_have_letters(full: Snapshot) -> None:
    best = full.scenarios[full.scenarios["scenario"] == "best"]
    more = [best.assign(scenario_id=f"s{i}", author="ada") for i in range(26)]
    found = review(replace(full, scenarios=pd.concat([full.scenarios, *more], ignore_index=True)))
    assert [found.options[i].letter for i in (0, 25, 26, 27)] == ["A", "Z", "AA", "AB"]


def with_money(full: Snapshot, **facts: float) -> Snapshot:
    """The same file where a conversion has a price, and perhaps revenue a margin."""
    assert full.surface is not None
    period = sample.PERIOD
    found = build_surface(full.surface.response, period.start, period.periods, Assumptions(**facts))
    return replace(full, surface=found)


def test_money_is_margin_times_revenue_less_the_spend(full: Snapshot) -> None:
    s = with_money(full, price=30.0, margin=0.4)
    assert s.surface is not None
    found, surface = review(s), s.surface
    for option in found.options:
        assert option.money is not None and option.money.contribution is not None
        cells = s.scenario_cells[s.scenario_cells["scenario"] == option.name]
        plan = plan_of_cells(surface, cells.assign(period_start=cells["period_start"].dt.date))
        for band, unit in ((option.money.revenue, "revenue"), (option.money.contribution, "margin")):
            exact = weighted_interval(value_draws(surface, plan, unit), surface.weights)
            assert [band.p10, band.p50, band.p90] == pytest.approx([exact["p10"], exact["p50"], exact["p90"]])
        earned = value_draws(surface, plan, "margin") >= 0
        assert option.money.pays == pytest.approx(np.clip(surface.weights @ earned, 0.01, 0.99))
    table = review_tables.money(found)
    assert table is not None and len(table) == 2 and "contribution less spend, EUR (P10 to P90)" in table


def test_payback_is_the_first_week_that_covers_the_spend(full: Snapshot) -> None:
    def money(price: float) -> Money:
        chosen = review(with_money(full, price=price, margin=0.5)).chosen
        assert chosen is not None and chosen.money is not None
        return chosen.money

    rich, poor = money(1e5), money(1e-3)
    assert rich.payback == Band(1.0, 1.0, 1.0) and rich.pays == 0.99
    assert poor.payback == Band(np.inf, np.inf, np.inf) and poor.pays == 0.01
    between = next(m for p in np.geomspace(5, 200, 40) if 0.2 < (m := money(p)).pays < 0.8)  # type: ignore[operator]
    assert between.payback is not None and between.payback.p10 < between.payback.p90
    assert between.payback.p10 > 6, "spent evenly over 13 weeks, it is not earned back in half of them"
    assert review_tables.payback(poor) == f"not within {between.weeks:.0f}"
    assert review_tables.payback(rich) == "1 (1 to 1)"
    some = replace(between, payback=Band(9.0, 12.0, np.inf))
    assert review_tables.payback(some) == f"12 (9 to over {between.weeks:.0f})"


def test_money_in_every_file_and_what_is_missing_is_said(full: Snapshot) -> None:
    found = review(with_money(full, price=30.0, margin=0.4))
    assert "Money" in cells(found).sheetnames and "What it is worth in money" in {
        s.title for s in sections(found, "abc")
    }
    assert not any("Contribution and payback" in m for m in found.missing)
    priced = review(with_money(full, price=30.0))
    assert any("Contribution and payback are not given" in m for m in priced.missing)
    table = review_tables.money(priced)
    assert table is not None and not any("contribution" in c or "weeks" in c for c in table)
    assert review_tables.money(review(full)) is None and "Money" not in cells(review(full)).sheetnames


def test_decisions_are_the_largest_moves(full: Snapshot) -> None:
    found = review(full)
    largest = sorted(found.lines, key=lambda x: -abs(x.plan - x.now))[:3]
    assert len(found.decisions) == 3
    for line, text in zip(largest, found.decisions, strict=True):
        assert text.startswith(f"{'Raise' if line.plan > line.now else 'Lower'} {line.channel} by ")
        assert f"evidence grade {line.grade}" in text


def test_a_plan_of_record_is_reviewed_instead(full: Snapshot) -> None:
    best = full.scenarios[full.scenarios["scenario"] == "best"]
    saved = best.assign(scenario="autumn", scenario_id="s1", author="ada", of_record=True, outdated=True)
    found = review(replace(full, scenarios=pd.concat([full.scenarios, saved], ignore_index=True)))
    assert found.chosen is not None and (found.chosen.name, found.chosen.author) == ("autumn", "ada")
    assert not any("No plan of record" in m for m in found.missing)
    assert any(m.startswith("autumn: saved with an older fit") for m in found.missing)


def test_what_is_not_there_is_said(snapshot: Callable[[str], Snapshot]) -> None:
    def said(variant: str) -> str:
        return " ".join(review(snapshot(variant)).missing)

    assert "No plan of record is set" in said("full") and "the value of one" not in said("full")
    assert all(t in said("full") for t in ("The bridge", "hurdle rate", "What platforms claim is not compared"))
    assert "Returns and payback are not given: the value of one of the conversions" in said("no_revenue")
    assert "did not pass its gate" in said("failed_gate") and "There is no plan to review." in said("failed_gate")
    assert "There is no plan to review." in said("released_only")
    assert all(x.roi is None for x in review(snapshot("no_revenue")).lines)
    assert review(snapshot("failed_gate")).decisions == ()


def cells(found: Review) -> openpyxl.Workbook:
    """The workbook as a program without formulas reads it: the values that formulas carry."""
    return openpyxl.load_workbook(io.BytesIO(workbook(found, "abc")), data_only=True)


def test_the_workbook_holds_the_same_figures(full: Snapshot) -> None:
    found = review(full)
    book = cells(found)
    assert book.sheetnames == ["Summary", "Channels", "Options", "Platform claims", "Next tests", "Assumptions"]
    head, *rows = list(book["Channels"].iter_rows(values_only=True))
    assert all(c is not None for c in head)
    for x, row in zip(found.lines, rows, strict=True):
        assert row[0] == x.channel
        assert row[1:5] == pytest.approx((x.now, x.plan, x.plan - x.now, x.change))
        assert row[8:11] == pytest.approx((x.caused.p10, x.caused.p50, x.caused.p90))
        assert row[17] == x.grade
    assert found.chosen is not None
    option = next(r for r in book["Options"].iter_rows(values_only=True) if r[0] == found.plan)
    assert option[4:11] == pytest.approx(
        (*(getattr(found.chosen.caused, p) for p in ("p10", "p50", "p90")),
         *(getattr(found.chosen.gain, p) for p in ("p10", "p50", "p90")), found.chosen.chance)
    )  # fmt: skip
    assert [r[0] for r in book["Assumptions"].iter_rows(values_only=True)][1:] == list(found.assumptions)


def test_totals_are_formulas_that_agree_with_what_they_carry(full: Snapshot) -> None:
    """Named totals point at formulas, and the formulas at cells whose sum is the value that they carry."""
    found = review(full)
    live = openpyxl.load_workbook(io.BytesIO(workbook(found, "abc")))
    carried = cells(found)
    names = {n: d.attr_text.replace("$", "").split("!") for n, d in live.defined_names.items()}
    assert set(names) == {"spend_now", "spend_plan", *(f"{w}_p{q}" for w in ("caused", "gain") for q in (10, 50, 90))}
    for name, column in (("spend_now", "B"), ("spend_plan", "C")):
        sheet, cell = names[name]
        assert live[sheet][cell].value == f"=SUM(Channels!{column}2:{column}{len(found.lines) + 1})"
        total = sum(carried["Channels"][f"{column}{i + 2}"].value for i in range(len(found.lines)))
        assert carried[sheet][cell].value == pytest.approx(total)
    for name in ("caused_p10", "gain_p90"):
        sheet, cell = names[name]
        where, at = live[sheet][cell].value.removeprefix("=").split("!")
        assert carried[sheet][cell].value == pytest.approx(carried[where][at].value)


def test_differences_are_formulas_that_give_what_they_carry(full: Snapshot) -> None:
    found = review(full)
    carried = cells(found)["Channels"]
    live = openpyxl.load_workbook(io.BytesIO(workbook(found, "abc")))["Channels"]
    for i in range(2, len(found.lines) + 2):
        for column in "DE":
            text = str(live[f"{column}{i}"].value)
            assert text.startswith("="), "a formula"
            numbers = re.sub(r"[A-Z]\d+", lambda m: repr(float(carried[m.group()].value)), text.removeprefix("="))
            given = eval(numbers, {"__builtins__": {}}, {"IF": lambda holds, a, b: a if holds else b})
            assert given == pytest.approx(carried[f"{column}{i}"].value), text


def test_the_workbook_is_the_same_twice_and_runs_no_text(full: Snapshot, tmp_path: Path) -> None:
    found = review(full)
    assert workbook(found, "abc") == workbook(found, "abc")
    lines = tuple(replace(x, channel="=HYPERLINK(1)") if i == 0 else x for i, x in enumerate(found.lines))
    book = openpyxl.load_workbook(io.BytesIO(workbook(replace(found, lines=lines), "abc")))
    cell = book["Channels"]["A2"]
    assert (cell.value, cell.data_type) == ("=HYPERLINK(1)", "s")
    path = tmp_path / "file"
    path.write_bytes(b"x")
    assert digest(path) == "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"


def test_next_tests_are_listed_the_best_first(full: Snapshot) -> None:
    row = {"channel": "tv", "weeks": 4.0, "cost": 100.0, "net_value": -50.0, "perfect_information": 9.0}
    row |= {"unit": "conversions", "share_changed": 0.2, "decision": "under 10: lower tv", "mde": 1.0}
    tests = pd.DataFrame(
        [row | {"test": "worse", "value": 1.0}, row | {"test": "better", "value": 2.0, "cost": np.nan}]
    )
    found = review(replace(full, next_tests=tests))
    _, first, second = cells(found)["Next tests"].iter_rows(values_only=True)
    assert first[:6] == ("better", "tv", 4, None, -50, 2) and second[0] == "worse"
    assert not any("next test" in m for m in found.missing)
    dearer = pd.DataFrame(
        [row | {"test": "dear", "value": 9.0}, row | {"test": "cheap", "value": 1.0, "net_value": 0.0}]
    )
    s = replace(full, next_tests=dearer)
    assert review(s).tests["test"].tolist() == experiments.queue(s)["test"].tolist() == ["cheap", "dear"]


def test_claims_stand_beside_what_was_caused(full: Snapshot) -> None:
    last = full.incrementality[full.incrementality["model"] == "last_touch"]
    found = review(replace(full, incrementality=last.assign(model="platform_claimed")))
    assert len(found.claims) and found.claims["credited"].is_monotonic_decreasing
    assert not any("platforms claim" in m for m in found.missing)
    told = next(s for s in sections(found, "abc") if s.title.startswith("What platforms claim"))
    sheet = list(cells(found)["Platform claims"].iter_rows(values_only=True))
    assert told.table is not None and len(told.table) == len(sheet) - 1 == len(found.claims)
    first = found.claims.iloc[0]
    assert sheet[1][:3] == (first["channel"], pytest.approx(first["credited"]), pytest.approx(first["incremental_kpi"]))


def test_the_pack_is_written_beside_the_report(warehouse: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "warehouse.duckdb").write_bytes(warehouse("full").read_bytes())
    answer = write_pack(tmp_path)
    assert answer["plan"] == "best" and [Path(p).name for p in answer["pack"]] == [
        f"budget-review.{kind}" for kind in ("html", "xlsx", "pptx", "pdf")
    ]
    summary = openpyxl.load_workbook(tmp_path / "budget-review.xlsx")["Summary"]
    assert digest(tmp_path / "warehouse.duckdb") in [r[1] for r in summary.iter_rows(values_only=True)]
    with pytest.raises(WorkspaceError, match="there is no warehouse at"):
        write_pack(tmp_path / "nowhere")
    refused = CliRunner().invoke(cli, ["report", str(tmp_path), "--pack", "month"])
    assert refused.exit_code == 2 and "'month' is not" in refused.output


def test_slides_paper_and_page_say_what_the_review_says(full: Snapshot) -> None:
    found = review(full)
    told = sections(found, "abc")
    deck = Presentation(io.BytesIO(slides(told, "ada", found.made)))
    assert (deck.core_properties.author, deck.core_properties.created) == ("ada", found.made)
    titles = [slide.shapes.title.text for slide in deck.slides]
    assert [t for t in titles if "continued" not in t] == [s.title for s in told], "no section is left out"
    frames = [shape for slide in deck.slides for shape in slide.shapes]
    written = [p.text for f in frames if f.has_text_frame for p in f.text_frame.paragraphs]
    assert {f"• {line}" for s in told for line in s.lines} <= set(written)
    html = page(told)
    for section in (s for s in told if s.table is not None):
        table = next(f.table for f in frames if f.has_table and f.table.cell(0, 0).text == section.table.columns[0])
        for r, row in enumerate(section.table.to_numpy().tolist(), 1):
            assert [table.cell(r, c).text for c in range(len(row))] == row
            assert all(f"<td>{escape(cell)}</td>" in html for cell in row)
    assert handout(told, "ada") == handout(told, "ada"), "the same review is the same paper"
    assert handout(told, "ada").startswith(b"%PDF")


def test_names_are_text_everywhere(full: Snapshot) -> None:
    told = (Section("<b>", ("<script>1</script> & <i",), pd.DataFrame({"<u": ["</td>"]})),)
    assert "<script>" not in page(told) and "&lt;/td&gt;" in page(told)
    assert handout(told, "").startswith(b"%PDF"), "markup of the library is not read from names"
    shapes = Presentation(io.BytesIO(slides(told, "", review(full).made))).slides[0].shapes
    assert shapes.title is not None and shapes.title.text == "<b>"


def test_the_paper_says_what_its_font_cannot_show(full: Snapshot, tmp_path: Path) -> None:
    told = sections(review(full), "abc")
    odd = (*told, Section("more", (), pd.DataFrame({"channel": ["\u6f22"]})))
    assert unprintable(odd) and not unprintable(told)
    assert handout(odd, "") != handout(told, "")
    if (reader := shutil.which("pdftotext")) is None:
        pytest.skip("pdftotext is not installed: the text of the paper was not read back")
    for i, (what, warned) in enumerate(((told, False), (odd, True))):
        paper = tmp_path / f"{i}.pdf"
        paper.write_bytes(handout(what, ""))
        text = " ".join(subprocess.check_output([reader, "-layout", paper, "-"], text=True).split())
        assert ("characters that this paper's font lacks" in text) == warned
        assert all(s.title in text for s in told)


def test_no_slide_runs_over(full: Snapshot) -> None:
    told = (Section("long", tuple(f"line {i}" for i in range(20))),)
    deck = Presentation(io.BytesIO(slides(told, "", review(full).made)))
    assert [s.shapes.title.text for s in deck.slides if s.shapes.title] == ["long", *["long (continued)"] * 2]
    wide = pd.DataFrame({"channel": [f"channel {i}" for i in range(31)], "spend": ["1"] * 31})
    many = Presentation(io.BytesIO(slides((Section("many", ("one line",), wide),), "", review(full).made))).slides
    tables = [f.table for s in many for f in s.shapes if f.has_table]
    assert len(many) == 4 and max(len(t.rows) for t in tables) == 10, "nine rows and the head"
    assert [t.cell(r, 0).text for t in tables for r in range(1, len(t.rows))] == wide["channel"].tolist()
    for slide in Presentation(io.BytesIO(slides(sections(review(full), "abc"), "", review(full).made))).slides:
        assert all(s.top + s.height <= 6858000 for s in slide.shapes), "inside 7.5 inches"


@pytest.mark.parametrize("variant", ["full", "aggregate_only", "failed_gate", "no_revenue", "released_only"])
def test_a_workbook_is_written_in_every_state(snapshot: Callable[[str], Snapshot], variant: str) -> None:
    found = review(snapshot(variant))
    summary = [r[0] for r in cells(found)["Summary"].iter_rows(values_only=True)]
    assert set(found.missing) <= set(summary) and "Sign-off" in summary
    told = sections(found, "abc")
    assert told[-1].title == "Sign-off" and set(found.missing) <= {x for s in told for x in s.lines}
    assert handout(told, "") and slides(told, "", found.made) and page(told)


@pytest.mark.parametrize("variant", ["full", "aggregate_only", "failed_gate", "no_experiments", "released_only"])
def test_the_page_in_every_state(
    warehouse: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, variant: str, snapshot: Callable[[str], Snapshot]
) -> None:
    monkeypatch.setenv(ENV, str(warehouse(variant)))
    at = AppTest.from_file(ROOT / "app" / "main.py", default_timeout=60).run()
    at.switch_page("views/review_page.py").run()
    assert not at.exception
    assert at.header[0].value == "Budget review"
    found = review(snapshot(variant))
    if found.chosen is None:
        text = "\n".join(e.value for e in at.info).replace("\\", "")
        assert "There is no plan to review." in text and not at.metric
    else:
        values = [m.value for m in at.metric]
        assert values[0] == found.units.money(found.chosen.spend)
        assert values[1] == found.units.kpi_figure(found.chosen.gain.p50)
