"""A budget review as sections of text and tables, the same for slides, paper and HTML."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jinja2
import pandas as pd

from app import review_tables
from app.review import Review
from app.rows import each
from app.wording import between, figure, percent

TESTS_SHOWN = 6
_BASIS = "Over the planning period, carry-over after it included; the middle figure is P50."
_MONEY = (
    "Contribution is the stated margin of revenue; it counts from the plan's first day, carry-over after it included."
)
_NO_TEST = (
    "No outcome of these tests is expected to change the plan, so none of them is worth its cost for this decision."
)


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, sentences, and a table of text or None."""

    title: str
    lines: tuple[str, ...] = ()
    table: pd.DataFrame | None = None


def sections(r: Review, digest: str) -> tuple[Section, ...]:
    """What is decided, by channel, scenarios, next tests, what is missing or assumed, and sign-off.

    Empty ones are left out. `digest` is the SHA-256 of the warehouse.
    """
    channels = Section(f"Plan {r.plan} by channel", (_BASIS,), review_tables.channels(r) if r.lines else None)
    tables = (
        channels,
        Section("Scenarios beside each other", (), review_tables.options(r) if r.options else None),
        Section("What it is worth in money", _basis_of_money(r), review_tables.money(r)),
        Section("What platforms claim, and what was caused", (), review_tables.claims(r)),
        Section("Which test next", () if (r.tests["value"] > 0).any() else (_NO_TEST,), _tests(r)),
    )
    texts = (Section("What is not given, and why", r.missing), Section("What the figures rest on", r.assumptions))
    signed = ("Marketing: name, date, signature", "Finance: name, date, signature")
    return (
        Section(f"Budget review {r.period}".strip(), (*_headline(r), *r.decisions)),
        *(x for x in tables if x.table is not None),
        *(x for x in texts if x.lines),
        Section("Sign-off", (*_stamp(r, digest), *signed)),
    )


def page(found: tuple[Section, ...]) -> str:
    """The sections as one HTML file that opens offline."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    return environment.get_template("review.html.j2").render(sections=found)


def _headline(r: Review) -> tuple[str, ...]:
    plan, units = r.chosen, r.units
    if plan is None:
        return ("There is no plan to review.",)
    return (
        f"Plan {plan.letter}, “{plan.name}”: {units.money(plan.spend)}, expected to cause "
        f"{units.kpi_figure(plan.caused.p50)} (P10 to P90: {between(plan.caused.p10, plan.caused.p90)}).",
        f"Against the current split: {units.kpi_figure(plan.gain.p50)} (P10 to P90: "
        f"{between(plan.gain.p10, plan.gain.p90)}); chance of a gain {percent(plan.chance)}.",
    )


def _basis_of_money(r: Review) -> tuple[str, ...]:
    return (_MONEY,) if any(o.money is not None and o.money.contribution is not None for o in r.options) else ()


def _tests(r: Review) -> pd.DataFrame | None:
    rows = [
        {
            "test": t.test,
            "weeks": figure(t.weeks),
            f"cost, {r.units.currency}": figure(t.cost),
            f"worth less cost, {r.units.currency}": figure(t.net_value),
            "changes the plan with probability": percent(t.share_changed),
        }
        for t in each(r.tests.head(TESTS_SHOWN))
    ]
    return pd.DataFrame(rows) if rows else None


def _stamp(r: Review, digest: str) -> tuple[str, ...]:
    return (
        f"Data up to {r.cut_off}; model {r.model_version or 'none'}; owner {r.owner or 'not named'}.",
        f"SHA-256 of the warehouse: {digest}",
    )
