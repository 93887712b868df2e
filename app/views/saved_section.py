"""The part of the Scenarios page that saves: name a plan, see what is saved, open, copy, rename, delete, comment."""

from __future__ import annotations

import getpass
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from app import store, tables
from app.saved import database, files, pricing, publish, remarks, scenarios
from app.saved.frames import saved_digest
from app.saved.scenarios import Entry, Saved
from app.store import Snapshot
from app.views import common
from app.views.keys import PLAN, TOTAL
from app.wording import Units, listed
from contracts.errors import UserError
from planning.scenarios import last_day

NAME, NOTE, AUTHOR, PICK = "saved_name", "saved_note", "saved_author", "saved_pick"
RENAME, COMMENT = "saved_rename", "saved_comment"
OPENED = "saved_opened"  # (id, version, name) of the opened scenario
SAID = "saved_said"  # (where, kind, sentence) to show once
FORM, LIST = "form", "list"  # where: beside what was pressed
CATCH_UP_SECONDS = 0.2  # a page must not wait for a job that is writing
Done = tuple[str, dict[str, Any]]  # a sentence, and what changes in the session once it is saved
_BOXES = {"ok": st.success, "later": st.warning, "no": st.error}
_ICONS = {"ok": ":material/check_circle:", "later": ":material/schedule:", "no": ":material/error:"}


def save_form(s: Snapshot, units: Units) -> None:
    """Name, author, note and Save for the plan on the screen."""
    st.subheader("Save this scenario")
    _say(FORM)
    try:
        here = pricing.surface(s)
    except UserError as error:
        st.info(common.plain(f"A scenario cannot be saved here: {error}"))
        return
    st.session_state.setdefault(AUTHOR, _user())
    opened = st.session_state.get(OPENED)
    with st.form("scenario_save"):
        name, author = st.columns([2, 1])
        name.text_input("Name", key=NAME, max_chars=scenarios.MAX_NAME, persist_state="session")
        author.text_input("Author", key=AUTHOR, max_chars=scenarios.MAX_AUTHOR, persist_state="session")
        st.text_area(
            "Note (optional)", key=NOTE, max_chars=scenarios.MAX_TEXT, height=80, persist_state="session",
            placeholder="Why this plan, and what it assumes",
        )  # fmt: skip
        with st.container(horizontal=True):
            st.form_submit_button(
                "Save as new", type="secondary" if opened else "primary", icon=":material/save:",
                on_click=_save_new, args=(s,), key="saved_save_new",
            )  # fmt: skip
            if opened:
                st.form_submit_button(
                    f"Save changes to {common.plain(opened[2])}", type="primary", icon=":material/save:",
                    on_click=_save_changes, args=(s,), key="saved_save_changes",
                )  # fmt: skip
    st.caption(
        common.plain(
            f"A saved scenario is this spend per {units.period}, held from {here.start} to {last_day(here)}, with its "
            "outcome on the posterior draws now in use."
        )
    )


def saved_list(s: Snapshot) -> None:
    """What has been saved, and what can be done with it."""
    st.subheader("Saved scenarios")
    _say(LIST)
    try:
        with database.reading(_state_path()) as con:
            held = scenarios.entries(con)
        _catch_up()
    except UserError as error:
        st.error(common.plain(str(error)), icon=_ICONS["no"])
        return
    if not held:
        st.info("Nothing has been saved yet. Give the plan above a name and press “Save as new”.")
        return
    fit = pricing.fit_id(s)
    common.table(tables.saved(held, fit), "Saved scenarios with budget and outcome of all channels", first="medium")
    by_id = {entry.id: entry for entry in held}
    if st.session_state.get(PICK) not in by_id:
        st.session_state[PICK] = held[0].id
    picked = by_id[
        st.selectbox("Saved scenario", list(by_id), key=PICK, format_func=lambda i: by_id[i].name if i in by_id else i)
    ]
    if picked.note:
        st.markdown(common.plain(picked.note))
    _old_fit(s, picked, fit)
    _actions(s, picked, fit)
    _comments(picked)


