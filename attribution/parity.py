"""Parity: do credit models agree with each other, with the books, with the version before, and over time?

Every finding is one `Finding`. Only `change` is a statistical test; the others state a distance.

**Change over time.** Between consecutive periods p, q of one model and metric, d = s_q − s_p is the change of the
shares (K,), V = V_p + V_q its covariance from the released noise (independent releases). Per channel z = d / sqrt(V),
its two-sided p-value times K (Bonferroni). For all channels together Q = d' V⁺ d is χ² with K − 1 degrees of freedom.
A share counts as moved where that p-value lies under `ALPHA` = 1 %: of stable worlds, one in a hundred model × metric ×
pair of periods shows a channel that moved (false-alarm rate of the family of channels), and one in a hundred shows
'all'. The null hypothesis is that the *bounded, noise-free* shares are equal: a move that the noise does not explain is
a fact about who was counted, which may still be chance in who bought.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import combinations, groupby, pairwise
from typing import Any, Protocol

import numpy as np
from scipy import stats

from attribution.credit import Estimate
from contracts.evidence import Credit
from contracts.panel import UNATTRIBUTED

ALPHA = 0.01
APART = 0.1  # share of the credit that two models give to different channels, above which they are said to differ
LEDGER = 0.01  # share by which a total may miss the books


@dataclass(frozen=True, slots=True)
class Finding:
    """One comparison. `sd`, `z` and `p_value` are NaN where the figure is no test."""

    kind: str  # 'models', 'change', 'versions', 'total' or 'claims'
    subject: str  # model, or what was summed
    other: str  # what it was compared with
    channel: str  # '' for all channels together
    metric: str
    period_start: date
    period_end: date
    value: float
    sd: float
    z: float
    p_value: float
    threshold: float
    status: str  # 'pass' or 'warn'
    text: str


class Restated(Protocol):
    """A claimed total as one export saw it."""

    @property
    def as_of(self) -> Any: ...
    @property
    def value(self) -> Any: ...


def _finding(
    kind: str, subject: str, other: str, metric: str, period: tuple[date, date], value: float, threshold: float,
    warn: bool, text: str, channel: str = "", sd: float = np.nan, z: float = np.nan, p: float = np.nan,
) -> Finding:  # fmt: skip
    status = "warn" if warn else "pass"
    return Finding(kind, subject, other, channel, metric, *period, float(value), sd, z, p, threshold, status, text)


def _period(estimate: Estimate) -> tuple[date, date]:
    return estimate.release.block_start, estimate.release.block_end


def _over(shares: np.ndarray, channels: Sequence[str], union: Sequence[str]) -> np.ndarray:
    """Shares laid out over the union of channels, 0 where a model has none."""
    at = {c: i for i, c in enumerate(channels)}
    return np.array([shares[at[c]] if c in at else 0.0 for c in union])


def agreement(found: Sequence[Estimate]) -> list[Finding]:
    """Total variation between the shares of each pair of models of one period and metric."""
    out = []
    for (metric, period), same in _grouped(found, lambda e: (e.metric, _period(e))):
        for a, b in combinations(same, 2):
            union = sorted({*a.channels, *b.channels})
            gap = _over(a.shares()[0], a.channels, union) - _over(b.shares()[0], b.channels, union)
            apart = float(np.abs(gap).sum() / 2)
            most = union[int(np.argmax(np.abs(gap)))]
            text = f"{a.model} and {b.model} give {apart:.0%} of the credit to different channels, most to {most}"
            out.append(_finding("models", a.model, b.model, metric, period, apart, APART, apart > APART, text))
    return out


def _grouped(found: Iterable[Estimate], key):  # type: ignore[no-untyped-def]
    return [(k, list(g)) for k, g in groupby(sorted(found, key=key), key=key)]


def change(found: Sequence[Estimate]) -> list[Finding]:
    """Change of shares between consecutive periods of each model and metric, tested against the released noise."""
    out = []
    for (model, metric), same in _grouped(found, lambda e: (e.model, e.metric)):
        for before, after in pairwise(sorted(same, key=lambda e: e.release.block_start)):
            if before.channels == after.channels and len(after.channels) > 1:
                out += _moved(model, metric, before, after)
    return out


def _moved(model: str, metric: str, before: Estimate, after: Estimate) -> list[Finding]:
    (s, v), (t, w) = before.shares(), after.shares()
    d, covariance = t - s, v + w
    sd, k = np.sqrt(np.maximum(np.diag(covariance), 0.0)), len(d)
    period, other = _period(after), f"{before.release.block_start} to {before.release.block_end}"
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(sd > 0, d / sd, np.where(d == 0, 0.0, np.copysign(np.inf, d)))
    single = np.minimum(1.0, k * 2 * stats.norm.sf(np.abs(z)))
    out = []
    for i, channel in enumerate(after.channels):
        text = (
            f"{model}: the share of {channel} went from {s[i]:.1%} to {t[i]:.1%}, {abs(z[i]):.1f} sd of the released "
            f"noise (p = {single[i]:.2g} after {k} comparisons)"
        )
        out.append(
            _finding("change", model, other, metric, period, d[i], ALPHA, bool(single[i] < ALPHA), text, channel,
                     float(sd[i]), float(z[i]), float(single[i]))
        )  # fmt: skip
    # shares sum to 1, so V has rank K − 1; the pseudo-inverse leaves that direction out
    q = float(d @ np.linalg.pinv(covariance, rcond=1e-9, hermitian=True) @ d)
    p = float(stats.chi2.sf(q, k - 1)) if sd.any() else float(np.allclose(d, 0.0))
    text = f"{model}: all shares against the period before, chi-square {q:.1f} on {k - 1} degrees (p = {p:.2g})"
    apart = float(np.abs(d).sum() / 2)
    out.append(_finding("change", model, other, metric, period, apart, ALPHA, p < ALPHA, text, z=q, p=p))
    return out


def versions(now: Sequence[Credit], before: Sequence[Credit]) -> list[Finding]:
    """How far each model's credit of a period moved since the version published before, as a share of its total.

    Rows of the same releases differ only by code, parameters or restated claims, so any move is worth a look; where
    the releases differ, the noise of both is in `sd`.
    """
    old = {(c.model, c.metric, c.period_start, c.period_end, c.channel): c for c in before}
    out = []
    key = lambda c: (c.model, c.metric, c.period_start, c.period_end)  # noqa: E731
    for (model, metric, start, end), rows in groupby(sorted(now, key=key), key=key):
        pairs = [(c, old.get((model, metric, start, end, c.channel))) for c in rows]
        shared = [(c, o) for c, o in pairs if o is not None]
        if not shared:
            continue
        whole = sum(abs(c.mean) for c, _ in shared) or 1.0
        apart = sum(abs(c.mean - o.mean) for c, o in shared) / 2 / whole
        same = all(c.evidence_ids == o.evidence_ids for c, o in shared)
        sd = 0.0 if same else float(np.sqrt(sum(c.sd**2 + o.sd**2 for c, o in shared))) / 2 / whole
        text = f"{model}: {apart:.1%} of the credit moved since the version before" + (
            "" if same else "; the releases behind it differ"
        )
        out.append(
            _finding("versions", model, "version before", metric, (start, end), apart, LEDGER, apart > LEDGER + 3 * sd,
                     text, sd=sd)
        )  # fmt: skip
    return out


def totals(
    found: Mapping[tuple[str, tuple[date, date]], tuple[float, float]],
    books: Mapping[tuple[str, tuple[date, date]], float],
    subject: str,
    other: str,
) -> list[Finding]:
    """A released total (mean, sd) against an exact one of the books: relative gap, warned above 1 % and 3 sd."""
    out = []
    for (metric, period), (mean, sd) in sorted(found.items()):
        if (metric, period) not in books or books[metric, period] == 0:
            continue
        book = books[metric, period]
        gap, spread = (mean - book) / book, sd / abs(book)
        z = gap / spread if spread > 0 else 0.0 if gap == 0 else float(np.copysign(np.inf, gap))
        text = f"{subject} of {metric} are {mean / book:.1%} of {other}, {abs(z):.1f} sd of the released noise away"
        warn = abs(gap) > LEDGER and abs(z) > 3
        out.append(_finding("total", subject, other, metric, period, gap, LEDGER, warn, text, sd=spread, z=z))
    return out


def over_claimed(found: Sequence[Credit], model: str) -> list[Finding]:
    """Claims of all platforms as a share of the period's total; a warning above 100 %."""
    out = []
    key = lambda c: (c.metric, c.period_start, c.period_end)  # noqa: E731
    mine = sorted((c for c in found if c.model == model), key=key)
    for (metric, start, end), rows in groupby(mine, key=key):
        credit = {c.channel: c for c in rows}
        claimed = sum(c.mean for n, c in credit.items() if n != UNATTRIBUTED)
        total = claimed + credit[UNATTRIBUTED].mean
        if total <= 0:
            continue
        ratio, sd = claimed / total, credit[UNATTRIBUTED].sd * claimed / total**2
        text = f"platforms claim {ratio:.0%} of all {metric}"
        warn = ratio > 1
        out.append(_finding("claims", model, "total", metric, (start, end), ratio, 1.0, warn, text, sd=float(sd)))
    return out


def restatement(platform: str, metric: str, period: tuple[date, date], before: Restated, after: Restated) -> Finding:
    """How far a platform moved its own claim for a period between two exports, as a share of the first."""
    moved = (after.value - before.value) / before.value if before.value else float(after.value != 0)
    text = f"{platform} restated its {metric} by {moved:+.1%} between {before.as_of} and {after.as_of}"
    other = f"as of {before.as_of}"
    return _finding("claims", platform, other, metric, period, moved, LEDGER, abs(moved) > LEDGER, text)


def costs(claimed: Mapping[str, float], books: Mapping[str, float], period: tuple[date, date]) -> list[Finding]:
    """Cost that platforms report against the spend table, per channel in both: relative gap, warned above 1 %."""
    out = []
    for channel, cost in sorted(claimed.items()):
        book = books.get(channel, 0.0)
        if book > 0:
            gap = (cost - book) / book
            text = f"platforms report {cost / book:.1%} of the spend table's spend on {channel}"
            out.append(
                _finding("claims", "platform cost", "the spend table", "spend", period, gap, LEDGER,
                         abs(gap) > LEDGER, text, channel)
            )  # fmt: skip
    return out
