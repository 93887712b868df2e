"""Entry point of the explorer's pages, with PLUMB_WAREHOUSE naming the warehouse file; `app/server.py` serves it."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app import access
from app.views import saving

VIEWS = Path(__file__).resolve().parent / "views"
PAGES = {
    "": (("overview.py", "Overview", "monitoring", ""),),
    "Decide": (
        ("reconcile_page.py", "Reconcile", "balance", "reconcile"),
        ("scenarios_page.py", "Scenarios", "tune", "scenarios"),
        ("review_page.py", "Budget review", "request_quote", "budget-review"),
    ),
    "Evidence": (
        ("experiments_page.py", "Experiments", "science", "experiments"),
        ("lab_page.py", "Attribution lab", "alt_route", "attribution-lab"),
    ),
    "Trust": (
        ("budgets_page.py", "Data & privacy", "shield", "data-privacy"),
        ("health_page.py", "Health", "ecg_heart", "health"),
        ("audit_page.py", "Lineage & audit", "account_tree", "lineage-audit"),
        ("glossary_page.py", "Glossary", "menu_book", "glossary"),
    ),
}  # fmt: skip


def main() -> None:
    """Registers the pages and runs the one that is asked for; asks people to sign in where that is switched on."""
    st.set_page_config(page_title="Plumbline", layout="wide", initial_sidebar_state="auto")
    if saving.person() is None:
        _door()
        return
    sections = {
        section: [
            st.Page(VIEWS / file, title=title, icon=f":material/{icon}:", url_path=path or None, default=not path)
            for file, title, icon, path in pages
        ]
        for section, pages in PAGES.items()
    }
    st.navigation(sections, position="top").run()


def _door() -> None:
    """The screen of somebody who has not signed in, or has no role."""
    st.header("Plumbline")
    if not st.user.is_logged_in:
        st.write("Sign in to see the figures of this workspace.")
        st.button("Sign in", type="primary", icon=":material/login:", on_click=st.login)
        return
    claim = access.from_environment().claim
    st.error(
        f"You are signed in, and no role is given to you here. An administrator gives roles by the claim “{claim}” in "
        "[access] of plumb.toml.",
        icon=":material/block:",
    )
    st.button("Sign out", icon=":material/logout:", on_click=st.logout)


if __name__ == "__main__":
    main()
