"""Simulated journeys, the exact tables made of them, and plain per-journey credit to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from contracts.release import Release

COLUMNS = ("vector", "source", "target", "channel", "position", "length", "channels", "outcome", "value", "variance")


@dataclass(frozen=True)
class Journey:
    path: tuple[str, ...]
    value: float | None  # currency when converted, None when not


def simulate(rng: np.random.Generator, channels: Sequence[str], n: int, longest: int = 5) -> list[Journey]:
    """A first-order chain with self-loops; some conversions have no touch at all."""
    k = len(channels)
    start = rng.dirichlet(np.ones(k))
    move = rng.dirichlet(np.full(k, 0.7), size=k)
    stop, win = rng.uniform(0.25, 0.5, k), rng.uniform(0.1, 0.5, k)
    out = []
    for _ in range(n):
        if rng.uniform() < 0.1:
            out.append(Journey((), round(float(rng.gamma(2, 20)), 2)))
            continue
        path = [int(rng.choice(k, p=start))]
        while rng.uniform() > stop[path[-1]] and len(path) < longest:
            path.append(int(rng.choice(k, p=move[path[-1]])))
        won = rng.uniform() < win[path[-1]]
        out.append(Journey(tuple(channels[i] for i in path), round(float(rng.gamma(2, 20)), 2) if won else None))
    return out


def _row(vector: str, value: float, **labels: object) -> dict[str, object]:
    blank: dict[str, object] = {"source": "", "target": "", "channel": "", "channels": "", "outcome": ""}
    return blank | {"position": 0, "length": 0, "vector": vector, "value": value, "variance": 0.0} | labels


def _flow_rows(journeys: Sequence[Journey], channels: Sequence[str]) -> list[dict[str, object]]:
    counts: dict[tuple[str, str], int] = {("start", "conversion"): 0} | {("start", c): 0 for c in channels}
    counts |= {(a, b): 0 for a in channels for b in (*channels, "conversion", "null")}
    for j in journeys:
        steps = ("start", *j.path, "conversion" if j.value is not None else "null")
        for pair in zip(steps[:-1], steps[1:], strict=True):
            counts[pair] += 1
    return [_row("flow", n, source=a, target=b) for (a, b), n in counts.items()]


def _position_rows(journeys: Sequence[Journey], channels: Sequence[str], longest: int) -> list[dict[str, object]]:
    keys = [("", 0, 0)] + [(c, p, n) for c in channels for n in range(1, longest + 1) for p in range(1, n + 1)]
    counts, sums = dict.fromkeys(keys, 0), dict.fromkeys(keys, 0.0)
    for j in journeys:
        if j.value is None:
            continue
        touches = [(c, i + 1, len(j.path)) for i, c in enumerate(j.path)] or [("", 0, 0)]
        for key in touches:
            counts[key] += 1
            sums[key] += j.value
    return [
        _row(vector, float(cells[key]), channel=key[0], position=key[1], length=key[2])
        for vector, cells in (("position", counts), ("position_value", sums))
        for key in keys
    ]


def _set_rows(journeys: Sequence[Journey], channels: Sequence[str], by_size: bool) -> list[dict[str, object]]:
    won = [j for j in journeys if j.value is not None]
    rows = [_row("sets", float(sum(not j.path for j in won)), outcome="conversion")]
    sets: dict[tuple[str, int, str], float] = {}
    for j in journeys:
        members = [c for c in channels if c in j.path]
        outcome = "conversion" if j.value is not None else "null"
        keys = [(c, len(members), outcome) for c in members] if by_size else [("+".join(members), 0, outcome)]
        for key in keys if members else ():
            sets[key] = sets.get(key, 0.0) + 1
    name = "channel" if by_size else "channels"
    return rows + [_row("sets", v, **{name: c, "length": n, "outcome": o}) for (c, n, o), v in sets.items()]


def exact_table(
    journeys: Sequence[Journey], channels: Sequence[str], longest: int = 5, by_size: bool = False
) -> pd.DataFrame:
    """The journeys table without noise, in the released format. `by_size`: sets as above ten channels."""
    rows = _flow_rows(journeys, channels) + _position_rows(journeys, channels, longest)
    return pd.DataFrame(rows + _set_rows(journeys, channels, by_size), columns=list(COLUMNS))


def with_noise(table: pd.DataFrame, sd: dict[str, float], rng: np.random.Generator) -> pd.DataFrame:
    """The same table as released: Gaussian noise of known sd per vector."""
    out = table.copy()
    spread = out["vector"].map(sd).to_numpy(float)
    out["value"] += spread * rng.standard_normal(len(out))
    out["variance"] = spread**2
    return out


def release_of(table: pd.DataFrame, block: str = "quarter-2024-01-01", measure: str = "journeys") -> Release:
    start = date.fromisoformat(block.removeprefix("quarter-"))
    return Release(
        release_id=f"{measure}-{block}",
        measure=measure,  # type: ignore[arg-type]
        block=block,
        block_start=start,
        block_end=date(start.year, start.month + 2, 28),
        table=table,
        vectors=(),
        rho=0.05,
        epsilon=1.0,
        delta=1e-6,
        metadata={},
    )


def plain_credit(journeys: Sequence[Journey], channels: Sequence[str], rule: str, metric: str) -> dict[str, float]:
    """Credit journey by journey, the slow way."""
    out = dict.fromkeys((*channels, "unattributed"), 0.0)
    for j in journeys:
        if j.value is None:
            continue
        amount = 1.0 if metric == "conversions" else j.value
        if not j.path:
            out["unattributed"] += amount
        elif rule == "last_touch":
            out[j.path[-1]] += amount
        elif rule == "first_touch":
            out[j.path[0]] += amount
        else:
            for c in j.path:
                out[c] += amount / len(j.path)
    return out
