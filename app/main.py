"""Entry point of the explorer: `streamlit run app/main.py`, with PLUMB_WAREHOUSE naming the warehouse file."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

VIEWS = Path(__file__).resolve().parent / "views"


def main() -> None:
    """Registers the pages and runs the one that is asked for."""
    st.set_page_config(page_title="Plumbline", layout="wide", initial_sidebar_state="auto")
    page = st.navigation(
        [
            st.Page(VIEWS / "overview.py", title="Overview", icon=":material/monitoring:", default=True),
            st.Page(VIEWS / "reconcile_page.py", title="Reconcile", icon=":material/balance:", url_path="reconcile"),
            st.Page(VIEWS / "scenarios_page.py", title="Scenarios", icon=":material/tune:", url_path="scenarios"),
        ],
        position="top",
    )
    page.run()


if __name__ == "__main__":
    main()
