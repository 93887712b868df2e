"""What the privacy boundary costs: load to release, bounding beside a plain group-by, memory, Spark beside DuckDB.

    python -m benchmarks.privacy_speed release --events 10000000 --people 1000000
    python -m benchmarks.privacy_speed bounding --events 10000000 --people 1000000
    python -m benchmarks.privacy_speed spark --events 1000000 --people 100000

Events are made by DuckDB, half of them by people chosen evenly and half by a heavy tail; 120 cohorts x 13 weeks make
1,560 cells. CPU is the time of this process and its threads; memory is the largest resident size. Load of the machine
inflates both CPU and wall time, so the load is printed, and `bounding` compares within one run.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from contracts.calendar import blocks, weeks_between
from privacy.load import PART_ROWS, EngineName, LoadSettings, load_people
from privacy.people import DuckEngine, People
from privacy.publish import exact_totals, exact_vectors
from privacy.room import FileSet, LedgerPaths, PeopleInputs, PrivacyPolicy, Question, plan_releases, publish_releases
from privacy.tally import homes

GEOS, WEEKS, CHANNELS, PIECE = 119, 13, 6, 10_000_000
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = b"a secret of thirty-two bytes, ok"
EVENTS = """
WITH drawn AS (
    SELECT i, hash(i, 1) / 18446744073709551616.0 AS u, hash(i, 2) % 2 AS even, hash(i, 3) AS h, hash(i, 4) AS g
    FROM range({first}, {last}) t(i)
), told AS (
    SELECT *, floor({people} * CASE WHEN even = 0 THEN u ELSE u * u * u END)::BIGINT AS person, h % 100 AS kind
    FROM drawn
)
SELECT 'e' || lpad(i::VARCHAR, 10, '0') AS event_id, 'u' || lpad(person::VARCHAR, 9, '0') AS user_id,
    make_timestamp(1704067200000000 + (g % (91::UBIGINT * 86400000000))::BIGINT) AS ts,
    CASE WHEN kind < 60 THEN 'impression' WHEN kind < 75 THEN 'click' WHEN kind < 90 THEN 'visit' ELSE 'conversion' END
        AS event,
    CASE WHEN kind < 90 THEN 'c' || (h // 100 % 6)::VARCHAR END AS channel,
    'g' || (hash(person, 9) % 119)::VARCHAR AS geo,
    CASE WHEN kind >= 90 THEN round(exp(3 + 2.4 * (g % 1000003 / 1000003.0 - 0.5)) * (1 + 9 * (g % 97 = 0)::INTEGER), 2)
        END AS value,
    CASE WHEN kind >= 90 THEN 'USD' END AS currency, hash(person, 9) // 1000 % 100 < 92 AS consent, h // 1000 % 200 > 0
        AS valid
FROM told
"""
PLAIN = "SELECT geo * 13 + week AS cell, count(*) FILTER (kind = 3), sum(micros) FROM events GROUP BY cell"
PLAIN_DISTINCT = PLAIN.replace("sum(micros)", "sum(micros), count(DISTINCT person)")
EVENTS_OF_HOMES = "SELECT person::INTEGER AS person, block, week, geo::SMALLINT AS geo, seq FROM events"


@contextmanager
def clock(name: str, events: int) -> Iterator[None]:
    """Prints CPU and wall time of a step."""
    cpu, wall = time.process_time(), time.perf_counter()
    yield
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(f"  {name:<44}{cpu:8.2f} CPU s{wall:9.2f} s{cpu / events * 1e6:8.3f} CPU s per million", flush=True)


def make_events(folder: Path, events: int, people: int) -> None:
    """Parquet files of at most ten million rows each."""
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, events, PIECE):
        path = folder / f"events-{first // PIECE:03}.parquet"
        if not path.exists():
            statement = EVENTS.format(first=first, last=min(events, first + PIECE), people=people)
            with duckdb.connect() as con:
                con.execute("SET preserve_insertion_order = false")
                con.execute(f"COPY ({statement}) TO '{path}' (FORMAT parquet, COMPRESSION zstd)")


def question() -> Question:
    """One quarter, 119 geos and 'other'."""
    weeks = weeks_between(date(2024, 1, 1), date(2024, 3, 25))
    geos, channels = tuple(f"g{i}" for i in range(GEOS)), tuple(f"c{i}" for i in range(CHANNELS))
    return Question(blocks(weeks), "monday", geos, channels)


def inputs_of(folder: Path) -> PeopleInputs:
    """The declared input."""
    return PeopleInputs(FileSet((folder,)), None, False, True, "UTC", "USD", {})


def make_homes(con: duckdb.DuckDBPyConnection) -> None:
    """The table `homes` of normalised `events`, as a load makes it."""
    columns = {n: np.asarray(c) for n, c in con.execute(EVENTS_OF_HOMES).fetchnumpy().items()}
    found = homes(columns, int(columns["person"].max()) + 1, 1)
    con.register("homes", pa.table({n: c.astype(np.int64) for n, c in found.items()}))


def release(folder: Path, events: int, part_rows: int) -> None:
    """Load to release of `kpi`, as `plumb release` does it, and the parts of it."""
    policy = PrivacyPolicy(shares={"kpi": 0.5})
    plans = plan_releases(question(), policy)
    marks: list[tuple[str, float]] = []

    def mark(text: str, done: int, total: int) -> None:
        marks.append((text, time.process_time()))

    with tempfile.TemporaryDirectory(dir=folder.parent) as name, clock("load to release of kpi", events):
        root = Path(name)
        publish_releases(
            plans, inputs_of(folder), policy, question(), ledger=LedgerPaths(root / "ledger.sqlite", root / "head"),
            releases_dir=root / "releases", raw_dir=root / "raw", secret=SECRET, run_id="benchmark", now=NOW,
            part_rows=part_rows, progress=mark,
        )  # fmt: skip
    for (text, begun), (_, ended) in pairwise(marks):
        print(f"    of which {text:<35}{ended - begun:8.2f} CPU s", flush=True)
    print(f"  largest resident size {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB", flush=True)


def bounding(folder: Path, events: int, part_rows: int) -> None:
    """Bounding of the three kpi vectors from normalised Parquet, and a plain group-by of the same files, in one run."""
    normal = folder.parent / "normalised"
    normal.mkdir(exist_ok=True)
    files = []
    settings = LoadSettings(NOW, folder.parent / "raw", SECRET, part_rows=part_rows)
    with load_people(inputs_of(folder), question(), settings) as crowd:
        for part, _ in enumerate(crowd.each()):
            files.append(normal / f"{part:04}.parquet")
            crowd.con.execute(f"COPY events TO '{files[-1]}' (FORMAT parquet, COMPRESSION zstd)")
    plan = plan_releases(question(), PrivacyPolicy(shares={"kpi": 0.5}))[0]
    policy = PrivacyPolicy(shares={"kpi": 0.5})
    figures = {}
    for turn in range(3):
        for name, statement in (("plain", PLAIN), ("plain with distinct people", PLAIN_DISTINCT)):
            with duckdb.connect() as con:
                con.execute(f"CREATE VIEW events AS FROM read_parquet('{normal}/*.parquet')")
                begun = time.process_time()
                con.execute(statement).fetchall()
                figures.setdefault(name, []).append(time.process_time() - begun)
        spent = 0.0
        for path in files:
            with duckdb.connect() as con:
                con.execute(f"CREATE VIEW events AS FROM '{path}'")
                begun = time.process_time()
                make_homes(con)
                exact_vectors(plan, People(DuckEngine(con), True), policy, question())
                spent += time.process_time() - begun
        figures.setdefault("bounded", []).append(spent)
        print(f"  turn {turn + 1}: " + ", ".join(f"{n} {v[-1]:.3f} CPU s" for n, v in figures.items()), flush=True)
    best = {name: min(values) for name, values in figures.items()}
    print(f"  bounded / plain: {best['bounded'] / best['plain']:.1f}, of {len(files)} partitions")
    print(f"  bounded / plain with distinct people: {best['bounded'] / best['plain with distinct people']:.1f}")


def spark(folder: Path, events: int, part_rows: int) -> None:
    """The same bits from both engines: kpi, journeys and diagnostics."""
    policy = PrivacyPolicy(shares={"kpi": 0.5, "journeys": 0.25, "diagnostics": 0.05})
    plans = plan_releases(question(), policy)
    found: dict[str, list[np.ndarray]] = {}
    engines: tuple[EngineName, EngineName] = ("duckdb", "spark")
    for engine in engines:
        settings = LoadSettings(NOW, folder.parent / "raw", SECRET, part_rows=part_rows, engine=engine)
        with clock(engine, events), load_people(inputs_of(folder), question(), settings) as crowd:
            found[engine] = [units for p in plans for units in exact_totals(p, crowd, policy, question()).values()]
    equal = all(a.dtype == b.dtype and (a == b).all() for a, b in zip(found["duckdb"], found["spark"], strict=True))
    cells = sum(len(a) for a in found["duckdb"])
    print(f"  {len(found['duckdb'])} vectors, {cells:,} cells: {'the same bits' if equal else 'DIFFERENT'}")
    if not equal:
        raise SystemExit(1)


def main() -> None:
    """Makes the events, runs one step, takes everything away."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m benchmarks.privacy_speed", description=__doc__, formatter_class=plain)
    parser.add_argument("step", choices=("release", "bounding", "spark"))
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--people", type=int, default=100_000)
    parser.add_argument("--part-rows", type=int, default=PART_ROWS)
    parser.add_argument("--folder", type=Path, help="keep the made events here, and use them again")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = (args.folder or Path(name)) / f"events-{args.events}-{args.people}"
        make_events(folder, args.events, args.people)
        print(f"{args.step}: {args.events:,} events, {args.people:,} people, load {os.getloadavg()[0]:.1f}", flush=True)
        {"release": release, "bounding": bounding, "spark": spark}[args.step](folder, args.events, args.part_rows)
        print(f"  load at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
