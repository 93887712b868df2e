"""Lineage & audit: from a figure back to the files, the steps of the job, and who did what when."""

from __future__ import annotations

import streamlit as st

from app import audit
from app.store import Snapshot
from app.views import common


def render() -> None:
    """Draws the page."""
    s = common.snapshot_or_stop()
    st.header("Lineage & audit")
    common.banners(s)
    _lineage(s)
    _runs(s)
    _deeds(s)


def _lineage(s: Snapshot) -> None:
    st.subheader("Where a figure comes from")
    names = audit.outputs(s)
    if not names:
        st.info("Nothing is recorded yet. Run `plumb run`.")
        return
    links = audit.trace(s, st.selectbox("Table or artifact", names, key="audit_output"))
    st.markdown(common.plain(audit.roots(s, links)))
    common.table(audit.trace_table(links), "Inputs behind the chosen table, step by step")
    st.caption(
        "The hash of a file with people's rows is keyed, so that it tells nothing of them. `plumb verify` recomputes "
        "every release."
    )


def _runs(s: Snapshot) -> None:
    st.subheader("Steps of the job")
    if s.runs.empty:
        st.info("No step has run yet.")
        return
    common.table(audit.runs(s), "Steps of the job with status and duration")


def _deeds(s: Snapshot) -> None:
    st.subheader("Who did what")
    deeds = audit.deeds(s)
    if deeds.empty:
        st.info("Nothing has been released, saved or decided yet.")
        return
    common.table(deeds, "Releases, saves, decisions and comments, newest first")
    common.download("Download (CSV)", deeds.to_csv(index=False), "audit.csv")


if __name__ == "__main__":
    render()
