"""What the pages share: the cached snapshot, the designed states, footers and tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
import streamlit as st

from app import figures, store
from app.figures import Health, Provenance
from app.store import Snapshot
from contracts.errors import UserError

_ICONS = {"ok": ":material/check_circle:", "warn": ":material/warning:", "fail": ":material/error:"}
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|$<>~:])")


def plain(text: str) -> str:
    """`text` with Markdown's signs escaped: names come from the user's files and must show as they are."""
    return _SPECIAL.sub(r"\\\1", text)


@st.cache_resource(max_entries=4, show_spinner="Reading the warehouse …")
def _cached(path: str, fingerprint: str) -> Snapshot:
    return store.load(Path(path))


def current_snapshot() -> Snapshot:
    """The snapshot of the file as it is now. Raises WorkspaceError when there is none or it is unreadable."""
    path = store.warehouse_path()
    return _cached(str(path), store.fingerprint(path))


def snapshot_or_stop() -> Snapshot:
    """The current snapshot; or the screen that says why there is none, and the end of the page."""
    try:
        snapshot = current_snapshot()
    except UserError as e:
        _state("No warehouse to show", str(e), ("plumb init .", "plumb run", "plumb serve"))
        st.stop()
    if snapshot.empty:
        _state(
            "The warehouse is empty",
            "The file is there, but no step has published a figure yet. Put your files into the workspace and run:",
            ("plumb check", "plumb run"),
        )
        st.stop()
    return snapshot


def banners(s: Snapshot) -> None:
    """States of the whole workspace that a reader must not miss."""
    if figures.failed_gate(s):
        st.error(
            "Not published: the model did not pass its gate. The figures below are shown to find the fault, "
            "not to decide on.",
            icon=_ICONS["fail"],
        )
    if not s.meta.user_level:
        st.info(
            "No user-level data was used. This workspace started from an aggregate panel.", icon=":material/shield:"
        )


def health_line(health: Health) -> None:
    """Main health, top left, with its reasons one click away."""
    box = {"ok": st.success, "warn": st.warning, "fail": st.error}.get(health.level, st.info)
    box(plain(health.headline), icon=_ICONS.get(health.level, ":material/info:"))
    st.caption(plain(" · ".join(health.facts)))
    if health.reasons:
        with st.expander("Why?"):
            for reason in health.reasons:
                st.markdown(f"- {plain(reason)}")


def footer(stamp: Provenance, note: str = "") -> None:
    """As of, model version and evidence of the figure above."""
    parts = [note] if note else []
    parts += [f"as of {stamp.as_of}"] if stamp.as_of else []
    parts += [f"model {stamp.model_version}"] if stamp.model_version else []
    parts += [f"evidence {shortened(stamp.evidence)}"] if stamp.evidence else []
    st.caption(plain(" · ".join(parts)))


def shortened(ids: Sequence[str], most: int = 4) -> str:
    """The first few ids, and how many more there are."""
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(ids[:most]) + more


def table(frame: pd.DataFrame, alt: str, first: Literal["small", "medium"] | None = None) -> None:
    """A table of finished text; the first column (of width `first`) stays in sight while the rest scrolls."""
    pinned = {str(frame.columns[0]): st.column_config.Column(pinned=True, width=first)}
    st.dataframe(frame, hide_index=True, width="stretch", column_config=pinned, alt=alt)


def download(label: str, data: str, name: str) -> None:
    """A CSV of what is shown."""
    st.download_button(label, data, name, "text/csv", on_click="ignore", icon=":material/download:")


def _state(title: str, text: str, commands: Sequence[str]) -> None:
    st.subheader(title)
    st.markdown(plain(text))
    st.code("\n".join(commands), language="bash")
    st.caption("This page looks again whenever it is reloaded.")