def _old_fit(s: Snapshot, picked: Entry, fit: str) -> None:
    if picked.response_id == fit:
        return
    why = "The model has been fitted again since." if s.response is not None else "There is no published model now."
    st.warning(
        common.plain(f"{picked.name} was priced with an older fit (model {picked.model_version}). {why}"),
        icon=":material/history:",
    )


def _actions(s: Snapshot, picked: Entry, fit: str) -> None:
    seen = (picked.id, picked.version)
    with st.container(horizontal=True):
        if s.response is not None:
            st.button("Open", key="saved_open", icon=":material/folder_open:", on_click=_open, args=(s, picked.id))
        if s.response is not None and picked.response_id != fit:
            st.button("Price again", key="saved_reprice", icon=":material/refresh:", on_click=_reprice, args=(s, *seen))
        st.button("Duplicate", key="saved_copy", icon=":material/content_copy:", on_click=_duplicate, args=(picked.id,))
        with st.popover("Rename", icon=":material/edit:"):
            st.text_input("New name", key=RENAME, max_chars=scenarios.MAX_NAME, placeholder=picked.name)
            st.button("Rename", key="saved_rename_now", type="primary", on_click=_rename, args=seen)
        with st.popover("Delete", icon=":material/delete:"):
            st.markdown(f"Delete **{common.plain(picked.name)}**? It leaves every list and the warehouse.")
            st.button("Delete", key="saved_delete", type="primary", on_click=_delete, args=seen)


def _comments(picked: Entry) -> None:
    with database.reading(_state_path()) as con:
        written = remarks.comments(con, "scenario", picked.id)
    st.markdown(f"**Comments on {common.plain(picked.name)}**")
    for one in written:
        st.caption(common.plain(f"{one.author}, {one.written_at[:16]} UTC"))
        st.markdown(common.plain(one.text))
    if not written:
        st.caption("None yet.")
    with st.form("scenario_comment", clear_on_submit=True, border=False):
        st.text_area("Comment", key=COMMENT, max_chars=scenarios.MAX_TEXT, height=80)
        st.form_submit_button(
            "Add comment", icon=":material/add_comment:", on_click=_comment, args=(picked.id,), key="saved_add_comment"
        )


def _save_new(s: Snapshot) -> None:
    def work(con: sqlite3.Connection) -> Done:
        saved = scenarios.create(con, st.session_state[NAME], _author(), st.session_state[NOTE], _priced(s))
        return f"Saved {saved.name}.", {OPENED: _opened(saved), PICK: saved.id}

    _do(FORM, work)


def _save_changes(s: Snapshot) -> None:
    def work(con: sqlite3.Connection) -> Done:
        scenario_id, seen, name = st.session_state[OPENED]
        wanted = scenarios.clean_name(st.session_state[NAME])
        if wanted != name:
            seen = scenarios.rename(con, scenario_id, seen, _author(), wanted).version
        saved = scenarios.save(con, scenario_id, seen, _author(), st.session_state[NOTE], _priced(s))
        return f"Saved version {saved.version} of {saved.name}.", {OPENED: _opened(saved), PICK: saved.id}

    _do(FORM, work)


def _open(s: Snapshot, scenario_id: str) -> None:
    try:
        with database.reading(_state_path()) as con:
            saved = scenarios.get(con, scenario_id)
        spend, lacking = pricing.plan_for(s, saved)
    except UserError as error:
        st.session_state[SAID] = (LIST, "no", str(error))
        return
    st.session_state[PLAN], st.session_state[TOTAL] = spend, float(spend.sum())
    st.session_state[NAME], st.session_state[NOTE] = saved.name, saved.note
    st.session_state[OPENED] = _opened(saved)
    rest = f" It has no spend for {listed(lacking)}: current spend is kept there." if lacking else ""
    st.session_state[SAID] = (FORM, "ok", f"Opened {saved.name}, version {saved.version}.{rest}")


