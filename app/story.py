"""The Overview in sentences: what happened, why, what to do. Every number is one that the page shows as well."""

from __future__ import annotations

from dataclasses import dataclass

from app import figures, scenario
from app.figures import ChannelRow, Estimate
from app.store import Snapshot
from app.wording import Units, between, listed, percent, ratio, title


@dataclass(frozen=True, slots=True)
class Story:
    """Three short paragraphs."""

    what: str
    why: str
    todo: str


def tell(s: Snapshot) -> Story:
    """The story of a workspace that holds estimates."""
    units, rows = figures.units(s), figures.channel_rows(s)
    return Story(_what(s, units), _why(s, rows), _todo(s, units))


def _what(s: Snapshot, units: Units) -> str:
    total = figures.incremental_total(s)
    if figures.failed_gate(s):
        return "The model did not pass its gate, so nothing is claimed. The figures on this page show where it fails."
    if total is None:
        return "No channel has an estimate yet."
    amount = total.amount
    text = (
        f"Marketing caused about {units.kpi_figure(amount.mean)} between {s.meta.period_start} and "
        f"{s.meta.period_end} (90 % interval {between(amount.p05, amount.p95)})"
    )
    if total.share is not None:
        text += f", {percent(total.share.mean)} of the total ({_shares(total.share)})"
    return f"{text}. The rest would have come anyway."


def _shares(share: Estimate) -> str:
    return between(share.p05, share.p95, percent)


def _why(s: Snapshot, rows: list[ChannelRow]) -> str:
    if figures.failed_gate(s):
        return f"{' '.join(figures.health(s).reasons) or 'The run recorded no reason.'}"
    held = [r for r in rows if r.factor is not None]
    if not held:
        return (
            "There is no credit to compare with, so these figures rest on the model and on tests alone."
            if s.credit.empty
            else "No incrementality factor can be printed yet: no channel's credit is clearly above zero."
        )
    model = title(figures.HEADLINE_MODEL)
    over = [f"{r.channel} ({_factor(r)})" for r in held if r.factor and r.factor.p95 < 1]
    under = [f"{r.channel} ({_factor(r)})" for r in held if r.factor and r.factor.p05 > 1]
    parts = []
    if over:
        parts.append(f"{model} credits {listed(over)} with more than they caused")
    if under:
        parts.append(f"it gives {listed(under)} less than they caused" if over else _less(model, under))
    if not parts:
        return f"No channel's factor is clearly different from 1: {model} and cause agree as far as the data can tell."
    text = ", and ".join(parts)
    return f"{text[0].upper()}{text[1:]} (factor: caused ÷ credited, with its 90 % interval)."


def _less(model: str, under: list[str]) -> str:
    return f"{model} gives {listed(under)} less credit than they caused"


def _factor(r: ChannelRow) -> str:
    assert r.factor is not None
    return f"{ratio(r.factor.mean)}; {between(r.factor.p05, r.factor.p95, ratio)}"


def _todo(s: Snapshot, units: Units) -> str:
    changes = {c: x for c, x in figures.recommended_changes(s).items() if abs(x) >= 0.005}
    if figures.failed_gate(s):
        return "Do not move budget on these figures: see the reasons above, then run again."
    if figures.recommended(s) is None:
        return "No plan has been computed yet. Build one on the page Scenarios."
    if not changes:
        return "Keep the split: the plan finds no better one within its bounds."
    down = [f"{c} ({percent(x, signed=True)})" for c, x in sorted(changes.items(), key=lambda kv: kv[1]) if x < 0]
    up = [f"{c} ({percent(x, signed=True)})" for c, x in sorted(changes.items(), key=lambda kv: -kv[1]) if x > 0]
    text = f"Move budget from {listed(down)} to {listed(up)}" if down and up else f"Change {listed(down or up)}"
    if s.surface is None:
        return f"{text}."
    gain = scenario.compare(s.surface, scenario.from_changes(s.surface, changes)).change
    verdict = "a gain above noise" if gain.p05 > 0 else "not clearly different from no change"
    return (
        f"{text}. Expected: {units.kpi_figure(gain.mean)} per {units.period} against the current split "
        f"(90 % interval {between(gain.p05, gain.p95)}), {verdict}."
    )
