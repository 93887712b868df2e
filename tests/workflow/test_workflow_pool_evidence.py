"""What moves credit, as the pool reads it, and how the pool's conflicts are told."""

from __future__ import annotations

from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.release import Release
from contracts.tables import BY_NAME
from reconcile.conflicts import Conflict
from reconcile.inputs import JOURNEYS
from workflow.config_reconcile import Reconcile
from workflow.pool_evidence import consent_rates, covariates
from workflow.step_reconcile import conflict_rows

CHANNELS = ("search", "social")
SPANS = tuple(
    (date(2024, 1, 1) + timedelta(days=91 * t), date(2024, 1, 1) + timedelta(days=91 * t + 90)) for t in (0, 1)
)


def diagnostics(start: date, **figures: float) -> Release:
    table = pd.DataFrame({"metric": list(figures), "value": list(figures.values())}).assign(vector="", variance=1.0)
    return Release("d", "diagnostics", "q", start, start + timedelta(days=90), table, (), 0.1, 1.0, 1e-6, {})


def test_consent_is_people_who_said_yes_of_all_people() -> None:
    first = diagnostics(SPANS[0][0], people=1000.0, consenting=800.0)
    near = diagnostics(SPANS[1][0] + timedelta(days=6), people=1000.0, consenting=1010.0)
    assert consent_rates([first, near], SPANS) == pytest.approx([0.8, 1.0]), "noise never makes a share above 1"
    assert consent_rates([first], SPANS) is None, "a quarter without its release leaves consent unknown"
    nobody = diagnostics(SPANS[1][0], people=-3.0, consenting=2.0)
    assert consent_rates([first, nobody], SPANS) is None, "a count that noise made negative is no rate"


def test_consent_moves_every_channel_s_touches_around_its_own_mean() -> None:
    (found,) = covariates(Reconcile(), np.array([0.8, 0.5]), CHANNELS, SPANS)
    assert found.name == "consent" and found.sources == (JOURNEYS,)
    assert found.values == pytest.approx(np.tile([np.log(1.6) / 2, -np.log(1.6) / 2], (2, 1)))
    assert covariates(Reconcile(), np.array([0.8, 0.8]), CHANNELS, SPANS) == (), "what never moves explains nothing"
    assert covariates(Reconcile(), None, CHANNELS, SPANS) == ()


def test_incidents_and_match_rates_count_the_days_that_they_cover() -> None:
    days = {"start": SPANS[1][0], "end": SPANS[1][0] + timedelta(days=12)}
    settings = Reconcile.model_validate(
        {"incidents": [days | {"channels": ["social"], "note": "tag lost"}], "match_rates": [days | {"rate": 0.5}]}
    )
    match, incident = covariates(settings, None, CHANNELS, SPANS)
    assert incident.name == f"incident tag lost ({days['start']} to {days['end']})"
    assert incident.values == pytest.approx(np.array([[0.0, 0.0], [0.0, 13 / 91]]))
    half = 13 / 91 * np.log(0.5) / 2
    assert match.name == "match rate" and match.values == pytest.approx(np.tile([-half, half], (2, 1)))
    (numbered,) = covariates(Reconcile.model_validate({"incidents": [days]}), None, CHANNELS, SPANS)
    assert numbered.name.startswith("incident 1 ("), "without a note it is numbered"


def conflict(channel: str, source: Any, severity: Any, text: str = "") -> Conflict:
    return Conflict(channel, source, "test1", 3.5, severity, np.nan, 1.0, text)


def test_conflicts_are_rows_and_reasons_stand_beside_flags_only() -> None:
    days = {"start": SPANS[1][0], "end": SPANS[1][1]}
    settings = Reconcile.model_validate({"incidents": [days]})
    inputs: Any = SimpleNamespace(
        channels=CHANNELS, periods=SPANS, spend=None, mmm=None, scopes=(), lifts=SimpleNamespace(estimates=()),
        covariates=covariates(settings, None, CHANNELS, SPANS),
    )  # fmt: skip
    found = (conflict("search", "lift", "red", "a test differs"), conflict("social", "mmm", ""))
    result: Any = SimpleNamespace(conflicts=found, diagnostics=SimpleNamespace(widened=("search",)))
    rows = conflict_rows(inputs, result)
    assert set(rows.columns) <= set(BY_NAME["v_conflicts"].names)
    flagged, quiet = rows.to_dict("records")
    assert flagged["reasons"].startswith("incident: ") and flagged["widened"] and flagged["text"] == "a test differs"
    assert quiet["reasons"] == "" and not quiet["widened"] and quiet["severity"] == ""
    empty: Any = SimpleNamespace(conflicts=(), diagnostics=SimpleNamespace(widened=()))
    assert conflict_rows(inputs, empty).empty and list(conflict_rows(inputs, empty)) == list(rows)