def _reprice(s: Snapshot, scenario_id: str, seen: int) -> None:
    def work(con: sqlite3.Connection) -> Done:
        saved = scenarios.get(con, scenario_id)
        pricing.refuse_moved(s, common.current_snapshot())
        new = scenarios.save(con, scenario_id, seen, _author(), saved.note, pricing.reprice(s, saved))
        return f"Priced {new.name} again, with the fit now in use.", _follow(new)

    _do(LIST, work)


def _duplicate(scenario_id: str) -> None:
    def work(con: sqlite3.Connection) -> Done:
        saved = scenarios.duplicate(con, scenario_id, _author())
        return f"Saved {saved.name}.", {PICK: saved.id}

    _do(LIST, work)


def _rename(scenario_id: str, seen: int) -> None:
    def work(con: sqlite3.Connection) -> Done:
        new = scenarios.rename(con, scenario_id, seen, _author(), st.session_state[RENAME])
        return f"Renamed to {new.name}.", {RENAME: ""} | _follow(new)

    _do(LIST, work)


def _delete(scenario_id: str, seen: int) -> None:
    def work(con: sqlite3.Connection) -> Done:
        gone = scenarios.archive(con, scenario_id, seen, _author())
        opened = st.session_state.get(OPENED)
        return f"Deleted {gone.name}.", {OPENED: None} if opened and opened[0] == scenario_id else {}

    _do(LIST, work)


def _comment(scenario_id: str) -> None:
    def work(con: sqlite3.Connection) -> Done:
        remarks.comment(con, "scenario", scenario_id, _author(), st.session_state[COMMENT])
        return "Comment added.", {}

    _do(LIST, work)


def _opened(saved: Saved) -> tuple[str, int, str]:
    return saved.id, saved.version, saved.name


def _follow(new: Saved) -> dict[str, Any]:
    """The opened scenario stays the opened one under its new version, unless someone else changed it before."""
    opened = st.session_state.get(OPENED)
    return {OPENED: _opened(new), NAME: new.name} if opened and opened[:2] == (new.id, new.version - 1) else {}


def _priced(s: Snapshot) -> scenarios.Pricing:
    """The plan on the screen, on the draws that the screen shows; refused when they are no longer in use."""
    pricing.refuse_moved(s, common.current_snapshot())
    assert s.response is not None
    spend = st.session_state[PLAN].tolist()
    return pricing.price(s, dict(zip(s.response.channels, spend, strict=True)))


def _do(where: str, work: Callable[[sqlite3.Connection], Done]) -> None:
    """One transaction and its copy into the warehouse; what came of it is told at the next run of the page."""
    try:
        with database.writing(_state_path()) as con:
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


def _catch_up() -> None:
    """Copies what an earlier save could not, when nobody is writing the file."""
    warehouse = store.warehouse_path()
    if saved_digest(_state_path()) == publish.published_digest(warehouse):
        return
    try:
        publish.publish(warehouse, CATCH_UP_SECONDS)
    except files.Busy:
        st.info(
            "The last save is kept and not yet in the warehouse: a plumb command is writing it and will take it in.",
            icon=_ICONS["later"],
        )


def _say(where: str) -> None:
    place, kind, text = st.session_state.get(SAID, ("", "", ""))
    if place == where:
        del st.session_state[SAID]
        _BOXES[kind](common.plain(text[:1].upper() + text[1:]), icon=_ICONS[kind])


def _state_path() -> Path:
    return store.warehouse_path().parent / files.STATE_NAME


def _author() -> str:
    return str(st.session_state.get(AUTHOR) or _user())


def _user() -> str:
    """Name of the account that runs the explorer; '' where the system has none, and the field asks for it."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""
