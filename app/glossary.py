"""Terms of the screens and their meaning; and the columns of the views, from the contract."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from contracts.tables import VIEWS


@dataclass(frozen=True, slots=True)
class Term:
    """One entry."""

    name: str
    text: str


TERMS = (
    Term(
        "adstock",
        "Carry-over: spend of one week goes on working in the weeks after it, less each week.",
    ),
    Term(
        "baseline",
        "What would have come without any marketing of the channels that are modelled.",
    ),
    Term(
        "calibrated",
        "The model whose likelihood holds the lift tests. Its figures are the published ones.",
    ),
    Term(
        "clipped mass",
        "What the bound on one person's contribution took away in all. Models scale back by it, as a stated "
        "assumption; from whom it was taken is never known.",
    ),
    Term(
        "cohort",
        "The geo (and segment) of a person's first event in a quarter. Figures are sums over cohorts.",
    ),
    Term(
        "conflict",
        "Two sources that cannot both be right within their errors. A conflict widens the pooled estimate and "
        "asks for a test; it is never averaged away.",
    ),
    Term(
        "consent",
        "Only people who agreed are counted. Scaling up to everybody is an assumption that is not made here.",
    ),
    Term(
        "credit",
        "Conversions assigned to the touches before them by a rule. It describes paths; it does not measure cause.",
    ),
    Term(
        "epsilon, delta",
        "The usual form of the privacy promise: with probability 1 − delta, no output is more than e^epsilon "
        "times as likely with a person's data as without.",
    ),
    Term(
        "evidence grade",
        "A: an own test carries most of the estimate. B: an own test carries part of it. C: model and credit "
        "only. D: sources conflict, or the model did not pass its gate.",
    ),
    Term(
        "factor (incrementality factor)",
        "Caused ÷ credited. Below 1 the credit model gives more than the channel caused. Not printed where the "
        "credit may be nothing but noise.",
    ),
    Term(
        "gate",
        "What a fit must pass to be published: chains agree (R-hat), enough effective draws, no divergences.",
    ),
    Term(
        "go-dark, heavy-up",
        "A geo test that stops a channel's spend, or raises it, in chosen geos.",
    ),
    Term(
        "incremental",
        "What happened because of the spend: the outcome minus what would have happened without it.",
    ),
    Term(
        "interval",
        "The 90 % interval runs from p05 to p95: the truth lies in it with probability 0.9 if model and "
        "assumptions hold. P10 and P90 bound the 80 % interval.",
    ),
    Term(
        "iROAS",
        "Incremental outcome (or revenue) per unit of spend that a test changed.",
    ),
    Term(
        "MMM",
        "Marketing-mix model: explains the KPI by spend, season, trend and controls, on aggregates.",
    ),
    Term(
        "mROI",
        "Return of the next unit of money, at today's spend. Budgets are moved by it, not by ROI.",
    ),
    Term(
        "noise",
        "Random numbers added before anybody sees a figure, so that no person can be made out. Its variance is "
        "known and is part of every interval.",
    ),
    Term(
        "pooled",
        "The estimate that joins tests, model and credit, each with its own errors and biases.",
    ),
    Term(
        "rho (zCDP)",
        "The privacy cost as it is added up: costs of several releases about one person's quarter are summed.",
    ),
    Term(
        "ROI",
        "Incremental revenue per unit of spend, over the whole period.",
    ),
    Term(
        "saturation",
        "The more is spent in a week, the less the next unit brings.",
    ),
    Term(
        "unattributed",
        "Conversions without a touch that counts. With them, every credit model adds up to one total.",
    ),
    Term(
        "uncalibrated",
        "The model without lift tests and without the weeks they ran in; only the reconciliation reads it.",
    ),
)


def found(query: str) -> tuple[Term, ...]:
    """Terms whose name or text holds the words asked for."""
    words = query.casefold().split()
    return tuple(t for t in TERMS if all(w in f"{t.name} {t.text}".casefold() for w in words))


def columns(query: str) -> pd.DataFrame:
    """Columns of the views whose name or meaning holds the words: view, column, unit, meaning."""
    words = query.casefold().split()
    return pd.DataFrame(
        [
            {"view": v.name, "column": c.name, "unit": c.unit or "–", "meaning": c.text}
            for v in VIEWS
            for c in v.columns
            if all(w in f"{v.name} {c.name} {c.text}".casefold() for w in words)
        ],
        columns=["view", "column", "unit", "meaning"],
    )
