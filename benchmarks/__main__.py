"""`make bench`: where the time of a run goes, and what the privacy of a release costs beside a plain group-by.

Ratios are of one run on one machine; times depend on the machine. Everything is made in a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import duckdb

from simulate.world import simulate
from workflow.artifacts import all_of
from workflow.init import initialise
from workflow.job import Job
from workflow.runner import ORDER, run

PLAIN = """
SELECT geo, date_trunc('week', ts) AS week, count(*) FILTER (event = 'conversion') AS conversions,
       sum(value) AS revenue, count(DISTINCT user_id) AS active_users
FROM read_parquet(?) GROUP BY ALL
"""
JOURNEYS = """
SELECT previous, channel, count(*) FROM (
    SELECT channel, lag(channel) OVER (PARTITION BY user_id ORDER BY ts) AS previous FROM read_parquet(?)
) GROUP BY ALL
"""


def plain_seconds(events: Path, repeats: int = 3) -> float:
    """Best time of the same questions asked of the raw rows, without bounding, consent, budget or noise."""
    best = float("inf")
    for _ in range(repeats):
        with duckdb.connect() as connection:
            begun = time.perf_counter()
            connection.execute(PLAIN, [str(events)]).fetchall()
            connection.execute(JOURNEYS, [str(events)]).fetchall()
            best = min(best, time.perf_counter() - begun)
    return best


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--people", type=int, default=20_000)
    parser.add_argument("--geos", type=int, default=6)
    parser.add_argument("--weeks", type=int, default=52)
    sizes = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CONFIG_HOME"] = f"{name}/config"
        root = Path(name) / "world"
        simulate(root, people=sizes.people, geos=sizes.geos, weeks=sizes.weeks, seed=1)
        initialise(root)
        run(Job.open(root, quiet=True))
        with duckdb.connect() as connection:
            counted = connection.execute(
                "SELECT count(*) FROM read_parquet(?)", [str(root / "events.parquet")]
            ).fetchone()
        rows = int(counted[0]) if counted else 0
        print(
            f"{sizes.people:,} people, {rows:,} events, {sizes.geos} geos, {sizes.weeks} weeks, {os.cpu_count()} cores"
        )
        seconds = {step: sum(a.seconds for a in all_of(root / ".plumb" / "runs", step)) for step in ORDER}
        for step, spent in seconds.items():
            print(f"  {step:<18}{spent:8.1f} s")
        plain = plain_seconds(root / "events.parquet")
        print(f"  plain group-by    {plain:8.2f} s")
        print(f"release ÷ plain group-by of the same questions: {seconds['release'] / plain:.0f}")


if __name__ == "__main__":
    main()
