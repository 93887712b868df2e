"""The offline report: one HTML file with inline charts, the same figures as the screens, and nothing to fetch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from pathlib import Path

import altair as alt
import jinja2
import pandas as pd
import vl_convert
from markupsafe import Markup

from app import evidence, figures, scenario, store, story, tables
from app.charts import curve, factors, forest, incremental, timeline
from app.figures import Provenance
from app.rows import each
from app.store import Snapshot
from app.wording import Units, between, figure, percent, title

TEMPLATE = "report.html.j2"
_WHOLE = re.compile(r"(\([^()]* to [^()]*\)|\d{4}-\d\d-\d\d|\S+ %)")
_ID = re.compile(r'(\bid="|url\(#|href="#)([^")]+)')


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart as inline SVG with its heading, what it says in words, and its footer."""

    heading: str
    svg: Markup
    text: str
    footer: str


def build_report(warehouse: Path) -> str:
    """The report of a warehouse file as one HTML document.

    Same figures as the explorer (DESIGN section 6: no number is computed in two places). Nothing in it depends on the
    time of the call. Raises WorkspaceError when the file is missing, damaged or of another version.
    """
    s = store.load(warehouse)
    units, period = figures.units(s), next(iter(evidence.periods(s)), None)
    fitted = not figures.effect(s, "incremental_kpi").empty
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["unbroken"] = _unbroken
    environment.globals |= {"between": between, "percent": percent}
    return environment.get_template(TEMPLATE).render(
        meta=s.meta,
        empty=s.empty,
        fitted=fitted,
        no_model=figures.why_not(s, "fit", "fit_calibrated"),
        failed=figures.failed_gate(s),
        health=figures.health(s),
        units=units,
        kpi=figures.kpi_total(s),
        kpi_noise=figures.kpi_noise(s),
        total=figures.incremental_total(s),
        story=story.tell(s) if fitted else None,
        overview=tables.overview(s) if fitted else None,
        overview_note=_overview_note(s),
        figures=_figures(s, units, period),
        credit_sentence=evidence.CREDIT_SENTENCE,
        period=period,
        flags=evidence.flags(s, period) if period else [],
        factors=tables.factors(s, period) if period else pd.DataFrame(),
        tests=tables.tests(s),
        scenarios=tables.scenarios(s),
        charges=charges(s),
        checks=checks(s),
        runs=runs(s),
        assumptions=assumptions(s),
        stamp=figures.provenance(s.effects, s.kpi),
    )


def charges(s: Snapshot) -> pd.DataFrame:
    """Privacy spent per block and measure, with what the block has left."""
    return pd.DataFrame(
        [
            {
                "block": r.block,
                "measure": r.measure,
                "release": r.release_id,
                "charge, rho": figure(r.rho),
                "spent by the block, rho": figure(r.block_spent),
                "grant, rho": figure(r.block_cap),
                "left, rho": figure(r.block_cap - r.block_spent),
            }
            for r in each(s.charges.sort_values(["block", "measure", "release_id"]))
        ]
    )


def checks(s: Snapshot) -> pd.DataFrame:
    """Checks with verdict, figure and limit; the worst first."""
    rank = {"fail": 0, "warn": 1, "pass": 2}
    rows = s.checks.sort_values("status", key=lambda c: c.map(rank), kind="stable")
    return pd.DataFrame(
        [
            {
                "verdict": r.status,
                "check": title(str(r.check_name)),
                "of": r.subject,
                "figure": figure(r.value, 4),
                "limit": figure(r.threshold, 4),
                "in words": r.text,
            }
            for r in each(rows)
        ]
    )


def runs(s: Snapshot) -> pd.DataFrame:
    """Steps of the runs in the order in which they started."""
    return pd.DataFrame(
        [
            {
                "run": r.run_id,
                "step": r.step,
                "status": title(str(r.status)),
                "started, UTC": f"{r.started_at:%Y-%m-%d %H:%M}" if pd.notna(r.started_at) else "",
                "took, s": figure(r.seconds),
                "why": r.reason or "",
            }
            for r in each(s.runs.sort_values("started_at", kind="stable"))
        ]
    )


def assumptions(s: Snapshot) -> tuple[str, ...]:
    """What the figures rest on and cannot check by themselves."""
    always = (
        "The model's form: carry-over and saturation of the declared families, additive over channels, with the "
        "declared trend, seasonality and controls. Demand that moves with spend but is no control biases it.",
        "Effects inside a geo test stay inside its geos.",
        "The baseline is the KPI minus the expected increments: what the model does not see lies in it.",
        "Scenarios compare steady spends after carry-over has settled; prices, creatives and competitors stay as they "
        "were. Above observed spend the curve is an extrapolation.",
        figures.incremental_basis(s),
    )
    if not s.meta.user_level:
        return always
    people = [
        "Figures are about consenting people. Scaling them to everyone would assume that people without consent "
        "respond alike; it is not done here.",
        "What clipping cut off is given back as one factor for all cells of a measure.",
    ]
    if s.meta.consent == "assumed":
        people.append("Consent was assumed for everyone, because the events carry no consent column.")
    return (*people, *always)


