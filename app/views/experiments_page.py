"""Experiments: what each test says, what it could have found, and how much longer it would have to be."""

from __future__ import annotations

import streamlit as st

from app import experiments, figures, store, tables
from app.charts import power
from app.experiments import Trial
from app.store import Snapshot
from app.views import common
from app.wording import Units


def render() -> None:
    """Draws the page."""
    s = common.snapshot_or_stop()
    st.header("Experiments")
    common.banners(s)
    found, units = experiments.tests(s), figures.units(s)
    _queue(s)
    if not found:
        st.info(
            "No experiment has been run: no source here was checked by changing spend on purpose. `plumb design` finds "
            "the markets for one, seals the plan and says what it can find."
        )
        return
    st.subheader("Tests that were run")
    common.table(tables.tests(s), "Experiments with their effects and intervals", first="medium")
    common.footer(
        figures.provenance(s.lift),
        "Signed: effect and spend change of a go-dark test are both negative; their ratio is positive",
        view="v_lift",
    )
    labels = [t.label for t in found]
    picked = found[labels.index(st.selectbox("Test", labels, key="experiment_pick"))]
    _one(s, picked, units)
    _power(s, picked, units)


def _queue(s: Snapshot) -> None:
    st.subheader("Which test next")
    table = experiments.queue(s)
    if table.empty:
        st.info("No candidate has been valued yet: that needs a published model and a plan. Run `plumb run`.")
        return
    common.table(table, "Candidate tests by their expected value", first="medium")
    common.footer(
        figures.provenance(s.next_tests),
        "Worth: what the plan gains on average by knowing the result. A test that changes no plan is worth 0",
        view="v_next_tests",
    )  # fmt: skip


def _one(s: Snapshot, test: Trial, units: Units) -> None:
    st.subheader(common.plain(test.label))
    st.markdown(common.plain(experiments.sentence(test, units)))
    page = experiments.readouts(store.warehouse_path()).get(test.name)
    if page is not None:
        st.download_button(
            "Readout page (HTML)", page.read_bytes(), page.name, "text/html", on_click="ignore",
            icon=":material/description:", help="Plan against result, fit before, path of the effect, placebos",
        )  # fmt: skip


def _power(s: Snapshot, test: Trial, units: Units) -> None:
    st.subheader("Power explorer")
    expected = experiments.expected_effect(s, test)
    start = abs(expected) if expected else test.smallest
    shown = units.kpi_title if test.metric == units.kpi else test.metric
    effect = st.number_input(
        f"Effect to find, {shown} in a window of {test.days} days", min_value=0.0, value=float(f"{start:.3g}"),
        key=f"power_{test.label}",
        help="Starts at what the model expects of the tested spend change, or at the smallest effect that the test "
        "could find",
    )  # fmt: skip
    curve = experiments.power(test, effect)
    st.altair_chart(power.power_by_length(curve, experiments.POWER), width="stretch", alt=power.alt_text(curve))
    days = experiments.days_needed(test, effect)
    if days is None:
        st.caption("An effect of 0 is found as often as the test errs: in 5 % of all tests.")
    else:
        ran = "As run, the test was long enough." if days <= test.days else f"The test ran for {test.days} days."
        st.markdown(common.plain(f"Power 0.8 needs about {days:,} days of such a test. {ran}"))
    st.caption(
        "Diamond: the test as it was run. Weeks are taken as independent and the noise of a release as it is now; "
        "`plumb design` works it out on the history of the markets."
    )


if __name__ == "__main__":
    render()
