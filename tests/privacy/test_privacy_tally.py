"""privacy.tally: each array statement says what its line of SQL says, on people with gaps, ties and refusals."""

from __future__ import annotations

import duckdb
import numpy as np
import pandas as pd
import pytest

from privacy.tally import NEVER, Calendar, Rows, consent, homes, latest, presence, repeated
from privacy.vectors import ReleasePlan, VectorPlan, keyed

PEOPLE, BLOCKS = 40, 3
DAYS = pd.DataFrame(
    {
        "day": [*range(100, 114), *range(121, 128)],
        "block": [0] * 7 + [1] * 7 + [2] * 7,
        "week": [0] * 7 + [0] * 7 + [1] * 7,
    }
)


@pytest.fixture
def engine() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute(
        "CREATE TABLE days AS SELECT day::INTEGER AS day, block::SMALLINT AS block, week::SMALLINT AS week FROM DAYS"
    )
    return con


def _frame(seed: int, rows: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "person": rng.integers(0, PEOPLE - 3, rows).astype(np.int32),  # the last three have no event
            "instant": rng.permutation(rows * 5)[:rows].astype(np.int64),
            "day": rng.integers(95, 132, rows).astype(np.int32),
            "kind": rng.integers(0, 4, rows).astype(np.int8),
            "channel": rng.integers(-1, 3, rows).astype(np.int16),
            "geo": rng.integers(0, 5, rows).astype(np.int16),
            "micros": rng.integers(0, 10**9, rows),
            "agrees": rng.random(rows) < 0.5,
            "counts": rng.random(rows) < 0.8,
        }
    )


def _rows(frame: pd.DataFrame, calendar: Calendar) -> Rows:
    columns = {name: frame[name].to_numpy() for name in frame}
    block, week = calendar.locate(columns["day"])
    return Rows(**columns, block=block, week=week)


def _same(found: dict[str, np.ndarray], told: pd.DataFrame) -> None:
    frame = pd.DataFrame(found).astype("int64").sort_values(["person", "block"], ignore_index=True)
    want = told.astype("int64").sort_values(["person", "block"], ignore_index=True)
    pd.testing.assert_frame_equal(frame[list(want)], want)


@pytest.mark.parametrize("seed", range(5))
def test_presence_homes_and_consent_equal_their_sql(seed: int, engine: duckdb.DuckDBPyConnection) -> None:
    frame = _frame(seed)
    rng = np.random.default_rng(seed + 100)
    refusing = pd.DataFrame({"person": rng.integers(0, PEOPLE, 25), "moment": rng.integers(-50, 1500, 25)})
    group = pd.DataFrame(
        {"person": rng.integers(0, PEOPLE, 20), "agrees": rng.random(20) < 0.6, "says": rng.random(20) < 0.7}
    )
    calendar = Calendar.of(engine)
    rows = _rows(frame, calendar)
    refused = latest(refusing["person"].to_numpy(), refusing["moment"].to_numpy(), PEOPLE)
    known, agrees = consent(rows, refused, tuple(group[c].to_numpy() for c in group), assumed=seed % 2 == 0)  # type: ignore[arg-type]
    for name, table in (("frame", frame), ("refusing", refusing), ("grouped", group)):
        engine.register(name, table)
    told = engine.execute(
        f"""WITH granted AS (SELECT person, max(instant) AS at FROM frame WHERE agrees GROUP BY person),
        refused AS (SELECT person, max(moment) AS at FROM refusing GROUP BY person),
        stated AS (SELECT person, refused.at IS NULL OR coalesce(granted.at > refused.at, false) AS agrees
            FROM granted FULL JOIN refused USING (person)),
        once AS (SELECT person, bool_and(agrees) AS agrees FROM (
            SELECT person, NULL::BOOLEAN AS agrees FROM frame
            UNION ALL SELECT person, CASE WHEN says THEN agrees END FROM grouped) GROUP BY person)
        SELECT person, coalesce(stated.agrees, once.agrees, {seed % 2 == 0}) AS agrees
        FROM once LEFT JOIN stated USING (person) ORDER BY person"""
    ).df()
    assert np.flatnonzero(known).tolist() == told["person"].tolist()
    assert agrees[known].tolist() == told["agrees"].tolist()
    engine.register("consent", told)
    _same(
        presence(rows, agrees, BLOCKS),
        engine.execute(
            """SELECT person, block, agrees::INTEGER AS consenting, max((NOT counts)::INTEGER) AS invalid
            FROM (SELECT person, counts, block FROM frame JOIN days USING (day)) JOIN consent USING (person)
            GROUP BY person, block, agrees"""
        ).df(),
    )
    here = rows.block >= 0
    events = {n: getattr(rows, n)[here] for n in ("person", "block", "week", "geo")} | {"seq": rows.instant[here]}
    _same(
        homes(events, PEOPLE, BLOCKS),
        engine.execute(
            """SELECT person, block, arg_min(geo, instant) AS geo, bit_or(1::BIGINT << week) AS weeks
            FROM frame JOIN days USING (day) GROUP BY person, block"""
        ).df(),
    )


def test_nobody_and_no_calendar_give_empty_tables() -> None:
    engine = duckdb.connect()
    engine.execute("CREATE TABLE days (day INTEGER, block SMALLINT, week SMALLINT)")
    calendar = Calendar.of(engine)
    rows = _rows(_frame(1), calendar)
    assert calendar.blocks == 0 and (rows.block == -1).all()
    assert len(presence(rows, np.ones(PEOPLE, bool), 0)["person"]) == 0
    nothing = _rows(_frame(1, 0), calendar)
    known, agrees = consent(nothing, np.full(3, NEVER), (np.zeros(0, int), np.zeros(0, bool), np.zeros(0, bool)), True)
    assert not known.any() and not agrees.any()


def test_every_person_with_two_events_at_one_time_is_found() -> None:
    frame = _frame(3)
    frame.loc[7, ["person", "instant"]] = frame.loc[5, ["person", "instant"]]
    rows = _rows(frame, Calendar(100, np.zeros(1, np.int16), np.zeros(1, np.int16), 1))
    assert rows.tied().tolist() == [frame.loc[5, "person"]]
    assert repeated(np.array([3, 1, 3, 2, 1, 3])).tolist() == [1, 3]


def test_only_kpi_scaled_by_its_norm_goes_without_keyed_hashes() -> None:
    def plan(measure: str, l0: int = 0) -> ReleasePlan:
        vector = VectorPlan("conversions", 1.0, 1, 1, 1, 1, 1, 1.0, l0)
        days = (pd.Timestamp("2024-01-01").date(),) * 2
        return ReleasePlan("r", "h", measure, ("b",), *days, "", (vector,), "k")  # type: ignore[arg-type]

    assert not keyed((plan("kpi"),))
    assert keyed((plan("kpi"), plan("journeys"))) and keyed((plan("kpi", l0=3),))
