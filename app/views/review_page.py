"""Budget review: the plan of the coming period on one page, for those who sign it, and the files that they keep."""

from __future__ import annotations

from functools import partial

import streamlit as st

from app import figures, review_tables, store
from app.pack import pack
from app.review import Review, digest, review
from app.store import Snapshot
from app.views import common
from app.wording import between, percent

_OFFICE = "application/vnd.openxmlformats-officedocument"
_KINDS = {
    "xlsx": f"{_OFFICE}.spreadsheetml.sheet",
    "pptx": f"{_OFFICE}.presentationml.presentation",
    "pdf": "application/pdf",
    "html": "text/html",
}


def render() -> None:
    """Draws the page."""
    s = common.snapshot_or_stop()
    found = review(s)
    st.header("Budget review")
    common.health_line(figures.health(s))
    common.banners(s)
    if found.chosen is None:
        for line in found.missing:
            st.info(common.plain(line))
        return
    _headline(found)
    for line in found.decisions:
        st.markdown(f"- {common.plain(line)}")
    _channels(s, found)
    _options(s, found)
    _money(s, found)
    _rest(found)


def _headline(r: Review) -> None:
    plan, units = r.chosen, r.units
    assert plan is not None
    spend, gain, chance = st.columns(3)
    now = sum(x.now for x in r.lines)
    spend.metric(
        f"spend of plan {plan.letter}, {r.period}", units.money(plan.spend), border=True, delta_arrow="off",
        delta_color="off", delta=f"current split: {units.money(now)}",
    )  # fmt: skip
    gain.metric(
        "gain on the current split, P50", units.kpi_figure(plan.gain.p50), border=True, delta_arrow="off",
        delta_color="off", delta=f"P10 to P90: {between(plan.gain.p10, plan.gain.p90)}",
    )  # fmt: skip
    chance.metric(
        "chance to beat the current split", percent(plan.chance), border=True, delta_arrow="off",
        delta_color="off", delta=f"data up to {r.cut_off}",
    )  # fmt: skip


def _channels(s: Snapshot, r: Review) -> None:
    st.subheader(f"Plan {r.plan} by channel")
    common.table(review_tables.channels(r), "Spend, expected outcome and return per channel, now and in the plan")
    common.footer(
        figures.provenance(s.scenarios), "Outcomes over the planning period, carry-over after it included",
        view="v_scenarios",
    )  # fmt: skip


def _options(s: Snapshot, r: Review) -> None:
    st.subheader("Scenarios beside each other")
    common.table(review_tables.options(r), "Spend, outcome, gain and chance of each scenario", first="medium")
    common.footer(
        figures.provenance(s.scenarios), "Gains are paired: all scenarios are valued on the same draws",
        view="v_scenarios",
    )  # fmt: skip


def _money(s: Snapshot, r: Review) -> None:
    table = review_tables.money(r)
    if table is None:
        return
    st.subheader("What it is worth in money")
    common.table(table, "Revenue, contribution, chance to earn its spend and payback of each scenario", first="medium")
    known = any(o.money is not None and o.money.contribution is not None for o in r.options)
    note = "Contribution: the margin of plumb.toml × revenue, less the spend" if known else "Revenue, not profit"
    common.footer(figures.provenance(s.scenarios), note, view="v_scenarios")


def _rest(r: Review) -> None:
    if r.missing:
        with st.expander("What is not given, and why"):
            for line in r.missing:
                st.markdown(f"- {common.plain(line)}")
    with st.expander("What the figures rest on"):
        for line in r.assumptions:
            st.markdown(f"- {common.plain(line)}")
    with st.container(horizontal=True):
        for kind, mime in _KINDS.items():
            st.download_button(
                f"Download the review ({kind.upper()})", partial(_file, r, kind), f"budget-review.{kind}", mime,
                on_click="ignore", icon=":material/download:", help="The same as `plumb report --pack quarter`",
            )  # fmt: skip


def _file(r: Review, kind: str) -> bytes:
    return pack(r, digest(store.warehouse_path()))[kind]


if __name__ == "__main__":
    render()
