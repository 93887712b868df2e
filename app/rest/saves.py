"""Scenarios, comments and decisions over REST: the functions that the explorer uses, behind tokens with scopes.

Whoever changes a scenario names the version that they saw; a stale one answers 409 and changes nothing.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app import store
from app.rest.guard import Door, Refused
from app.saved import database, remarks, scenarios
from app.saved.files import Busy
from app.saved.pricing import price
from app.saved.publish import publish
from app.saved.scenarios import Saved, StaleVersion

Spend = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]
Id = Annotated[str, Field(min_length=1, max_length=80)]
Version = Annotated[int, Field(ge=1, le=2**31)]
Name = Annotated[str, Field(min_length=1, max_length=scenarios.MAX_NAME)]
Text = Annotated[str, Field(max_length=scenarios.MAX_TEXT)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewScenario(_Body):
    """A plan under a name: spend per channel and period, in the workspace's currency."""

    name: Name
    note: Text = ""
    plan: Annotated[dict[str, Spend], Field(max_length=1_000)]


class Changed(_Body):
    """Another plan, or another name, for the scenario whose `version` was seen."""

    version: Version
    plan: Annotated[dict[str, Spend], Field(max_length=1_000)] | None = None
    name: Name | None = None
    note: Text = ""


class Decision(_Body):
    """Approval or rejection of the version that was seen."""

    version: Version
    decision: str
    reason: Text


class Remark(_Body):
    """A comment on a scenario (by id), channel, experiment or run (by name)."""

    subject_kind: str
    subject_id: Annotated[str, Field(min_length=1, max_length=200)]
    text: Text


def scenario_routes(router: APIRouter, warehouse: Path, state: Path, door: Door) -> None:
    """Adds the routes."""
    _add_reading(router, state, door)
    _add_writing(router, warehouse, state, door)
    _add_remarks(router, warehouse, state, door)


def _add_reading(router: APIRouter, state: Path, door: Door) -> None:
    @router.get("/scenarios")
    def listed(request: Request) -> dict[str, Any]:
        """Saved scenarios, newest version of each."""
        door.caller(request, "read")
        with database.reading(state) as con:
            return {"scenarios": [dataclasses.asdict(e) for e in scenarios.entries(con)]}

    @router.get("/scenarios/{scenario_id}")
    def one(request: Request, scenario_id: str, version: Annotated[int | None, Query(ge=1, le=2**31)] = None) -> Any:
        """One scenario with plan, outcome by channel and decisions; an older version by its number."""
        door.caller(request, "read")
        with database.reading(state) as con:
            found = _there(con, scenario_id, version)
            decided = [dataclasses.asdict(a) for a in remarks.approvals(con, scenario_id)]
        return _shown(found) | {"decisions": decided}


def _add_writing(router: APIRouter, warehouse: Path, state: Path, door: Door) -> None:
    @router.post("/scenarios", status_code=201)
    def create(request: Request, response: Response, body: NewScenario) -> dict[str, Any]:
        """Saves a plan under a new name. It is priced on the draws of the published fit."""
        author = door.caller(request, "plan").name
        priced = price(store.load(warehouse), body.plan)
        saved = _write(
            warehouse, state, response, lambda con: scenarios.create(con, body.name, author, body.note, priced)
        )
        return _shown(saved)

    @router.patch("/scenarios/{scenario_id}")
    def change(request: Request, response: Response, scenario_id: str, body: Changed) -> dict[str, Any]:
        """A new version with another plan, or under another name (one of both)."""
        author = door.caller(request, "plan").name
        if (body.plan is None) == (body.name is None):
            raise Refused(422, "send either a plan or a name.")
        priced = None if body.plan is None else price(store.load(warehouse), body.plan)

        def work(con: sqlite3.Connection) -> Saved:
            _there(con, scenario_id)
            if priced is not None:
                return scenarios.save(con, scenario_id, body.version, author, body.note, priced)
            return scenarios.rename(con, scenario_id, body.version, author, body.name or "")

        return _shown(_write(warehouse, state, response, work))

    @router.delete("/scenarios/{scenario_id}")
    def archive(
        request: Request, response: Response, scenario_id: str, version: Annotated[int, Query(ge=1, le=2**31)]
    ) -> dict[str, Any]:
        """Takes a scenario off every list; its versions stay."""
        author = door.caller(request, "plan").name

        def work(con: sqlite3.Connection) -> Saved:
            _there(con, scenario_id)
            return scenarios.archive(con, scenario_id, version, author)

        return _shown(_write(warehouse, state, response, work))

    @router.post("/scenarios/{scenario_id}/duplicate", status_code=201)
    def duplicate(request: Request, response: Response, scenario_id: str) -> dict[str, Any]:
        """The same plan as a new scenario."""
        author = door.caller(request, "plan").name

        def work(con: sqlite3.Connection) -> Saved:
            _there(con, scenario_id)
            return scenarios.duplicate(con, scenario_id, author)

        return _shown(_write(warehouse, state, response, work))


