"""Credit of the rules that were worked out person by person before the release (measure `credit`).

Time decay, last non-direct and position rules with their own parameters and look-back window, which stand in the
release's metadata. Each rule × metric is a table of its own, channel by channel and 'unattributed', with its own noise;
one linear function of it is the credit. All are brought to the journeys' total of the same weeks (or, where there are
no journeys, to the mean of the rules' own totals) by the least squares of `attribution.statistics`, over 'unattributed'
too: a rule's own look-back window decides what it leaves without a channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attribution.statistics import Statistics, spread_gap
from attribution.tables import read_journeys, text_of
from attribution.totals import period_total
from contracts.errors import ContractError
from contracts.panel import UNATTRIBUTED
from contracts.release import Release

CLIPPED = "clipped:"


@dataclass(frozen=True, slots=True)
class RuleTable:
    """One rule × metric of a release: raw credit (K + 1,) and its noise variance; 'unattributed' last."""

    rule: str
    metric: str
    value: np.ndarray
    variance: np.ndarray


@dataclass(frozen=True, slots=True)
class RuleRelease:
    """Every rule of a release over the same channels."""

    channels: tuple[str, ...]
    tables: tuple[RuleTable, ...]


def read_rules(release: Release, channels: Sequence[str]) -> RuleRelease:
    """Arrays of one credit release. Raises ContractError for another measure, an undeclared channel, a missing row."""
    if release.measure != "credit":
        raise ContractError(f"release {release.release_id!r} holds {release.measure!r}; rules read 'credit'.")
    table = release.table[~release.table["vector"].astype(str).str.startswith(CLIPPED)]
    seen = set(text_of(table, "channel")) - {UNATTRIBUTED}
    unknown = sorted(seen - set(channels))
    if unknown:
        raise ContractError(
            f"credit release {release.release_id!r} tracks channel {unknown[0]!r}, which is not declared; add it to "
            "[channels] in plumb.toml."
        )
    tracked = tuple(c for c in channels if c in seen)
    found = []
    for _, rows in table.groupby("vector", sort=False):
        cells = dict(zip(text_of(rows, "channel"), zip(rows["value"], rows["variance"], strict=True), strict=True))
        missing = [c for c in (*tracked, UNATTRIBUTED) if c not in cells]
        if missing:
            raise ContractError(
                f"credit release {release.release_id!r} lacks {missing[0]!r} in one of its rules; release it again."
            )
        both = np.array([cells[c] for c in (*tracked, UNATTRIBUTED)], dtype=float)
        found.append(RuleTable(str(rows["model"].iloc[0]), str(rows["metric"].iloc[0]), both[:, 0], both[:, 1]))
    return RuleRelease(tracked, tuple(found))


def journeys_total(journeys: Sequence[Release], release: Release, metric: str, channels: Sequence[str]) -> (
    tuple[float, float] | None
):  # fmt: skip
    """Mean and variance of the journeys' total over the weeks of `release`; None where they do not cover it."""
    inside = [j for j in journeys if release.block_start <= j.block_start and j.block_end <= release.block_end]
    days = sum((j.block_end - j.block_start).days + 1 for j in inside)
    if days != (release.block_end - release.block_start).days + 1:
        return None
    tables = [read_journeys(j, channels) for j in inside]
    if metric == "revenue" and any(t.position_value is None for t in tables):
        return None
    sums = [period_total(t, value=metric == "revenue") for t in tables]
    return sum(m for m, _ in sums), sum(v for _, v in sums)


def rule_statistics(rules: RuleRelease, rule: str, metric: str, total: tuple[float, float] | None) -> Statistics:
    """Summaries for one rule and metric; `total` (mean, variance) is that of the journeys, or None.

    Raises ContractError when the release does not hold the rule.
    """
    same = [t for t in rules.tables if t.metric == metric]
    names = [t.rule for t in same]
    if rule not in names:
        raise ContractError(f"the credit release holds no rule {rule!r} of {metric}; it has {', '.join(names)}.")
    own, n = names.index(rule), len(rules.channels) + 1
    shared = same[own].variance
    weight = np.array([1 / max(float(t.variance.sum()), 1e-300) for t in same])
    weight /= weight.sum()
    if total is None:
        value, variance = np.concatenate([t.value for t in same]), np.concatenate([t.variance for t in same])
    else:
        value, variance = np.r_[same[own].value, total[0]], np.r_[shared, total[1]]

    def credit(v: np.ndarray) -> np.ndarray:
        if total is None:
            tables = v.reshape(*v.shape[:-1], len(same), n)
            raw, whole = tables[..., own, :], (tables.sum(axis=-1) @ weight)[..., None]
        else:
            raw, whole = v[..., :n], v[..., n:]
        return spread_gap(raw, shared, whole - raw.sum(axis=-1, keepdims=True))

    return Statistics(value, variance, credit, True)
