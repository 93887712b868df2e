"""Accept, dispute or comment on a channel's figures, with a reason; kept in the audit trail and shown to everybody."""

from __future__ import annotations

import sqlite3

import streamlit as st

from app.rows import each
from app.saved import remarks, scenarios
from app.store import Snapshot
from app.views import common, saving
from app.views.saving import Done

WHERE, TEXT, STANCE = "verdict", "verdict_text", "verdict_stance"
_WORDS = {"comment": "Comment", "accepted": "Accept", "disputed": "Dispute"}
_MARKS = {"comment": ":material/comment:", "accepted": ":material/check_circle:", "disputed": ":material/gavel:"}


def section(s: Snapshot, channel: str) -> None:
    """What was said of a channel, and the form to say more."""
    rows = s.comments[(s.comments["subject_kind"] == "channel") & (s.comments["subject_id"] == channel)]
    newest = rows[rows["stance"] != "comment"].tail(1)
    title = "Accept, dispute or comment"
    if len(newest):
        title += f": {newest['stance'].iloc[0]} by {newest['author'].iloc[0]}"
    saving.say(WHERE)
    with st.expander(common.plain(title), icon=":material/gavel:"):
        for r in each(rows.sort_values("written_at")):
            st.caption(f"{_MARKS[str(r.stance)]} " + common.plain(f"{r.author}, {r.written_at:%Y-%m-%d %H:%M} UTC"))
            st.markdown(common.plain(str(r.text)))
        if rows.empty:
            st.caption("Nobody has said anything of this channel yet.")
        if not saving.may("comment"):
            st.caption("Your role may read this and not add to it.")
            return
        with st.form("verdict_form", clear_on_submit=True, border=False):
            st.radio("What do you make of it?", list(_WORDS), format_func=_WORDS.get, horizontal=True, key=STANCE)
            st.text_area("Reason", key=TEXT, max_chars=scenarios.MAX_TEXT, height=80)
            st.form_submit_button(
                "Add", icon=":material/add_comment:", on_click=_add, args=(channel,), key="verdict_add"
            )


def _add(channel: str) -> None:
    def work(con: sqlite3.Connection) -> Done:
        said = st.session_state
        remarks.comment(con, "channel", channel, saving.author(), said[TEXT], said[STANCE])
        return f"Kept: {channel}.", {}

    saving.save(WHERE, "comment", work)
