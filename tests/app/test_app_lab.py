"""The Attribution lab's figures: shares, tables and findings of finished credit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest

from app import lab
from app.charts import credit
from app.store import Snapshot

Read = Callable[[str], Snapshot]
NAMES = ("retargeting", "search", "social", "tv", "video")


def test_shares_of_each_model_add_up_to_one_and_hold_their_interval(snapshot: Read) -> None:
    s = snapshot("full")
    frame = lab.shares(s, lab.periods(s)[0], "conversions")
    assert frame.groupby("model")["share"].sum().tolist() == pytest.approx([1.0] * frame["model"].nunique())
    assert ((frame["low"] <= frame["share"]) & (frame["share"] <= frame["high"])).all()
    assert "unattributed" not in set(frame["channel"])


def test_the_sentence_names_the_channel_that_the_choice_of_model_moves_most(snapshot: Read) -> None:
    s = snapshot("full")
    period = lab.periods(s)[0]
    wide = lab.shares(s, period, "conversions").pivot(index="channel", columns="model", values="share")
    most = (wide.max(axis=1) - wide.min(axis=1)).idxmax()
    assert f"matters most for {most}:" in lab.sentence(s, period, "conversions")


def test_periods_come_newest_first_and_no_credit_has_none(snapshot: Read) -> None:
    found = lab.periods(snapshot("full"))
    assert found == tuple(sorted(found, reverse=True)) and len(found) == 6
    assert lab.periods(snapshot("aggregate_only")) == ()


def test_findings_show_the_surest_difference_first(snapshot: Read) -> None:
    s = snapshot("full")
    columns = list(s.parity.columns)
    rows = [
        {"kind": "change", "status": "warn", "p_value": 0.03, "text": "b"},
        {"kind": "change", "status": "warn", "p_value": 0.001, "text": "a"},
        {"kind": "change", "status": "pass", "p_value": 0.6, "text": "c"},
    ]
    s = replace(s, parity=pd.DataFrame(rows).reindex(columns=columns))
    assert lab.kinds(s) == {"change": (2, 3)}
    assert lab.findings(s, "change", only_warnings=True)["finding"].tolist() == ["a", "b"]
    assert lab.findings(s, "change", only_warnings=False)["verdict"].tolist() == ["differs", "differs", "agrees"]


def test_the_chart_draws_every_share_and_names_its_unit(snapshot: Read) -> None:
    s = snapshot("full")
    frame = lab.shares(s, lab.periods(s)[0], "conversions")
    spec = credit.credit_shares(frame, NAMES).to_dict()
    assert "share of the credit to channels" in str(spec)
    assert max(len(rows) for rows in spec["datasets"].values()) == len(frame)
    assert credit.alt_text(frame).count(" by ") >= len(frame)
