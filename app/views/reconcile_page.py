"""Reconcile: how far credit is from cause, per channel, and where the sources disagree."""

from __future__ import annotations

import streamlit as st

from app import evidence, figures, standing, tables
from app.charts import factors, forest
from app.store import Snapshot
from app.views import common, verdicts


def render() -> None:
    """Draws the page."""
    s = common.snapshot_or_stop()
    st.header("Reconcile")
    common.banners(s)
    st.markdown(common.plain(evidence.CREDIT_SENTENCE))
    periods = evidence.periods(s)
    names = figures.channels(s)
    if not periods or not names:
        st.info("There is nothing to reconcile yet: no model, no credit and no test. Run `plumb run`.")
        return
    left, right = st.columns(2)
    channel = left.selectbox("Channel", names, key="reconcile_channel")
    period = right.selectbox("Period", periods, format_func=lambda p: p.label, key="reconcile_period")
    _forest(s, channel, period)
    verdicts.section(s, channel)
    _conflicts(s)
    _factors(s, period)
    _tests(s)


def _forest(s: Snapshot, channel: str, period: evidence.Period) -> None:
    units, frame = figures.units(s), evidence.sources(s, channel, period)
    st.subheader(f"{common.plain(channel)}: what each source says")
    if frame.empty:
        st.info("No source speaks of this channel in this period.")
        return
    chart = forest.forest_plot(frame, channel, figures.channels(s), units)
    st.altair_chart(chart, width="stretch", alt=forest.alt_text(frame, channel, units))
    note = "Filled: measures cause. Hollow: describes. A test is scaled to the period by its outcome per unit of spend"
    rows = [f[f["channel"] == channel] for f in (s.incrementality, s.effects, s.lift, s.credit)]
    common.footer(figures.provenance(*rows), note, grade=_grade(s, channel))
    unscaled = evidence.unscaled_tests(s, channel)
    if unscaled:
        st.caption(common.plain(f"Only in the table of tests, because its spend change is not known: {unscaled}."))


def _conflicts(s: Snapshot) -> None:
    st.subheader("Where sources disagree, and what is at stake")
    found, stake = evidence.conflicts(s), evidence.at_stake(s)
    if found.empty:
        st.success("No source contradicts the others beyond its error.", icon=":material/check_circle:")
    else:
        common.table(found, "Conflicts between sources with their reasons", first="small")
    if len(stake):
        common.table(stake, "What following one source alone would lose", first="medium")
        common.footer(
            figures.provenance(s.decision_loss), "Loss against the plan on all evidence, over the planning period",
            view="v_decision_loss",
        )  # fmt: skip


def _grade(s: Snapshot, channel: str) -> str:
    grade = evidence.grades(s)[channel]
    return f"{grade} ({evidence.GRADES[grade]})"


def _factors(s: Snapshot, period: evidence.Period) -> None:
    st.subheader("Incrementality factors")
    rows = evidence.factors(s, period)
    if rows.empty:
        why = (
            "No user-level data was used, so there is no credit to compare with cause."
            if not s.meta.user_level
            else "No factor has been computed for this period. " + figures.why_not(s, "credit", "reconcile")
        )
        st.info(common.plain(why))
        return
    flags = evidence.flags(s, period)
    if flags:
        lines = "\n".join(f"- {common.plain(text)}" for text in flags)
        st.warning(f"Notes on the factors:\n{lines}", icon=":material/flag:")
    chart = factors.factor_plot(rows, figures.channels(s))
    st.altair_chart(chart, width="stretch", alt=factors.alt_text(rows))
    table = tables.factors(s, period)
    common.table(table, "Incrementality factor per channel and credit model")
    note = f"Below 1: the model credits more than the channel caused. {period.label}"
    common.footer(figures.provenance(rows), note, view="v_incrementality")
    common.download("Download factors (CSV)", rows.to_csv(index=False), "factors.csv")


def _tests(s: Snapshot) -> None:
    st.subheader("Experiments")
    if s.lift.empty:
        st.info("No experiment has been run: no source here was checked by changing spend on purpose.")
        return
    common.table(tables.tests(s), "Experiments with their effects and intervals")
    note = "Signed: effect and spend change of a go-dark test are both negative; their ratio is positive"
    common.footer(figures.provenance(s.lift), note, view="v_lift")
    st.markdown("**Who foretold them**")
    st.markdown(common.plain(standing.sentence(s)))
    if len(s.pool_scores):
        common.table(standing.table(s), "Scores of every source on tests that it had not seen")
        common.footer(
            figures.provenance(s.pool_scores), "Log predictive density at what a test showed", view="v_pool_scores"
        )


if __name__ == "__main__":
    render()
