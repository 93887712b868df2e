"""Health: which part of the job is well, how fresh the figures are, and what changed since the run before."""

from __future__ import annotations

from datetime import UTC, datetime

import streamlit as st

from app import condition, figures
from app.store import Snapshot
from app.views import common
from app.wording import percent

_MARKS = {"ok": ":material/check_circle:", "warn": ":material/warning:", "fail": ":material/error:"}


def render() -> None:
    """Draws the page."""
    s = common.snapshot_or_stop()
    st.header("Health")
    common.health_line(figures.health(s))
    common.banners(s)
    _parts(s)
    _fresh(s)
    _drift(s)


def _parts(s: Snapshot) -> None:
    st.subheader("Checks")
    found = condition.groups(s)
    if not found:
        st.info("No check has run yet. Run `plumb run`.")
        return
    for column, group in zip(st.columns(len(found)), found, strict=True):
        said = f"{group.failed} failed" if group.failed else f"{group.warned} warn" if group.warned else "all pass"
        column.markdown(f"{_MARKS[group.level]} **{common.plain(group.name)}**  \n{said}, {group.passed} passed")
    names = [g.name for g in found]
    worst = min(range(len(found)), key=lambda i: {"fail": 0, "warn": 1, "ok": 2}[found[i].level])
    name = st.selectbox("Part of the job", names, index=worst, key="health_group")
    everything = st.toggle("Also those that pass", key="health_all")
    table = condition.checks(s, name, all_of_them=everything)
    if table.empty:
        st.success("Every check of this part passes.", icon=_MARKS["ok"])
    else:
        common.table(table, f"Checks of {name}", first="small")


def _fresh(s: Snapshot) -> None:
    st.subheader("Freshness and completeness")
    for level, _, text in condition.freshness(s, datetime.now(UTC).date()):
        st.markdown(f"{_MARKS[level]} {common.plain(text)}")
    found = condition.completeness(s)
    if found is not None:
        share, cells = found
        level = "ok" if share >= 0.95 else "warn"
        text = f"{percent(share)} of {cells:,} geo × {figures.units(s).period} cells of the KPI hold a value."
        st.markdown(f"{_MARKS[level]} {common.plain(text)} A missing cell is missing, never zero.")


def _drift(s: Snapshot) -> None:
    st.subheader("Since the run before")
    table = condition.drift(s)
    if table.empty:
        st.info("There is one published run only; the next one is compared with it here.")
        return
    for reason in condition.changed_because(s):
        st.markdown(f"- {common.plain(reason)}")
    common.table(table, "Incremental outcome now and in the run before")


if __name__ == "__main__":
    render()
