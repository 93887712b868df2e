"""Conversions that platforms claim for themselves, as one more credit model ('platform_claimed'), exact figures.

A claim is a row of a platform's export over some days. Platforms restate their figures for weeks, so a claim has an
as-of date, and the newest one counts. Days of a claim are taken as equal: a row that reaches over the edge of a period
gives it the part of its days that lie inside. 'unattributed' is the period's total minus all claims: below zero where
the platforms together claim more than was sold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
import pandas as pd

from contracts.errors import ContractError
from contracts.evidence import Credit
from contracts.intervals import normal_interval
from contracts.panel import UNATTRIBUTED

MODEL = "platform_claimed"
KEY = ["platform", "channel", "campaign", "geo"]
METRICS = ("conversions", "revenue")
COLUMNS = (*KEY, "start", "end", "conversions", "revenue", "spend", "as_of")

Span = tuple[date, date]  # first and last day, inclusive


def newest(claims: pd.DataFrame, as_of: date | None = None) -> pd.DataFrame:
    """The claims as known on `as_of` (default: now): of each key and span the row with the latest as-of date.

    Raises ContractError where two rows of one key overlap without being the same span, or have the same as-of date:
    both would count. Rows without an as-of date are older than all others.
    """
    dated = claims.assign(known=[date.min if pd.isna(v) else v for v in claims["as_of"]])
    if as_of is not None:
        dated = dated[dated["known"] <= as_of]
    dated = dated.sort_values([*KEY, "start", "end", "known"], ignore_index=True)
    twice = dated.duplicated([*KEY, "start", "end", "known"])
    if twice.any():
        raise ContractError(
            f"platform claims of {_shown(dated[twice].iloc[0])} stand twice; keep one row, or say in a column as_of "
            "when each was exported."
        )
    kept = dated.drop_duplicates([*KEY, "start", "end"], keep="last").drop(columns="known").reset_index(drop=True)
    before = kept.groupby(KEY)["end"].shift()
    overlaps = np.array([not pd.isna(b) and s <= b for s, b in zip(kept["start"], before, strict=True)], dtype=bool)
    if overlaps.any():
        raise ContractError(
            f"platform claims of {_shown(kept[overlaps].iloc[0])} overlap with another row of the same platform, "
            "channel, campaign and geo; export the same spans of days each time."
        )
    return kept


def _shown(row: pd.Series) -> str:
    names = "/".join(str(row[k]) for k in KEY if row[k])
    return f"{names} for {row['start']} to {row['end']}"


def covered(claims: pd.DataFrame, period: Span) -> bool:
    """Whether every platform's export reaches over the whole period."""
    if claims.empty:
        return False
    reach = claims.groupby("platform").agg(first=("start", "min"), last=("end", "max"))
    return bool((reach["first"] <= period[0]).all() and (reach["last"] >= period[1]).all())


def within(claims: pd.DataFrame, period: Span, by: Sequence[str]) -> pd.DataFrame:
    """Sums of conversions, revenue and spend by `by` over the days of the period; NaN where none was given."""
    first, last = period
    inside = [
        max((min(e, last) - max(s, first)).days + 1, 0) for s, e in zip(claims["start"], claims["end"], strict=True)
    ]
    length = [(e - s).days + 1 for s, e in zip(claims["start"], claims["end"], strict=True)]
    part = np.array(inside, dtype=float) / np.array(length, dtype=float)
    out = claims[list(by)].copy()
    for name in ("conversions", "revenue", "spend"):
        out[name] = claims[name].to_numpy(float) * part
    return out[part > 0].groupby(list(by), as_index=False, sort=True).sum(min_count=1)


def claimed_credits(
    claims: pd.DataFrame,
    totals: Mapping[tuple[str, Span], tuple[float, float]],
    evidence_id: str,
    as_of: date | None = None,
) -> tuple[Credit, ...]:
    """Claimed credit by channel, and what is left of the total as 'unattributed'.

    `totals` gives mean and sd of (metric, period). Claims are exact (sd 0); the remainder has the sd of the total.
    Periods that some platform's export does not cover are left out, as are metrics that no platform gives.
    """
    known = newest(claims, as_of)
    out: list[Credit] = []
    for (metric, period), (total, sd) in totals.items():
        if metric not in METRICS:
            raise ContractError(f"platform claims are of conversions and revenue; got {metric!r}.")
        if not covered(known, period):
            continue
        sums = within(known, period, ["channel"]).set_index("channel")[metric].dropna()
        if sums.empty:
            continue
        rows = [(str(c), float(v), 0.0) for c, v in sums.items()]
        rows.append((UNATTRIBUTED, total - float(sums.sum()), sd))
        out += [
            Credit(
                model=MODEL, channel=channel, metric="revenue" if metric == "revenue" else "conversions",
                period_start=period[0], period_end=period[1], evidence_ids=(evidence_id,), **normal_interval(mean, s),
            )
            for channel, mean, s in rows
        ]  # fmt: skip
    return tuple(out)


def restated(claims: pd.DataFrame, period: Span, metric: str) -> pd.DataFrame:
    """The period's claimed total per platform as each as-of date saw it: platform, as_of, value. Only covered ones."""
    rows = []
    for as_of in sorted({v for v in claims["as_of"] if not pd.isna(v)}):
        known = newest(claims, as_of)
        for platform, mine in known.groupby("platform"):
            if covered(mine, period):
                value = float(within(mine, period, ["platform"])[metric].sum())
                rows.append({"platform": str(platform), "as_of": as_of, "value": value})
    return pd.DataFrame(rows, columns=["platform", "as_of", "value"])
