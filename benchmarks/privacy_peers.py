"""PipelineDP (local) and OpenDP's Context beside the privacy room, on the same events, in environments of their own.

    python -m benchmarks.privacy_peers --events 1000000 --people 100000

The peers are never dependencies of this project: their environments are made in a temporary folder by uv (or venv and
pip), which needs a package index, and are deleted afterwards. All count conversions and sum revenue by cohort and week
with public keys, at most 4 cells a person; ours is the bounding of the same two vectors from the same normalised file.
CPU is that of the process that bounds and adds noise, without reading the file and without start-up.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb

from benchmarks.privacy_speed import NOW, PLAIN, SECRET, inputs_of, make_events, make_homes, question
from privacy.load import LoadSettings, load_people
from privacy.mechanism import add_noise
from privacy.people import DuckEngine, People
from privacy.publish import exact_vectors
from privacy.room import Bound, PrivacyPolicy, plan_releases

CELLS = 1560
PIPELINE = """
import json, sys, time
import pipeline_dp, pyarrow.parquet as pq
rows = [tuple(r.values()) for r in pq.read_table(sys.argv[1]).to_pylist()]
begun, wall = time.process_time(), time.perf_counter()
budget = pipeline_dp.NaiveBudgetAccountant(total_epsilon=1, total_delta=1e-6)
engine = pipeline_dp.DPEngine(budget, pipeline_dp.LocalBackend())
params = pipeline_dp.AggregateParams(
    metrics=[pipeline_dp.Metrics.COUNT, pipeline_dp.Metrics.SUM], noise_kind=pipeline_dp.NoiseKind.GAUSSIAN,
    max_partitions_contributed=4, max_contributions_per_partition=2, min_value=0, max_value=200)
take = pipeline_dp.DataExtractors(
    privacy_id_extractor=lambda r: r[0], partition_extractor=lambda r: r[1], value_extractor=lambda r: r[2])
found = engine.aggregate(rows, params, take, public_partitions=list(range(CELLS)))
budget.compute_budgets()
cells = len(list(found))
print(json.dumps({"cells": cells, "cpu": time.process_time() - begun, "wall": time.perf_counter() - wall}))
""".replace("CELLS", str(CELLS))
OPENDP = """
import json, sys, time
import opendp.prelude as dp, polars as pl
dp.enable_features("contrib", "honest-but-curious")
frame = pl.read_parquet(sys.argv[1])
begun, wall = time.process_time(), time.perf_counter()
context = dp.Context.compositor(
    data=frame.lazy(), privacy_unit=dp.unit_of(contributions=8), privacy_loss=dp.loss_of(rho=0.2),
    split_evenly_over=1, margins=[dp.polars.Margin(max_length=len(frame), max_groups=2000)])
keys = pl.DataFrame({"cell": list(range(CELLS))}, schema={"cell": pl.Int64}).lazy()
value = pl.col("value").fill_null(0.0).fill_nan(0.0)
query = context.query().group_by("cell").agg(dp.len(), value.dp.sum((0.0, 200.0)))
cells = query.with_keys(keys).release().collect().height
print(json.dumps({"cells": cells, "cpu": time.process_time() - begun, "wall": time.perf_counter() - wall}))
""".replace("CELLS", str(CELLS))
PEERS = {
    "PipelineDP, local": (PIPELINE, ["pipeline-dp==0.3.1"]),
    "OpenDP Context": (OPENDP, ["opendp[polars]==0.16.0"]),
}


def environment(folder: Path, packages: list[str]) -> Path:
    """A Python with the packages of one peer."""
    python = folder / "bin" / "python"
    uv = shutil.which("uv")
    if uv:
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), "pyarrow", *packages], check=True)
    else:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "pyarrow", *packages], check=True)
    return python


def ours(folder: Path, target: Path) -> None:
    """Writes the normalised rows for the peers, then bounds and adds noise to both vectors."""
    shares = {"conversions": Bound(4, 0.5), "revenue": Bound(400, 0.5)}
    policy = PrivacyPolicy(rho_per_user_quarter=0.2, shares={"kpi": 1.0}, kpi=shares)
    (plan,) = plan_releases(question(), policy)
    settings = LoadSettings(NOW, folder.parent / "raw", SECRET, part_rows=10**9)
    with load_people(inputs_of(folder), question(), settings) as crowd:
        crowd.con.execute(f"COPY events TO '{target}/events.parquet' (FORMAT parquet)")
        rows = "SELECT person, geo * 13 + week AS cell, micros / 1e6 AS value FROM events WHERE kind = 3"
        crowd.con.execute(f"COPY ({rows}) TO '{target}/rows.parquet' (FORMAT parquet)")
    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE events AS FROM '{target}/events.parquet'")
        begun = time.process_time()
        con.execute(PLAIN).fetchall()
        report("plain group-by", time.process_time() - begun, 0.0)
        begun, wall = time.process_time(), time.perf_counter()
        make_homes(con)
        exact = exact_vectors(plan, People(DuckEngine(con), True), policy, question())
        for v in plan.vectors:
            add_noise(exact[v.name], v.sigma_units)
        report("ours", time.process_time() - begun, time.perf_counter() - wall)


def report(name: str, cpu: float, wall: float) -> None:
    """One line of the table."""
    print(f"  {name:<20}{cpu:9.2f} CPU s{wall:9.2f} s", flush=True)


def main() -> None:
    """Prints the table."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m benchmarks.privacy_peers", description=__doc__, formatter_class=plain)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--people", type=int, default=100_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make_events(root / "events", args.events, args.people)
        print(f"{args.events:,} events, {args.people:,} people, {CELLS:,} cells, load {os.getloadavg()[0]:.1f}")
        ours(root / "events", root)
        for number, (peer, (script, packages)) in enumerate(PEERS.items()):
            python = environment(root / f"peer-{number}", packages)
            run = subprocess.run([str(python), "-W", "ignore", "-c", script, str(root / "rows.parquet")],
                                 capture_output=True, text=True, check=False)  # fmt: skip
            if run.returncode:
                print(f"  {peer}: {run.stderr.strip().splitlines()[-1]}", flush=True)
                continue
            found = json.loads(run.stdout.strip().splitlines()[-1])
            report(peer, found["cpu"], found["wall"])


if __name__ == "__main__":
    main()
