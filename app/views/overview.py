"""Overview: is it healthy, what did marketing cause, why does credit differ, what to do."""

from __future__ import annotations

import streamlit as st

from app import figures, story, tables
from app.charts import incremental, timeline
from app.store import Snapshot
from app.views import common
from app.wording import Units, between, percent


def render() -> None:
    """Draws the page."""
    s = common.snapshot_or_stop()
    units = figures.units(s)
    st.header(f"Overview: {common.plain(s.meta.project)}" if s.meta.project else "Overview")
    common.health_line(figures.health(s))
    common.banners(s)
    _headline(s, units)
    if figures.effect(s, "incremental_kpi").empty:
        why = common.plain(figures.why_not(s, "fit", "fit_calibrated"))
        st.info(f"No model has been fitted yet, so nothing can be said about cause. {why or 'Run `plumb run`.'}")
        return
    _story(s)
    _channels(s, units)
    _timeline(s, units)


def _headline(s: Snapshot, units: Units) -> None:
    kpi, total = figures.kpi_total(s), figures.incremental_total(s)
    left, middle, right = st.columns(3)
    if kpi is not None:
        left.metric(
            f"{units.kpi_title}, {s.meta.period_start} to {s.meta.period_end}",
            units.kpi_figure(kpi.mean),
            border=True,
            delta_arrow="off",
            delta_color="off",
            delta=figures.kpi_noise(s),
        )
    if total is not None:
        amount = total.amount
        middle.metric(
            "caused by marketing",
            units.kpi_figure(amount.mean),
            border=True,
            delta_arrow="off",
            delta_color="off",
            delta=f"90 % interval: {between(amount.p05, amount.p95)}",
            help=total.basis,
        )
    if total is not None and total.share is not None:
        right.metric(
            f"share of {units.kpi} caused by marketing",
            percent(total.share.mean),
            border=True,
            delta_arrow="off",
            delta_color="off",
            delta=f"90 % interval: {between(total.share.p05, total.share.p95, percent)}",
            help=total.basis,
        )


def _story(s: Snapshot) -> None:
    told = story.tell(s)
    for column, (name, text) in zip(
        st.columns(3), (("What", told.what), ("Why", told.why), ("What to do", told.todo)), strict=True
    ):
        column.markdown(f"**{name}**  \n{common.plain(text)}")


def _channels(s: Snapshot, units: Units) -> None:
    st.subheader("Channels")
    names, rows = figures.channels(s), figures.effect(s, "incremental_kpi")
    chart = incremental.incremental_totals(rows, names, units)
    st.altair_chart(chart, width="stretch", alt=incremental.alt_text(rows, units))
    common.table(tables.overview(s), "Spend, incremental outcome, returns, credit and recommended change per channel")
    note = "An interval that holds 0 is noise; one that does not is signal"
    period = figures.latest_factor_period(s)
    note += f" · factor: {period}" if period else ""
    plan = figures.recommended(s)
    note += f" · recommended change: scenario “{plan}”" if plan else ""
    common.footer(figures.provenance(rows), note, view="v_effects")
    common.download("Download table (CSV)", tables.overview_csv(s), "overview.csv")
    if s.lift.empty:
        st.info("No experiment has been run. Intervals rest on the model alone; a test would narrow them.")


def _timeline(s: Snapshot, units: Units) -> None:
    parts, total = figures.timeline(s)
    if total.empty:
        return
    st.subheader(f"{units.kpi_title[0].upper()}{units.kpi_title[1:]} over time")
    chart = timeline.kpi_timeline(parts, total, figures.channels(s), units)
    st.altair_chart(chart, width="stretch", alt=timeline.alt_text(parts, units))
    note = "Grey: would have come anyway. Line: measured, with the noise of its release"
    common.footer(figures.provenance(s.kpi[s.kpi["metric"] == s.meta.kpi], s.effects), note)


if __name__ == "__main__":
    render()