def _overview_note(s: Snapshot) -> str:
    parts = [f"Factor of {figures.latest_factor_period(s)}"] if figures.latest_factor_period(s) else []
    plan = figures.recommended(s)
    parts += [f"recommended change from scenario “{plan}”"] if plan else []
    return "; ".join(parts)


def _figures(s: Snapshot, units: Units, period: evidence.Period | None) -> dict[str, list[Figure]]:
    names = figures.channels(s)
    out: dict[str, list[Figure]] = {"totals": [], "timeline": [], "factors": [], "forest": [], "curves": []}
    amount = figures.effect(s, "incremental_kpi")
    if len(amount):
        chart = incremental.incremental_totals(amount, names, units)
        out["totals"].append(_figure("Caused by each channel", chart, incremental.alt_text(amount, units), amount))
    parts, total = figures.timeline(s)
    if len(total):
        chart = timeline.kpi_timeline(parts, total, names, units)
        out["timeline"].append(_figure("Over time", chart, timeline.alt_text(parts, units), s.kpi, s.effects))
    if period is not None:
        rows = evidence.factors(s, period)
        if len(factors.drawable(rows)):
            chart = factors.factor_plot(rows, names)
            out["factors"].append(_figure("Incrementality factors", chart, factors.alt_text(rows), rows))
        out["forest"] = [f for c in names if (f := _forest(s, c, period, units)) is not None]
    out["curves"] = [_curve(s, c, units) for c in sorted(set(s.curves["channel"]))]
    return out


def _forest(s: Snapshot, channel: str, period: evidence.Period, units: Units) -> Figure | None:
    rows = evidence.sources(s, channel, period)
    if rows.empty:
        return None
    chart = forest.forest_plot(rows, channel, figures.channels(s), units)
    behind = [f[f["channel"] == channel] for f in (s.incrementality, s.effects, s.lift, s.credit)]
    return _figure(f"{channel}: what each source says", chart, forest.alt_text(rows, channel, units), *behind)


def _curve(s: Snapshot, channel: str, units: Units) -> Figure:
    rows = s.curves[s.curves["channel"] == channel]
    now = figures.current_spend(s.response).get(channel, 0.0)
    planned = None
    changes = figures.recommended_changes(s)
    if s.surface is not None and channel in changes and channel in s.surface.response.channels:
        planned = float(scenario.from_changes(s.surface, changes)[s.surface.response.channels.index(channel)])
    chart = curve.response_curve(rows, channel, figures.channels(s), now, units, planned)
    return _figure(f"Response to spend on {channel}", chart, curve.alt_text(rows, channel, now, units), rows)


def _unbroken(cell: object) -> Markup:
    """Text of a cell, escaped, in which intervals, dates and percentages each keep to one line."""
    return Markup(_WHOLE.sub(r'<span class="nb">\1</span>', escape(str(cell))))


def _figure(heading: str, chart: alt.LayerChart, text: str, *behind: pd.DataFrame) -> Figure:
    return Figure(heading, Markup(inline_svg(chart, heading, text)), text, _footer(figures.provenance(*behind)))


def _footer(stamp: Provenance) -> str:
    parts = (
        f"as of {stamp.as_of}" if stamp.as_of else "",
        f"model {stamp.model_version}" if stamp.model_version else "",
        f"evidence {', '.join(stamp.evidence)}" if stamp.evidence else "",
    )
    return " · ".join(p for p in parts if p)


def inline_svg(chart: alt.LayerChart, name: str, text: str) -> str:
    """The chart as SVG for inlining: titled and described for screen readers, colours of text left to the page.

    Every id is made the figure's own, so that several charts live in one document. No name space address is left in
    it: inline SVG needs none, and the report is to hold no address at all.
    """
    spec = chart.to_dict()
    spec["background"] = None
    spec["padding"] = {"left": 28, "right": 12, "top": 5, "bottom": 5}  # the reader's font may be wider than ours
    spec.setdefault("config", {}).update({"font": "system-ui, sans-serif", "axis": {"labelFontSize": 11}})
    drawn = vl_convert.vegalite_to_svg(spec)
    own = re.sub(r"\W+", "-", name)
    drawn = _ID.sub(lambda m: f"{m[1]}{own}-{m[2]}", drawn)
    drawn = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", drawn)
    head, body = drawn.split(">", 1)
    labels = f'<title id="{own}-title">{escape(name)}</title><desc id="{own}-desc">{escape(text)}</desc>'
    return f'{head} role="img" aria-labelledby="{own}-title {own}-desc">{labels}{body}'
