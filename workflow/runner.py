"""Runs steps in order under the workspace's lock: only what is stale, and from where a kill left it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from contracts.errors import GateFailed, WorkspaceError
from workflow import step_check, step_credit, step_fit, step_lift, step_plan, step_publish, step_reconcile, step_release
from workflow.job import Job, Outcome
from workflow.paths import Workspace
from workflow.steps import Step, advance

RELEASE = "release"
BEFORE: tuple[Step, ...] = (step_check.STEP,)
AFTER: tuple[Step, ...] = (
    step_lift.STEP,
    step_fit.UNCALIBRATED,
    step_fit.CALIBRATED,
    step_credit.STEP,
    step_reconcile.STEP,
    step_plan.STEP,
)
PUBLISHING: tuple[Step, ...] = (step_publish.STEP, step_publish.REPORT)
STEPS = {s.name: s for s in (*BEFORE, *AFTER, *PUBLISHING)}
ORDER = (*(s.name for s in BEFORE), RELEASE, *(s.name for s in (*AFTER, *PUBLISHING)))


def bring(job: Job, name: str, *, build: bool) -> Outcome:
    """Brings one step up to date, or looks it up. The release has its own rule: what is out stays out."""
    if name == RELEASE:
        return step_release.advance_release(job, build=build)
    return advance(job, STEPS[name], build=build)


def command_of(name: str) -> str:
    """The `plumb` command that makes a step."""
    return RELEASE if name == RELEASE else STEPS[name].command


@dataclass(frozen=True, slots=True)
class Result:
    """What a command did, step by step, and what the privacy ledger was charged."""

    workspace: Path
    run_id: str
    outcomes: tuple[Outcome, ...]
    charged_nano_rho: int

    @property
    def made(self) -> tuple[str, ...]:
        """Steps that really ran."""
        return tuple(o.step for o in self.outcomes if o.made)


@contextmanager
def locked(workspace: Workspace) -> Iterator[None]:
    """Holds the workspace's lock. Raises WorkspaceError at once when another command holds it."""
    try:
        workspace.state.mkdir(parents=True, exist_ok=True)
        lock = FileLock(workspace.lock, timeout=0)
        lock.acquire()
    except Timeout:
        raise WorkspaceError(
            f"another plumb command is working in {workspace.root}; wait until it has ended. Nothing was changed."
        ) from None
    except PermissionError as error:
        raise WorkspaceError(f"{workspace.root} is not writable ({error.strerror}); mend its permissions.") from None
    try:
        yield
    finally:
        lock.release()


def run(job: Job) -> Result:
    """Everything that is stale, in order. Raises GateFailed after publishing when the model or pool did not pass."""
    with locked(job.workspace):
        before = step_release.spent_nano(job)
        for name in ORDER:
            bring(job, name, build=True)
        result = _result(job, before)
    _refuse_failed(job)
    return result


def run_command(job: Job, command: str) -> Result:
    """One command: its own steps are made, earlier ones must be there. What changed is published.

    Raises MissingStep when an earlier step is out of date, GateFailed as `run` does.
    """
    with locked(job.workspace):
        before = step_release.spent_nano(job)
        for name in ORDER:
            if command_of(name) == command:
                bring(job, name, build=True)
            elif command_of(name) in _READS[command]:
                bring(job, name, build=name == "check")
        if command not in ("check", "report"):
            bring(job, "publish", build=True)
        result = _result(job, before)
    if command in ("fit", "reconcile"):
        _refuse_failed(job)
    return result


_READS = {
    "check": (),
    "release": ("check",),
    "lift": ("release",),
    "fit": ("release", "lift"),
    "credit": ("release",),
    "reconcile": ("release", "lift", "fit", "credit"),
    "plan": ("release", "lift", "fit", "credit", "reconcile"),
    "report": ("release", "lift", "fit", "credit", "reconcile", "plan"),
}


def _result(job: Job, before: int) -> Result:
    return Result(job.workspace.root, job.run_id, tuple(job.outcomes.values()), step_release.spent_nano(job) - before)


def _refuse_failed(job: Job) -> None:
    failed = [o for o in job.outcomes.values() if o.status == "failed_gate"]
    if not failed:
        return
    if failed[0].step == "reconcile":
        raise GateFailed(
            f"the reconciliation did not pass its own gate, so no new factors or plans are published: "
            f"{failed[0].reason}. Give it more to hold on to: a lift test, or more weeks."
        )
    raise GateFailed(
        f"the model did not pass its publishing gate, so published figures stay as they were: {failed[0].reason}. "
        "Raise draws or warmup in [model] of plumb.toml, or give the model more weeks."
    )


def disk_full(error: BaseException) -> bool:
    """Whether an error, or one that caused it, says that no more can be written to the disk."""
    here: BaseException | None = error
    while here is not None:
        if isinstance(here, OSError) and here.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        text = str(here).lower()
        if "no space left on device" in text or "disk is full" in text or "disk quota exceeded" in text:
            return True
        here = here.__cause__ or here.__context__
    return False
