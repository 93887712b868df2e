"""What every part of a page that saves shares: who saves, one transaction and its copy, and what is said of it."""

from __future__ import annotations

import getpass
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from app import access, store
from app.access import Person
from app.saved import database, files, publish
from app.views import common
from contracts.errors import UserError

AUTHOR = "saved_author"
SAID = "saved_said"  # (where, kind, sentence) to show once
Done = tuple[str, dict[str, Any]]  # a sentence, and what changes in the session once it is saved
_BOXES = {"ok": st.success, "later": st.warning, "no": st.error}
ICONS = {"ok": ":material/check_circle:", "later": ":material/schedule:", "no": ":material/error:"}


def person() -> Person | None:
    """Whoever is at the screen; None when they must sign in first, or have no role."""
    rules = access.from_environment()
    claims = st.user.to_dict() if rules.sign_in and st.user.is_logged_in else None
    return access.person_of(rules, claims, account())


def may(permission: str) -> bool:
    """Whether the person at the screen has the permission."""
    found = person()
    return found is not None and found.may(permission)


def author() -> str:
    """Name to write beside a save: that of the sign-in, else the one declared on the page."""
    found = person()
    if found is not None and found.proven:
        return found.name
    return str(st.session_state.get(AUTHOR) or account())


def account() -> str:
    """Name of the account that runs the explorer; '' where the system has none, and the field asks for it."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


def state_path() -> Path:
    """The workspace's state.sqlite."""
    return store.warehouse_path().parent / files.STATE_NAME


def save(where: str, permission: str, work: Callable[[sqlite3.Connection], Done]) -> None:
    """One transaction and its copy into the warehouse; what came of it is told at the next run of the page."""
    if not may(permission):  # the button was hidden; a request that comes all the same is refused here
        st.session_state[SAID] = (where, "no", "your role does not allow this; nothing was saved.")
        return
    try:
        with database.writing(state_path()) as con:
            said, changes = work(con)
    except UserError as error:
        st.session_state[SAID] = (where, "no", str(error))
        return
    st.session_state.update(changes)
    try:
        publish.publish(store.warehouse_path())
    except UserError as error:
        st.session_state[SAID] = (where, "later", f"{said} It is kept, but not yet in the warehouse: {error}")
        return
    st.session_state[SAID] = (where, "ok", said)


def say(where: str) -> None:
    """Shows, once, what came of the last save there."""
    place, kind, text = st.session_state.get(SAID, ("", "", ""))
    if place == where:
        del st.session_state[SAID]
        _BOXES[kind](common.plain(text[:1].upper() + text[1:]), icon=ICONS[kind])
