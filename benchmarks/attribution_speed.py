"""Exact Markov credit of enumerated journeys beside ChannelAttribution, on the same paths in one run.

ChannelAttribution is GPL-3 and no dependency of ours: this makes an environment of its own in a temporary folder, puts
the package there (with matplotlib, which its wheel needs and does not name) and talks to it through files. Truth is the
closed form by a dense inverse at order 1, and at order 2 the engine's own equations solved channel by channel by a
sparse LU of another library for a sample of channels.

    python -m benchmarks.attribution_speed --channels 100 --journeys 200000 --order 2
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.linalg import splu

from attribution.paths import Chain, Paths, chain_of, read_paths, removal_effects

PEER = """
import json, sys, time
import pandas as pd
import ChannelAttribution as ca
paths, order, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
data = pd.read_csv(paths)
begun = time.perf_counter()
found = ca.markov_model(data, "path", "conversions", var_null="others", order=order, verbose=False, flg_pro=False)
seconds = time.perf_counter() - begun
found = found.rename(columns={found.columns[0]: "channel", found.columns[1]: "credit"})
json.dump({"seconds": seconds, "credit": dict(zip(found["channel"], found["credit"]))}, open(out, "w"))
"""


def simulate(channels: int, journeys: int, seed: int) -> pd.DataFrame:
    """Journeys of a first-order chain with two to three touches on average, at most 20; 16 % convert."""
    rng = np.random.default_rng(seed)
    length = np.minimum(rng.geometric(0.38, journeys), 20)
    move = rng.dirichlet(np.full(channels, 0.3), size=channels).cumsum(axis=1)
    first = rng.dirichlet(np.ones(channels)).cumsum()
    names = np.array([f"c{i:03d}" for i in range(channels)])
    at = np.minimum(np.searchsorted(first, rng.random(journeys)), channels - 1)
    text = pd.Series(names[at], dtype=object)
    alive = np.arange(journeys)
    for step in range(1, int(length.max())):
        alive = alive[length[alive] > step]
        drawn = rng.random(len(alive))
        at[alive] = np.minimum((move[at[alive]] < drawn[:, None]).sum(axis=1), channels - 1)
        text.iloc[alive] = text.iloc[alive].to_numpy() + " > " + names[at[alive]]
    won = (rng.random(journeys) < 0.16).astype(int)
    frame = pd.DataFrame({"path": text, "conversions": won, "others": 1 - won})
    return frame.groupby("path", as_index=False, sort=True).sum()


def peer(frame: pd.DataFrame, order: int, folder: Path, python: Path) -> tuple[float, dict[str, float]]:
    """Seconds and credit of ChannelAttribution with its default settings."""
    frame.to_csv(folder / "paths.csv", index=False)
    (folder / "peer.py").write_text(PEER, encoding="utf-8")
    answer = folder / "answer.json"
    command = [str(python), str(folder / "peer.py"), str(folder / "paths.csv"), str(order), str(answer)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"MPLBACKEND": "Agg"})
    found = json.loads(answer.read_text(encoding="utf-8"))
    return float(found["seconds"]), {str(k): float(v) for k, v in found["credit"].items()}


def environment(folder: Path, version: str) -> Path:
    """A Python with ChannelAttribution in `folder`."""
    subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
    python = folder / "env" / "bin" / "python"
    packages = [f"ChannelAttribution=={version}", "matplotlib", "setuptools"]
    subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
    return python


def ours(frame: pd.DataFrame, order: int) -> tuple[float, Paths, Chain, np.ndarray]:
    """Seconds from text to removal effects, and what came out."""
    begun = time.perf_counter()
    paths = read_paths(frame["path"].tolist(), frame["conversions"].to_numpy(), frame["others"].to_numpy())
    chain = chain_of(paths, order)
    effects = removal_effects(chain, len(paths.channels))
    return time.perf_counter() - begun, paths, chain, effects


def by_elimination(chain: Chain, channels: np.ndarray) -> np.ndarray:
    """Removal effects of some channels, one sparse LU each: no iteration, no shared code with the engine's solver."""
    size = len(chain.newest)

    def wins(keep: np.ndarray) -> float:
        move = sparse.diags_array(keep) @ chain.move
        solved = splu(sparse.csc_matrix(sparse.eye_array(size) - move)).solve(chain.win * keep)
        return float(chain.start @ solved)

    whole = wins(np.ones(size))
    return np.array([1 - wins((chain.newest != c).astype(float)) / whole for c in channels])


def main() -> None:
    """Prints one line of figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attribution_speed", description=__doc__)
    parser.add_argument("--channels", type=int, default=100)
    parser.add_argument("--journeys", type=int, default=200_000)
    parser.add_argument("--order", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--checked", type=int, default=8, help="channels checked by elimination")
    parser.add_argument("--peer", default="2.2.5", help="version of ChannelAttribution; empty: leave it out")
    parser.add_argument("--python", default="", help="a Python that has ChannelAttribution already")
    options = parser.parse_args()
    frame = simulate(options.channels, options.journeys, options.seed)
    seconds, paths, chain, effects = ours(frame, options.order)
    share = effects / effects.sum()
    print(f"{len(frame):,} distinct paths, {len(chain.newest):,} states, {chain.move.nnz:,} transitions")
    print(f"ours: {seconds:.2f} s")
    chosen = np.linspace(0, len(paths.channels) - 1, min(options.checked, len(paths.channels))).astype(int)
    error = np.abs(by_elimination(chain, chosen) - effects[chosen]).max()
    print(f"largest difference from elimination, {len(chosen)} channels: {error:.1e}")
    if not options.peer:
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = Path(options.python) if options.python else environment(folder, options.peer)
        taken, credit = peer(frame, options.order, folder, python)
    theirs = np.array([credit[c] for c in paths.channels])
    off = np.abs(theirs / theirs.sum() / share - 1)
    print(
        f"ChannelAttribution {options.peer}: {taken:.1f} s, {taken / seconds:.0f} times ours; "
        f"off by at most {off.max():.1%}, median {np.median(off):.1%}"
    )


if __name__ == "__main__":
    main()
