"""Glossary: what the words on the screens mean, and every column of every view."""

from __future__ import annotations

import streamlit as st

from app import glossary
from app.views import common


def render() -> None:
    """Draws the page. It needs no warehouse."""
    st.header("Glossary")
    query = st.text_input("Search", key="glossary_query", placeholder="factor, noise, roi …", bind="query-params")
    found = glossary.found(query)
    for term in found:
        st.markdown(f"**{common.plain(term.name)}**  \n{common.plain(term.text)}")
    if not found:
        st.info("No term holds these words.")
    st.subheader("Columns of the views")
    st.caption("The same in SQL, REST and the Parquet files; docs/tables.md has worked queries.")
    columns = glossary.columns(query)
    if columns.empty:
        st.info("No column holds these words.")
    else:
        common.table(columns, "Columns of the views with units", first="medium")


if __name__ == "__main__":
    render()
