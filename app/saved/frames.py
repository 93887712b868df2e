"""The saved state as frames of the warehouse's views. Tokens are in no frame."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from app.saved import database, remarks, scenarios
from app.saved.remarks import Approval, Comment, OfRecord
from app.saved.scenarios import Saved
from contracts.tables import BY_NAME

SAVED_VIEWS = ("v_scenarios", "v_scenario_cells")  # hold the job's rows as well
STATE_VIEWS = (*SAVED_VIEWS, "v_comments", "v_approvals")
DIGEST_KEY = "saved_state"  # in `meta`: which saves the file holds


@dataclass(frozen=True, slots=True)
class State:
    """Everything that people saved and that is published, at one moment."""

    scenarios: tuple[Saved, ...] = ()
    comments: tuple[Comment, ...] = ()
    approvals: tuple[Approval, ...] = ()
    of_record: OfRecord | None = None
    digest: str = ""  # changes with every save; '' when nothing is saved


def read_state(path: Path) -> State:
    """What `state.sqlite` holds; nothing when there is no such file. Raises WorkspaceError when it is not readable."""
    with database.reading(path) as con:
        return State(
            scenarios.every(con), remarks.comments(con), remarks.approvals(con), remarks.of_record(con), _digest(con)
        )


def saved_digest(path: Path) -> str:
    """The digest of `read_state` without reading the plans. Raises WorkspaceError when the file is not readable."""
    with database.reading(path) as con:
        return _digest(con)


def _digest(con: sqlite3.Connection) -> str:
    """A version, comment or decision never changes once it is written, so their names say what is there."""
    parts = [
        [tuple(row) for row in con.execute(sql)]
        for sql in (
            "SELECT id, version, updated_at FROM scenarios WHERE status = 'saved' ORDER BY id",
            "SELECT id FROM comments ORDER BY id",
            "SELECT id FROM approvals ORDER BY id",
            "SELECT id FROM plans_of_record ORDER BY id",
        )
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest() if any(parts) else ""


def views(state: State, current_response: str) -> dict[str, pd.DataFrame]:
    """Rows of STATE_VIEWS, those of saved scenarios only. `current_response` names the draws that the file holds."""
    channels = [_channels(s, current_response, state.of_record) for s in state.scenarios]
    cells = [_stamped(s, s.pricing.cells) for s in state.scenarios]
    comments = [
        {"comment_id": c.id, "subject_kind": c.subject_kind, "subject_id": c.subject_id, "author": c.author,
         "text": c.text, "written_at": c.written_at}
        for c in state.comments
    ]  # fmt: skip
    approvals = [
        {"approval_id": a.id, "scenario_id": a.scenario_id, "version": a.version, "decision": a.decision,
         "reason": a.reason, "author": a.author, "decided_at": a.decided_at}
        for a in state.approvals
    ]  # fmt: skip
    return {
        "v_scenarios": _joined("v_scenarios", channels),
        "v_scenario_cells": _joined("v_scenario_cells", cells),
        "v_comments": _timed("v_comments", pd.DataFrame(comments), "written_at"),
        "v_approvals": _timed("v_approvals", pd.DataFrame(approvals), "decided_at"),
    }


def with_saved(job: Mapping[str, pd.DataFrame], saved: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The job's views with the saved state: its own scenarios first, marked as the job's."""
    out = dict(job)
    for name in SAVED_VIEWS:
        own = job.get(name, pd.DataFrame())
        marks: dict[str, Any] = {"scenario_id": "", "version": 0, "author": "", "note": "", "outdated": False}
        marks |= {"locked": False, "of_record": False}
        held = {key: value for key, value in marks.items() if key in BY_NAME[name].names}
        out[name] = _joined(name, [own.assign(**held), saved[name]])
    return out | {name: saved[name] for name in STATE_VIEWS if name not in SAVED_VIEWS}


def _channels(saved: Saved, current_response: str, record: OfRecord | None) -> pd.DataFrame:
    frame = _stamped(saved, saved.pricing.channels)
    frame["period_start"], frame["period_end"] = saved.pricing.period_start, saved.pricing.period_end
    frame["author"], frame["note"] = saved.author, saved.note
    frame["outdated"] = saved.pricing.response_id != current_response
    frame["locked"] = frame["channel"].isin(saved.locked)
    frame["of_record"] = record is not None and (record.scenario_id, record.version) == (saved.id, saved.version)
    return frame


def _stamped(saved: Saved, rows: pd.DataFrame) -> pd.DataFrame:
    pricing = saved.pricing
    return rows.assign(
        scenario=saved.name, scenario_id=saved.id, version=saved.version, run_id=pricing.run_id,
        release_id=pricing.release_id, model_version=pricing.model_version,
        as_of=pd.Timestamp(pricing.priced_at), evidence_ids=pricing.evidence_ids,
    )  # fmt: skip


def _joined(view: str, frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    columns, held = list(BY_NAME[view].names), [f for f in frames if len(f)]
    return pd.concat(held, ignore_index=True)[columns] if held else pd.DataFrame(columns=columns)


def _timed(view: str, frame: pd.DataFrame, column: str) -> pd.DataFrame:
    if frame.empty:
        return pd.DataFrame(columns=list(BY_NAME[view].names))
    frame[column] = pd.to_datetime(frame[column])
    return frame
