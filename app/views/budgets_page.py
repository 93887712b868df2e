"""Data & privacy: what was checked, who consents, what the budget bought, and what epsilon costs."""

from __future__ import annotations

import streamlit as st

from app import budgets, figures
from app.charts import budget
from app.store import Snapshot
from app.views import common


def render() -> None:
    """Draws the page."""
    s = common.snapshot_or_stop()
    st.header("Data & privacy")
    common.banners(s)
    for fact in figures.privacy_facts(s):
        st.markdown(common.plain(fact))
    _contract(s)
    if not s.meta.user_level:
        st.info("An aggregate panel needs no budget: nobody's rows were read.")
        return
    _people(s)
    _budget(s)
    _noise(s)


def _contract(s: Snapshot) -> None:
    st.subheader("Contract of the inputs")
    found = budgets.contract(s)
    if found.empty:
        st.info("No input has been checked yet. Run `plumb check`.")
        return
    common.table(found, "Checks of the inputs", first="small")
    st.caption("Pass or fail only: exact counts of people's rows never leave the raw zone.")


def _people(s: Snapshot) -> None:
    st.subheader("People and consent")
    found = budgets.people(s)
    if found.empty:
        st.info("No diagnostics have been released yet.")
        return
    common.table(found, "People, consent and clipped mass per quarter")
    st.caption("Differentially private figures: each holds noise of known size and has been charged to its quarter.")


def _budget(s: Snapshot) -> None:
    st.subheader("Privacy budget")
    if s.charges.empty:
        st.info("Nothing has been charged yet.")
        return
    st.markdown(common.plain(budgets.sentence(s)))
    frame = budgets.charges(s)
    st.altair_chart(budget.spent_by_quarter(frame), width="stretch", alt=budget.budget_alt(frame))
    st.caption(
        "`plumb budget` shows the same with epsilon and who charged it; `plumb verify` recomputes every release."
    )


def _noise(s: Snapshot) -> None:
    st.subheader("Noise of each table")
    if s.releases.empty:
        return
    common.table(budgets.noise(s), "Noise, bound and cost of each released figure")
    names = budgets.vectors(s)
    measure, vector = st.selectbox(
        "What would another budget give for", names, format_func=lambda mv: f"{mv[0]}: {mv[1].replace('_', ' ')}",
        key="noise_vector",
    )  # fmt: skip
    what = f"{vector.replace('_', ' ')} of one cell"
    frame = budgets.what_epsilon_costs(s, measure, vector)
    st.altair_chart(budget.noise_by_cost(frame, what), width="stretch", alt=budget.noise_alt(frame, what))
    st.caption(
        "Diamond: in use. Four times the budget halves the noise. `plumb budget plan` says what that does to tests and "
        "to the model."
    )


if __name__ == "__main__":
    render()
