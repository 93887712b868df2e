"""View models of Data & privacy: the budget by quarter, the noise of each table, what epsilon costs, consent.

Only pass or fail, and differentially private figures: nothing here counts people's rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from app.rows import each
from app.store import Snapshot
from app.wording import figure, percent

MEASURES = ("kpi", "journeys", "trials", "diagnostics", "media", "credit", "levels")


@dataclass(frozen=True, slots=True)
class Block:
    """One quarter's budget of one person, zCDP rho."""

    name: str
    spent: float
    cap: float


def blocks(s: Snapshot) -> tuple[Block, ...]:
    """Budget of each quarter, oldest first."""
    out = []
    for name, rows in s.charges.groupby("block", sort=True):
        out.append(Block(_quarter(str(name)), float(rows["rho"].sum()), float(rows["block_cap"].iloc[0])))
    return tuple(out)


def charges(s: Snapshot) -> pd.DataFrame:
    """Rows of the budget chart: block, measure, rho; block by block, and what is left as the measure 'left'."""
    spent = s.charges.groupby(["block", "measure"], sort=True)["rho"].sum().reset_index()
    left = s.charges.groupby("block", sort=True).agg(rho=("rho", "sum"), cap=("block_cap", "first")).reset_index()
    left = left.assign(measure="left", rho=np.maximum(left["cap"] - left["rho"], 0.0))[["block", "measure", "rho"]]
    return pd.concat([spent, left], ignore_index=True).assign(block=lambda f: f["block"].map(_quarter))


def noise(s: Snapshot) -> pd.DataFrame:
    """Noise of each released vector: newest release of each, with the bound of a person and the cost."""
    newest = s.releases.sort_values("period_start", kind="stable").drop_duplicates(["measure", "vector"], keep="last")
    order = {m: i for i, m in enumerate(MEASURES)}
    newest = newest.sort_values(["measure", "vector"], key=lambda c: c.map(lambda v: order.get(v, 99)) if c.name ==
                                "measure" else c)  # fmt: skip
    return pd.DataFrame(
        [
            {
                "table": r.measure,
                "figure": str(r.vector).replace("_", " "),
                "one person moves it by at most": figure(r.l2_bound),
                "noise of a cell (sd)": figure(r.sigma),
                "rho": figure(r.rho, 2),
                "epsilon of the release": f"{figure(r.epsilon, 2)} at delta {r.delta:g}",
                "quarter": _quarter(str(r.block)),
            }
            for r in each(newest)
        ]
    )


def what_epsilon_costs(s: Snapshot, measure: str, vector: str) -> pd.DataFrame:
    """Noise of a cell (sd) of one vector if the vector had other rho: rho, sd, now (bool).

    Gaussian zCDP: sd = C / sqrt(2 rho) (Bun and Steinke, 2016, proposition 6).
    """
    rows = s.releases[(s.releases["measure"] == measure) & (s.releases["vector"] == vector)]
    last = rows.sort_values("period_start").iloc[-1]
    now, bound = float(last["rho"]), float(last["l2_bound"])
    rates = sorted({*(r * now for r in (0.1, 0.25, 0.5, 2.0, 4.0, 10.0)), now})
    frame = pd.DataFrame({"rho": rates})
    return frame.assign(sd=bound / np.sqrt(2 * frame["rho"]), now=np.isclose(frame["rho"], now))


def vectors(s: Snapshot) -> tuple[tuple[str, str], ...]:
    """Released vectors, kpi first."""
    found = set(zip(s.releases["measure"], s.releases["vector"], strict=True))
    order = {m: i for i, m in enumerate(MEASURES)}
    return tuple(sorted(((str(m), str(v)) for m, v in found), key=lambda mv: (order.get(mv[0], 99), mv[1])))


def people(s: Snapshot) -> pd.DataFrame:
    """Differentially private figures about people and consent, one row a quarter: the texts of the diagnostics."""
    rows = s.checks[s.checks["check_name"].str.startswith("diagnostics ")]
    if rows.empty:
        return pd.DataFrame()
    wide = rows.assign(
        figure=rows["check_name"].str.removeprefix("diagnostics "), quarter=rows["subject"].map(_quarter)
    )
    table = wide.pivot_table(index="quarter", columns="figure", values="value", aggfunc="first")
    out = pd.DataFrame({"quarter": table.index})
    for name, text in (
        ("people", "people with events"), ("consenting", "of them consenting"), ("invalid_people", "with bot traffic"),
    ):  # fmt: skip
        if name in table:
            out[f"{text} (noisy)"] = [figure(v) for v in table[name]]
    if {"people", "consenting"} <= set(table):
        rate = (table["consenting"] / table["people"]).where(table["people"] > 0)
        out["consent rate"] = [percent(v) for v in rate]
    for column in (str(c) for c in table if str(c).startswith("clipped:")):
        out[f"clipped, {column.removeprefix('clipped:')} (noisy)"] = [figure(v) for v in table[column]]
    return out


def contract(s: Snapshot) -> pd.DataFrame:
    """Checks of the inputs: pass or fail and a sentence."""
    rows = s.checks[s.checks["check_name"].isin(("input_contract", "consent", "custody", "rejected"))]
    return pd.DataFrame(
        [{"input": r.subject, "verdict": r.status, "what": r.text} for r in each(rows)],
        columns=["input", "verdict", "what"],
    )


def sentence(s: Snapshot) -> str:
    """The budget in one sentence."""
    found = blocks(s)
    if not found:
        return ""
    fullest = max(found, key=lambda b: b.spent / b.cap)
    share = fullest.spent / fullest.cap
    return (
        f"Every person's quarter may cost rho {figure(fullest.cap, 2)}; the fullest of {len(found)} quarters, "
        f"{fullest.name}, has spent {percent(share)} of it. What is spent cannot be taken back, and quarters add up: "
        f"a person who is there all year may be touched by four of them."
    )


def _quarter(block: str) -> str:
    """'quarter-2024-01-01' as '2024-01-01'."""
    return block.removeprefix("quarter-")
