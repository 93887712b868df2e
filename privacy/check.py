"""`plumb check` for people's inputs: every row against its contract. Nothing is summed, charged or released."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from privacy.inputs import PeopleInputs, Question
from privacy.load import LoadSettings, load_people
from privacy.plan import plan_releases, waiting
from privacy.policy import PrivacyPolicy
from privacy.sources import expand

CUSTODY = "custody"


@dataclass(frozen=True, slots=True)
class CheckFigure:
    """One row for v_checks. It never holds a count of people's rows."""

    check_name: str
    subject: str
    status: Literal["pass", "warn", "fail"]
    threshold: float | None
    text: str


@dataclass(frozen=True, slots=True)
class PeopleCheck:
    """What a check of the inputs about people found; exact counts are in the raw zone's log only."""

    figures: tuple[CheckFigure, ...]

    @property
    def passed(self) -> bool:
        """True when nothing failed."""
        return all(f.status != "fail" for f in self.figures)


def check_people(
    inputs: PeopleInputs, policy: PrivacyPolicy, question: Question, settings: LoadSettings
) -> PeopleCheck:
    """Reads and validates every row about people; releases and charges nothing.

    Malformed rows go to the sealed quarantine with reasons. Raises InputError for file-level faults and when more than
    `inputs.max_rejected` of the rows are malformed, ConfigError when the plan itself is impossible, WorkspaceError when
    others may open the raw zone.
    """
    plans = plan_releases(question, policy)
    with load_people(inputs, question, settings):
        pass
    names = ["events", *(["assignments"] if inputs.assignments is not None else [])]
    figures = [_rows_figure(name, inputs) for name in names]
    figures += [_consent_figure(inputs), custody_figure(inputs)]
    figures.append(CheckFigure("plan", "releases", "pass", None, f"{len(plans)} releases are planned"))
    for e in waiting(question):
        text = "its window is not over, or not inside released quarters, so it is not released yet"
        figures.append(CheckFigure("experiment", e.name, "warn", None, text))
    return PeopleCheck(tuple(figures))


def _rows_figure(name: str, inputs: PeopleInputs) -> CheckFigure:
    """Says the limit, not whether any row is malformed: that may hang on one person, and many read the warehouse."""
    text = (
        f"malformed rows, if any, are no more than inputs.max_rejected; their operator reads: plumb quarantine {name}"
    )
    return CheckFigure("malformed rows", name, "pass", inputs.max_rejected, text)


def _consent_figure(inputs: PeopleInputs) -> CheckFigure:
    if inputs.consent_assumed:
        return CheckFigure("consent", "events", "warn", None, "everybody without a statement is assumed to consent")
    return CheckFigure("consent", "events", "pass", None, "only people whose latest statement is consent are counted")


def custody_figure(inputs: PeopleInputs) -> CheckFigure:
    """Whether every user of the machine may read an input file about people: the operator's, so only a warning."""
    named = (("events", inputs.events), ("assignments", inputs.assignments), ("identity", inputs.identity))
    paths: list[Path] = [p for name, files in named if files is not None for p in expand(name, files)]
    loose = [p for p in paths if p.stat().st_mode & 0o007]
    if not loose:
        return CheckFigure(CUSTODY, "inputs", "pass", None, "no input file about people is open to every user")
    return CheckFigure(
        CUSTODY,
        "inputs",
        "warn",
        None,
        f"every user of this machine may read {loose[0].name}{' and others' if len(loose) > 1 else ''}; take that away "
        "with chmod o-rwx",
    )
