"""Public tables: weeks, money, geos and channels; weekly and daily files give the same panel."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from contracts.errors import ConfigError, InputError
from workflow.config import Config, parse
from workflow.files_in import read_text, resolve
from workflow.panel_build import _media, _weekly
from workflow.panel_table import from_panel
from workflow.tables_in import read_public, read_spend


def config(**sections: object) -> Config:
    """A configuration with events and spend."""
    inputs = {"events": {"path": "events.csv"}, "spend": {"path": "spend.csv"}}
    base: dict[str, object] = {"project": {"id": "abcd"}, "inputs": inputs}
    return parse(base | sections)


def write(path: Path, text: str) -> None:
    """Writes a small table."""
    path.write_text(text, encoding="utf-8")


def test_daily_spend_is_summed_to_complete_weeks(tmp_path: Path) -> None:
    first = date(2026, 1, 7)  # a Wednesday: the week of the 5th is not complete
    days = [first + timedelta(days=i) for i in range(20)]  # to Monday the 26th
    write(tmp_path / "spend.csv", "date,geo,channel,spend\n" + "".join(f"{d},north,tv,10\n" for d in days))
    public = read_public(tmp_path, config())
    assert public.weeks == (date(2026, 1, 12), date(2026, 1, 19))
    assert public.spend is not None
    sums = _weekly(public.spend.rows, "spend", public.geos, public.weeks, public.channels, "monday")
    assert sums.tolist() == [[[70.0], [70.0]]]


def test_weekly_spend_covers_its_last_week(tmp_path: Path) -> None:
    rows = "".join(f"2026-01-{d:02d},north,tv,10\n" for d in (5, 12, 19))
    write(tmp_path / "spend.csv", "date,geo,channel,spend\n" + rows)
    assert len(read_public(tmp_path, config()).weeks) == 3
    with pytest.raises(
        InputError, match=r"weeks start on monday, but \[project\] week_start is \'sunday\'; write week_st"
    ):
        read_public(tmp_path, config(project={"id": "abcd", "week_start": "sunday"}))


def test_money_is_brought_to_one_currency_and_campaign_rows_add_up(tmp_path: Path) -> None:
    write(
        tmp_path / "spend.csv",
        "date,geo,channel,spend,currency\n2026-01-05,north,tv,10,EUR\n2026-01-05,north,tv,10,USD\n2026-01-12,north,tv,1,\n",
    )
    spend = read_spend(tmp_path, config(rates={"EUR": 1.25}))
    assert spend is not None and spend.rows["spend"].tolist() == [12.5, 10.0, 1.0]


def test_columns_are_mapped_and_fixed(tmp_path: Path) -> None:
    write(tmp_path / "spend.csv", "day;cost;channel\n2026-01-05;7;tv\n2026-01-12;7;tv\n")
    columns = {"date": "day", "spend": "cost", "geo": {"value": "national"}}
    inputs = {"events": {"path": "e.csv"}, "spend": {"path": "spend.csv", "columns": columns}}
    spend = read_spend(tmp_path, config(inputs=inputs))
    assert spend is not None and spend.rows["geo"].tolist() == ["national"] * 2


def test_a_mapped_column_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path / "spend.csv", "date,geo,channel,cost\n2026-01-05,north,tv,7\n")
    inputs = {"events": {"path": "e.csv"}, "spend": {"path": "spend.csv", "columns": {"spend": "costs"}}}
    with pytest.raises(
        InputError, match=r"spend.csv has no column 'costs', which \[inputs.spend\] columns maps to spend"
    ):
        read_spend(tmp_path, config(inputs=inputs))


def test_impressions_are_exposure_only_where_every_spending_row_has_them(tmp_path: Path) -> None:
    write(
        tmp_path / "spend.csv",
        "date,geo,channel,spend,impressions\n"
        "2026-01-05,north,tv,10,\n2026-01-05,north,web,10,500\n2026-01-12,north,tv,10,9\n2026-01-12,north,web,0,\n",
    )
    spend = read_spend(tmp_path, config())
    assert spend is not None
    weeks = (date(2026, 1, 5), date(2026, 1, 12))
    costs = _weekly(spend.rows, "spend", ("north",), weeks, ("tv", "web"), "monday")
    media = _media(spend, costs, ("north",), weeks, ("tv", "web"), "monday")
    assert media[0].tolist() == [[10.0, 500.0], [10.0, 0.0]]


def test_folders_globs_and_formats(tmp_path: Path) -> None:
    (tmp_path / "spend").mkdir()
    write(tmp_path / "spend" / "a.csv", "date,geo,channel,spend\n2026-01-05,north,tv,1\n")
    write(tmp_path / "spend" / "b.jsonl", '{"date": "2026-01-12", "geo": "north", "channel": "tv", "spend": 2.5}\n')
    table = read_text(resolve(tmp_path, ["spend"], "spend"), "spend", {}, {})
    assert table.cells["spend"].astype(float).tolist() == [1.0, 2.5]
    assert table.place(1) == "b.jsonl row 1"
    assert [p.name for p in resolve(tmp_path, ["spend/*.csv", "spend"], "spend")] == ["a.csv", "b.jsonl"]
    with pytest.raises(InputError, match="no file at 'costs/\\*.csv'"):
        resolve(tmp_path, ["costs/*.csv"], "spend")


PANEL = "date,geo,orders,tv_spend,web_spend,web_clicks,price\n"


def panel_config(**more: object) -> Config:
    """A configuration of the aggregate-only door."""
    panel = {
        "path": "panel.csv", "geo": "geo", "kpi": "orders", "spend": {"tv": "tv_spend", "web": "web_spend"},
        "exposure": {"web": "web_clicks"}, "controls": ["price"],
    }  # fmt: skip
    return parse({"project": {"id": "abcd"}, "inputs": {"panel": panel | more}})


def test_panel_arrays_follow_their_labels(tmp_path: Path) -> None:
    rows = [f"2026-01-{d:02d},{g},{k},{d},1,{d * 10},2.5\n" for g, k in (("b", 5), ("a", "")) for d in (5, 12, 19)]
    write(tmp_path / "panel.csv", PANEL + "".join(rows))
    panel, _ = from_panel(tmp_path, panel_config())
    assert panel.geos == ("a", "b") and panel.period_days == 7 and not panel.user_level
    assert np.isnan(panel.kpi[0]).all() and panel.kpi[1].tolist() == [5, 5, 5]
    assert panel.spend[0, :, 0].tolist() == [5, 12, 19]
    assert panel.media[0, :, 1].tolist() == [50, 120, 190] and panel.media[0, :, 0].tolist() == [5, 12, 19]
    assert panel.evidence_ids[0].startswith("panel:") and len(panel.evidence_ids[0]) == 18


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (["2026-01-05,a,1,1,1,1,1", "2026-01-19,a,1,1,1,1,1", "2026-01-26,a,1,1,1,1,1"], "jumps from 2026-01-05 to"),
        (
            [
                "2026-01-05,a,1,1,1,1,1",
                "2026-01-12,a,1,1,1,1,1",
                "2026-01-19,a,1,1,1,1,1",
                "2026-01-05,b,1,1,1,1,1",
                "2026-01-19,b,1,1,1,1,1",
            ],
            "2 rows for geo 'b' between 2026-01-05 and 2026-01-19, which are 3 dates",
        ),
        (["2026-01-05,a,1,1,1,1,1", "2026-01-05,a,1,1,1,1,1", "2026-01-12,a,1,1,1,1,1"], "earlier row too"),
        (["2026-01-05,a,1,-1,1,1,1", "2026-01-12,a,1,1,1,1,1"], "row 2: tv_spend is '-1'; negative"),
        (["2026-01-05,a,1,1,1,1,", "2026-01-12,a,1,1,1,1,1"], "row 2: price is empty; a number is needed"),
        (["2026-01-05,a,x,1,1,1,1", "2026-01-12,a,1,1,1,1,1"], "row 2: orders is 'x'; write a plain number"),
    ],
)
def test_panel_faults_name_the_place(rows: list[str], sentence: str, tmp_path: Path) -> None:
    write(tmp_path / "panel.csv", PANEL + "\n".join(rows) + "\n")
    with pytest.raises(InputError, match=sentence):
        from_panel(tmp_path, panel_config())


def test_a_geo_may_begin_late_and_its_missing_rows_say_nothing(tmp_path: Path) -> None:
    rows = ["2026-01-05,a,4,1,1,1,3", "2026-01-12,a,4,1,1,1,3", "2026-01-19,a,4,1,1,1,3", "2026-01-12,b,2,5,1,7,1",
            "2026-01-19,b,2,5,1,7,2"]  # fmt: skip
    write(tmp_path / "panel.csv", PANEL + "\n".join(rows) + "\n")
    panel, _ = from_panel(tmp_path, panel_config())
    assert np.isnan(panel.kpi[1, 0]) and np.isfinite(panel.kpi).sum() == 5
    assert panel.spend[1, :, 0].tolist() == [0, 5, 5] and panel.media[1, :, 1].tolist() == [0, 7, 7]
    assert panel.controls[1, :, 0].tolist() == [1.5, 1, 2]


def test_segments_reach_frequency_and_treatments(tmp_path: Path) -> None:
    head = "date,geo,segment,orders,tv_spend,tv_reach,tv_often,promo\n"
    rows = [f"2026-01-{d:02d},a,{s},3,1,{d},2.5,{p}\n" for s in ("new", "old") for d, p in ((5, 10), (12, 30))]
    write(tmp_path / "panel.csv", head + "".join(rows))
    columns = {"spend": {"tv": "tv_spend"}, "exposure": {}, "controls": [], "geo": ["geo", "segment"]}
    more = {"reach": {"tv": "tv_reach"}, "frequency": {"tv": "tv_often"}, "treatments": {"promo": "min"}}
    panel, _ = from_panel(tmp_path, panel_config(**columns, **more))
    assert panel.geos == ("a / new", "a / old")
    assert panel.media[0, :, 0].tolist() == [5, 12]
    assert panel.frequency is not None and panel.frequency[0, :, 0].tolist() == [2.5, 2.5]
    assert panel.control_names == ("promo",) and dict(panel.treatments) == {"promo": 10.0}
    with pytest.raises(ConfigError, match="'tv' has one of reach and frequency; give both"):
        panel_config(exposure={}, reach={"tv": "x"})
    with pytest.raises(ConfigError, match="reach names 'web', which must stand in spend and not in exposure"):
        panel_config(reach={"web": "x"}, frequency={"web": "y"})


def test_a_panel_column_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path / "panel.csv", PANEL + "2026-01-05,a,1,1,1,1,1\n2026-01-12,a,1,1,1,1,1\n")
    with pytest.raises(InputError, match="panel.csv has no column 'sales'"):
        from_panel(tmp_path, panel_config(kpi="sales"))
