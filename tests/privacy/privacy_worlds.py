"""Small worlds of people for the privacy tests, and the noise-free totals that only tests may look at."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np

from contracts.calendar import blocks, weeks_between
from contracts.evidence import Experiment
from privacy.load import PART_ROWS, EngineName, LoadSettings, load_people
from privacy.publish import exact_totals
from privacy.room import (
    FileSet,
    LedgerPaths,
    PeopleInputs,
    PrivacyPolicy,
    Question,
    plan_releases,
    publish_releases,
    read_quarantine,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = b"a secret of thirty-two bytes, ok"
COLUMNS = ("event_id", "user_id", "ts", "event", "channel", "geo", "value", "currency", "consent", "valid")
EXPERIMENT = Experiment("holdout", "user", "search", date(2024, 2, 5), date(2024, 4, 14), (), None)


def question(**changes: Any) -> Question:
    """Two whole fiscal quarters of 2024, two geos, three channels, one user test that touches both quarters."""
    weeks = weeks_between(date(2024, 1, 1), date(2024, 6, 24))
    whole = Question(
        blocks(weeks), "monday", ("north", "south"), ("search", "social", "video"), (EXPERIMENT,),
        {"holdout": ("control", "treated")},
    )  # fmt: skip
    return replace(whole, **changes)


def event(person: str, number: int, when: str, kind: str = "visit", **more: Any) -> dict[str, Any]:
    """One well-formed event."""
    row = {"event_id": f"{person}-{number}", "user_id": person, "ts": when, "event": kind, "geo": "north"}
    return row | {"consent": "true", "valid": "true"} | more


@dataclass
class World:
    """A workspace on disk. `secret` and `now` are fixed, the noise is not."""

    root: Path
    question: Question = field(default_factory=question)
    policy: PrivacyPolicy = field(default_factory=PrivacyPolicy)
    assumed: bool = False
    is_touch: bool = False
    max_rejected: float = 0.01
    rates: Mapping[str, float] = field(default_factory=dict)
    zone: str = "UTC"
    forgotten: frozenset[str] = frozenset()
    part_rows: int = PART_ROWS
    engine: EngineName = "duckdb"

    def inputs(self, events: Path | FileSet, assignments: Path | None = None, **more: Any) -> PeopleInputs:
        """The declared inputs of this world."""
        files = events if isinstance(events, FileSet) else FileSet((events,))
        groups = None if assignments is None else FileSet((assignments,))
        fixed = (self.assumed, self.is_touch, self.zone, "USD", self.rates, self.max_rejected)
        return PeopleInputs(files, groups, *fixed, **more)

    def write(self, rows: Iterable[Mapping[str, Any]], name: str = "events.csv", columns: Any = COLUMNS) -> Path:
        """Writes rows as CSV or JSON Lines."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as handle:
            if name.endswith(".jsonl"):
                handle.writelines(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows)
            else:
                writer = csv.DictWriter(handle, columns, restval="")
                writer.writeheader()
                writer.writerows(rows)
        return path

    def groups(self, rows: Iterable[tuple[str, ...]], name: str = "assignments.csv") -> Path:
        """Assignments (person, arm) of the holdout test, with as many of the further columns as the rows have."""
        columns = ("user_id", "arm", "stratum", "exposed", "covariate", "entered")
        table = [dict(zip(columns, row, strict=False)) | {"experiment": "holdout"} for row in rows]
        return self.write(table, name, ("experiment", *(c for c in columns if any(c in row for row in table))))

    def exact(self, inputs: PeopleInputs) -> dict[tuple[str, str], np.ndarray]:
        """(measure and first block, vector) -> bounded integer totals before noise."""
        plans = plan_releases(self.question, self.policy)
        settings = LoadSettings(NOW, self.root / "raw", SECRET, 35, self.forgotten, self.part_rows, self.engine)
        with load_people(inputs, self.question, settings) as crowd:
            return {
                (f"{p.measure} {p.blocks[0]}", name): units
                for p in plans
                for name, units in exact_totals(p, crowd, self.policy, self.question).items()
            }

    def quarantined(self, name: str = "events") -> list[tuple[int, str]]:
        """(row, reason) of what the newest quarantine of one input holds."""
        text = b"".join(read_quarantine(self.root / "raw", SECRET, name)).decode()
        return [(int(row["row"]), row["reason"]) for row in csv.DictReader(io.StringIO(text))]

    @property
    def ledger(self) -> LedgerPaths:
        """Database in the workspace, head outside of it."""
        return LedgerPaths(self.root / ".plumb" / "ledger.sqlite", self.root / "config" / "head")

    def publish(self, inputs: PeopleInputs, **changes: Any) -> tuple[Path, ...]:
        """The whole protocol."""
        plans = plan_releases(self.question, self.policy)
        settings: dict[str, Any] = {
            "ledger": self.ledger, "releases_dir": self.root / "releases", "raw_dir": self.root / "raw",
            "secret": SECRET, "run_id": "run", "now": NOW,
        }  # fmt: skip
        return publish_releases(plans, inputs, self.policy, self.question, **(settings | changes))
