"""Attribution lab: credit models side by side, what they cost, and what moved more than the noise."""

from __future__ import annotations

import streamlit as st

from app import evidence, figures, lab
from app.charts import credit
from app.evidence import Period
from app.store import Snapshot
from app.views import common


def render() -> None:
    """Draws the page."""
    s = common.snapshot_or_stop()
    st.header("Attribution lab")
    common.banners(s)
    st.markdown(common.plain(evidence.CREDIT_SENTENCE))
    periods = lab.periods(s)
    if not periods:
        why = (
            "No user-level data was used, so there are no journeys to give credit to."
            if not s.meta.user_level
            else f"No credit has been computed yet. {figures.why_not(s, 'credit') or 'Run `plumb run`.'}"
        )
        st.info(common.plain(why))
        return
    left, right = st.columns(2)
    period = left.selectbox("Period", periods, format_func=lambda p: p.label, key="lab_period")
    first = lab.METRICS.index(lab.headline_metric(s))
    metric = right.radio("Counted in", lab.METRICS, index=first, horizontal=True, key="lab_metric")
    _shares(s, period, metric)
    _tables(s, period, metric)
    _parity(s)


def _shares(s: Snapshot, period: Period, metric: str) -> None:
    st.subheader("Who gets the credit")
    frame = lab.shares(s, period, metric)
    if frame.empty:
        st.info(common.plain(f"No model gives credit in {metric} in this period."))
        return
    st.markdown(common.plain(lab.sentence(s, period, metric)))
    st.altair_chart(credit.credit_shares(frame, figures.channels(s)), width="stretch", alt=credit.alt_text(frame))
    rows = s.credit[s.credit["period_start"] == period.start]
    common.footer(
        figures.provenance(rows), "Intervals hold the released noise; they do not hold what a rule gets wrong",
        view="v_credit",
    )  # fmt: skip
    with st.expander("What each model counts"):
        for line in lab.definitions(s, period, metric):
            st.markdown(f"- {common.plain(line)}")


def _tables(s: Snapshot, period: Period, metric: str) -> None:
    st.subheader("Credit and cost")
    tab_credit, tab_cost = st.tabs(["Credit", "Cost per credit"])
    with tab_credit:
        common.table(lab.credit_table(s, period, metric), "Credit per channel and model")
        rows = s.credit[(s.credit["period_start"] == period.start) & (s.credit["metric"] == metric)]
        common.download("Download credit (CSV)", rows.to_csv(index=False), "credit.csv")
    with tab_cost:
        costs = lab.cost_table(s, period)
        if costs.empty:
            st.info("The spend table holds no spend of this period.")
        else:
            common.table(costs, "Spend, cost per credited conversion and credited return per channel and model")
            st.caption("A low cost per credited conversion says who stood next to the sale, not who caused it.")


def _parity(s: Snapshot) -> None:
    st.subheader("Do the figures agree?")
    kinds = lab.kinds(s)
    if not kinds:
        st.info("Nothing has been compared yet.")
        return
    st.caption(common.plain(" · ".join(f"{lab.KINDS[k]}: {bad} of {n} differ" for k, (bad, n) in kinds.items())))
    kind = st.selectbox("Comparison", list(kinds), format_func=lambda k: lab.KINDS[k], key="lab_kind")
    only = st.toggle("Only those that differ", value=True, key="lab_only")
    found = lab.findings(s, kind, only_warnings=only)
    if found.empty:
        st.success("All of them agree within the released noise.", icon=":material/check_circle:")
    else:
        common.table(found, f"Comparisons: {lab.KINDS[kind]}", first="small")
        common.footer(figures.provenance(s.parity), "", view="v_parity")


if __name__ == "__main__":
    render()