def _add_remarks(router: APIRouter, warehouse: Path, state: Path, door: Door) -> None:
    @router.post("/scenarios/{scenario_id}/decisions", status_code=201)
    def decide(request: Request, response: Response, scenario_id: str, body: Decision) -> dict[str, Any]:
        """Approves or rejects the newest version, with a reason."""
        author = door.caller(request, "approve").name

        def work(con: sqlite3.Connection) -> remarks.Approval:
            _there(con, scenario_id)
            return remarks.decide(con, scenario_id, body.version, body.decision, body.reason, author)

        return dataclasses.asdict(_write(warehouse, state, response, work))

    @router.get("/comments")
    def comments(request: Request, subject_kind: str | None = None, subject_id: str | None = None) -> dict[str, Any]:
        """Comments, oldest first; of one kind or one subject, or all."""
        door.caller(request, "read")
        with database.reading(state) as con:
            return {"comments": [dataclasses.asdict(c) for c in remarks.comments(con, subject_kind, subject_id)]}

    @router.post("/comments", status_code=201)
    def comment(request: Request, response: Response, body: Remark) -> dict[str, Any]:
        """Adds a comment."""
        author = door.caller(request, "comment").name
        done = _write(
            warehouse, state, response,
            lambda con: remarks.comment(con, body.subject_kind, body.subject_id, author, body.text),
        )  # fmt: skip
        return dataclasses.asdict(done)


def _there(con: sqlite3.Connection, scenario_id: str, version: int | None = None) -> Saved:
    """The scenario. Raises Refused (404)."""
    row = con.execute("SELECT status FROM scenarios WHERE id = ?", (scenario_id,)).fetchone()
    if row is None or (row["status"] == "archived" and version is None):
        raise Refused(404, f"there is no scenario {scenario_id[:60]!r}.")
    return scenarios.get(con, scenario_id, version)


def _write[Done](warehouse: Path, state: Path, response: Response, work: Callable[[sqlite3.Connection], Done]) -> Done:
    """One transaction, then the new warehouse file. Where the job is writing that file just now, the save stands and
    the job copies it; the answer says so in X-Published."""
    try:
        with database.writing(state) as con:
            done = work(con)
    except StaleVersion as error:
        raise Refused(409, str(error)) from None
    try:
        publish(warehouse)
        response.headers["X-Published"] = "true"
    except Busy:
        response.headers["X-Published"] = "later"
    return done


def _shown(saved: Saved) -> dict[str, Any]:
    pricing = saved.pricing
    plain = {
        k: getattr(saved, k) for k in ("id", "version", "name", "note", "author", "status", "saved_at", "created_at")
    }
    stamp = {k: getattr(pricing, k) for k in ("currency", "kpi", "period_start", "period_end", "run_id", "release_id",
                                              "model_version", "evidence_ids", "priced_at", "budget")}  # fmt: skip
    return plain | stamp | {
        "plan": pricing.plan, "total": dict(pricing.total),
        "channels": pricing.channels.astype(object).where(pricing.channels.notna(), None).to_dict("records"),
    }  # fmt: skip
