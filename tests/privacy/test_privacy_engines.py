"""

T2: DuckDB and Spark return the same bits for every vector of every measure; the number of partitions changes none.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import pytest
from privacy_worlds import NOW, SECRET, World, question

from contracts.errors import WorkspaceError
from privacy import bounding, kpi
from privacy import spark as spark_module
from privacy.bounds import MICROS, fixed_point
from privacy.load import LoadSettings, load_people
from privacy.people import sql
from privacy.room import Bound, JourneyPolicy, PrivacyPolicy, TrialPolicy
from privacy.spark import spark_engine
from privacy.vectors import Span, VectorPlan

SHARES = {"kpi": 0.3, "journeys": 0.2, "trials": 0.1, "diagnostics": 0.1, "media": 0.1, "credit": 0.1}
TIGHT = PrivacyPolicy(
    shares=SHARES,
    kpi={"conversions": Bound(1.5, 0.7), "revenue": Bound(20, 0.2), "active_users": Bound(2, 0.1)},
    journeys=JourneyPolicy(4, Bound(2.5, 0.35), Bound(2, 0.35), Bound(30, 0.15), Bound(1.2, 0.1), 0.05),
    trials=TrialPolicy(visits=2, conversions=1, revenue=50),
)
# heavy-tailed people with exact copies, contradictions, ties in time, refusals, malformed rows and unmapped places
EVENTS = """
SELECT CASE WHEN h % 50 = 0 THEN 'copy' || i % 997 ELSE 'e' || i END AS event_id,
    CASE WHEN h % 997 = 0 THEN NULL ELSE 'u' || floor({people} * u * u * u)::BIGINT END AS user_id,
    make_timestamp((1704067200000000 + (h // 7 % 181) * 86400000000 + (h // 11 % 3) * 3600000000)::BIGINT) AS ts,
    ['impression', 'click', 'visit', 'visit', 'conversion', '?'][CASE WHEN h % 991 = 0 THEN 6 ELSE h // 13 % 5 + 1 END]
        AS event,
    ['search', 'social', 'video', 'unheard of', ''][h // 17 % 5 + 1] AS channel,
    ['north', 'south', 'mars'][h // 19 % 3 + 1] AS geo,
    round(exp(3 + 2 * u), 3) AS value, 'USD' AS currency,
    CASE WHEN h // 23 % 40 > 0 THEN h // 29 % 500 > 0 END AS consent, h // 31 % 90 > 0 AS valid
FROM (SELECT i, hash(i, {seed}) % 1000003 AS u0, (hash(i, {seed} + 1) >> 2)::BIGINT AS h, u0 / 1000003.0 AS u FROM
range({rows}) t(i))
"""
GROUPS = """
SELECT 'u' || i AS user_id, 'holdout' AS experiment, ['control', 'treated'][i % 2 + 1] AS arm FROM range({people}) t(i)
"""


# PySpark leaves the sockets, through which it hands rows over where files would have to be encrypted, to the collector
LEFT_OPEN = pytest.mark.filterwarnings(
    "ignore:unclosed:ResourceWarning", "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def crowded(tmp_path: Path) -> Any:
    """`crowded(rows, people)`: a world and its inputs."""

    def make(rows: int, people: int, policy: PrivacyPolicy = TIGHT, **fields: Any) -> tuple[World, Any]:
        for name, statement in (("events", EVENTS), ("groups", GROUPS)):
            text = statement.format(rows=rows, people=people, seed=1)
            duckdb.connect().execute(f"COPY ({text}) TO '{tmp_path}/{name}.parquet'")
        here = World(
            tmp_path, question=question(), policy=policy, is_touch=True, assumed=True, max_rejected=0.2, **fields
        )
        return here, here.inputs(tmp_path / "events.parquet", tmp_path / "groups.parquet")

    return make


def same(one: dict[Any, np.ndarray], other: dict[Any, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for key, units in one.items():
        assert units.dtype == other[key].dtype == np.int64, key
        assert (units == other[key]).all(), key
    assert sum(units.any() for units in one.values()) > 0.9 * len(one), "nearly no vector is empty"


@pytest.mark.parametrize("policy", [TIGHT, replace(TIGHT, bounding="l0_linf")], ids=["l2", "l0_linf"])
def test_the_number_of_partitions_changes_nothing(crowded, policy) -> None:  # type: ignore[no-untyped-def]
    here, inputs = crowded(6_000, 400, policy)
    whole = here.exact(inputs)
    for part_rows in (3_000, 700):
        same(whole, replace(here, part_rows=part_rows).exact(inputs))


@pytest.mark.parametrize(("first", "weeks", "bound"), [(0, 13, 2.0), (3, 1, 0.5), (5, 6, 60.0)])
def test_active_people_by_bits_equal_those_by_rows(crowded, first, weeks, bound) -> None:  # type: ignore[no-untyped-def]
    """The short way of active people and the general one give the same units."""
    here, inputs = crowded(6_000, 400)
    fixed = fixed_point(bound)
    vector = VectorPlan("active_users", bound, fixed.units, fixed.step, MICROS, 3 * weeks, 1, 1.0)
    span = Span(0, first, weeks)
    general = sql(bounding.totals(bounding.bounded(kpi.rows(span, vector.name, fixed), fixed.units, weeks)))
    with load_people(inputs, here.question, LoadSettings(NOW, here.root / "raw", SECRET)) as crowd:
        (people,) = crowd.each()
        short, long = people.vector(kpi.statement(span, vector), 3 * weeks), people.vector(general, 3 * weeks)
    assert (short == long).all() and short.sum() > 0


@pytest.fixture(scope="session")
def spark() -> Iterator[None]:
    """Spark and Java, or a skip."""
    if importlib.util.find_spec("pyspark") is None:
        pytest.skip('pyspark is not installed (pip install "plumbline[spark]")')
    if shutil.which("java") is None:
        pytest.skip("Java is not installed; Spark needs Java 17 or later")
    yield


def one_quarter(here: World) -> World:
    """The same world, asked about its first quarter; the test lies in it."""
    whole = here.question
    block = whole.blocks[0]
    test = replace(whole.experiments[0], end=block.weeks[-1])
    return replace(here, question=replace(whole, blocks=(block,), experiments=(test,)))


@LEFT_OPEN
def test_spark_returns_the_same_bits(crowded, spark) -> None:  # type: ignore[no-untyped-def]
    """10^5 rows, one quarter, every way of bounding: by norm, by cells, one scale for counts, clipped mass, trials."""
    policy = replace(
        TIGHT,
        shares={"kpi": 0.3, "journeys": 0.2, "trials": 0.1, "diagnostics": 0.1},
        kpi=TIGHT.kpi | {"active_users": Bound(2, 0.1, 3)},
        journeys=JourneyPolicy(4, Bound(2.5, 0.35), Bound(2, 0), Bound(30, 0.15), Bound(1.2, 0)),
    )
    here, inputs = crowded(100_000, 8_000, policy)
    here = one_quarter(here)
    same(here.exact(inputs), replace(here, engine="spark").exact(inputs))


@LEFT_OPEN
@pytest.mark.slow
@pytest.mark.parametrize("bounding", ["l2", "l0_linf"])
def test_spark_returns_the_same_bits_for_every_vector(crowded, spark, bounding) -> None:  # type: ignore[no-untyped-def]
    here, inputs = crowded(20_000, 2_000, replace(TIGHT, bounding=bounding))
    same(here.exact(inputs), replace(here, engine="spark").exact(inputs))


def test_what_spark_writes_for_itself_is_encrypted(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Sessions of ours by their settings; one that runs already by a look at its own. Needs no Spark."""
    session = SimpleNamespace(getActiveSession=lambda: None)
    monkeypatch.setitem(sys.modules, "pyspark", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "pyspark.errors", SimpleNamespace(PySparkException=RuntimeError))
    monkeypatch.setitem(sys.modules, "pyspark.sql", SimpleNamespace(SparkSession=session))

    class Builder:
        settings: dict[str, str] = {}

        def config(self, key: str, value: str) -> Builder:
            self.settings[key] = value
            return self

    session.builder = SimpleNamespace(appName=lambda name: Builder())
    monkeypatch.setattr(spark_module, "_started", lambda builder: SimpleNamespace(stop=lambda: None))
    with spark_engine(tmp_path):
        assert Builder.settings["spark.io.encryption.enabled"] == "true"
        assert Builder.settings["spark.local.dir"] == str(tmp_path)
    for own in ({}, {"spark.io.encryption.enabled": "false"}, {"spark.io.encryption.enabled": "true"}):
        context = SimpleNamespace(getConf=lambda own=own: own)
        session.getActiveSession = lambda context=context: SimpleNamespace(sparkContext=context)
        if own.get("spark.io.encryption.enabled") == "true":
            with spark_engine(tmp_path) as engine:
                assert engine.session.sparkContext is context
        else:
            plain = pytest.raises(WorkspaceError, match="writes plain files; set spark.io.encryption.enabled = true")
            with plain, spark_engine(tmp_path):
                pass


def test_without_spark_the_sentence_names_the_way_out(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with (
        pytest.raises(WorkspaceError, match=r'needs the extra: pip install "plumbline\[spark\]"'),
        spark_engine(tmp_path),
    ):
        pass
