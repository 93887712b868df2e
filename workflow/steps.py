"""A step: what it reads, when it is skipped and how it makes its artifact. The runner decides whether it is stale."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from contracts.errors import MissingStep, PlumblineError
from workflow.artifacts import Artifact, Draft, code_version, digest_of, find
from workflow.job import Job, Outcome
from workflow.progress import Report, bar


@dataclass(frozen=True, slots=True)
class Made:
    """What a step says about the files that it wrote."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    status: str = "done"
    reason: str = ""


class NotApplicable(Exception):
    """Raised by a build when the data cannot carry the step; the message is the reason that is recorded and shown."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the job. `rooms` are the packages and modules whose source is its code version."""

    name: str
    command: str  # the `plumb` command that runs it
    title: str  # for the progress bar
    rooms: tuple[str, ...]
    skip: Callable[[Job], str]  # why the step does not apply here; '' when it does
    inputs: Callable[[Job], dict[str, str]]  # name -> content hash
    settings: Callable[[Job], Any]  # the part of the configuration that it reads
    build: Callable[[Job, Draft, Report], Made]
    valid: Callable[[Job, Artifact], bool] = lambda job, artifact: True  # whether what it wrote elsewhere still stands


def advance(job: Job, step: Step, *, build: bool) -> Outcome:
    """Brings one step up to date, or looks it up. Raises MissingStep when it is stale and may not be built."""
    reason = step.skip(job)
    if reason:
        outcome = Outcome(step.name, "skipped", reason, None, made=False)
    else:
        outcome = _current(job, step, build)
    job.outcomes[step.name] = outcome
    return outcome


def _current(job: Job, step: Step, build: bool) -> Outcome:
    inputs = step.inputs(job)
    key = digest_of({"code": code_version(step.rooms), "settings": step.settings(job), "inputs": inputs})[:32]
    artifact = find(job.workspace.runs, step.name, key)
    if artifact is not None and artifact.status == "skipped":
        return Outcome(step.name, "skipped", artifact.reason, None, made=False)
    if artifact is not None and step.valid(job, artifact):
        return Outcome(step.name, artifact.status, artifact.reason, artifact, made=False)
    if not build:
        raise MissingStep(f"the step {step.name!r} has not run on these inputs yet; run: plumb {step.command}")
    draft = Draft(job.workspace.runs, step.name, key)
    try:
        with bar(step.title, job.quiet) as report:
            made = step.build(job, draft, report)
    except NotApplicable as refusal:
        draft.clear()
        draft.commit(job.run_id, inputs, status="skipped", reason=str(refusal))
        return Outcome(step.name, "skipped", str(refusal), None, made=False)
    if made.status not in ("done", "failed_gate"):
        raise PlumblineError(f"the step {step.name!r} ended as {made.status!r}; please report this.")
    artifact = draft.commit(job.run_id, inputs, made.facts, made.status, made.reason)
    return Outcome(step.name, artifact.status, artifact.reason, artifact, made=True)
