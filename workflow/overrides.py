"""A failed gate that a person has overruled: which artifact, why, when. Kept in `.plumb/overrides.json`.

The artifact keeps its status 'failed_gate'; later steps and the warehouse treat it as usable, and every screen says so.
A new fit has another key, so that an override never outlives the figures it was given for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from contracts.errors import ConfigError
from workflow.artifacts import Artifact, replace_text, utc_now
from workflow.paths import Workspace

FILE = "overrides.json"
SHORTEST = 10  # characters of a reason


@dataclass(frozen=True, slots=True)
class Override:
    """One decision."""

    reason: str
    recorded_at: str  # UTC, ISO


def overrides(workspace: Workspace) -> dict[str, Override]:
    """Every recorded override by the artifact's key."""
    path = workspace.state / FILE
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {key: Override(**value) for key, value in found.items()}


def check_reason(reason: str) -> str:
    """The reason without blanks around it. Raises ConfigError when it says nothing."""
    if len(reason.strip()) < SHORTEST:
        raise ConfigError(
            f"--override needs a reason of at least {SHORTEST} characters that a later reader will understand; "
            f"got {reason!r}. It is shown beside every figure."
        )
    return reason.strip()


def record_override(workspace: Workspace, artifact: Artifact, reason: str) -> Override:
    """Writes the decision down. Raises ConfigError when the reason says nothing."""
    made = Override(check_reason(reason), utc_now().isoformat(sep=" ", timespec="seconds"))
    held = overrides(workspace) | {artifact.key: made}
    text = {key: {"reason": o.reason, "recorded_at": o.recorded_at} for key, o in held.items()}
    replace_text(workspace.state / FILE, json.dumps(text, indent=1))
    return made


def sentence(artifact: Artifact, override: Override) -> str:
    """What every screen says about it."""
    return (
        f"Published against its gate, by a decision of {override.recorded_at} UTC: {override.reason}. "
        f"What failed: {artifact.reason}"
    )
