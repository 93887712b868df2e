"""The sealed record of a design, and the files that an advertising platform takes.

A record is canonical JSON: what was asked, which panel it was asked on (its hash), which row was chosen, and when the
test runs. Its SHA-256 is fixed before any readout, so that a readout can show that nothing was changed after the fact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from hashlib import sha256
from typing import Any

import numpy as np

from contracts.errors import ContractError
from lift.design import Design

VERSION = 1
ACTIONS = {
    "add": "increase", "heavy_up": "increase", "go_dark": "pause", "holdback": "hold back",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SealedDesign:
    """`text` is the canonical JSON; `seal` its SHA-256 in hex."""

    text: str
    seal: str

    @property
    def record(self) -> dict[str, Any]:
        """The record as a dictionary."""
        return dict(json.loads(self.text))


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value


def seal_design(
    design: Design, row: int, *, experiment: str, channel: str, start: date, period_days: int, estimator: str,
    seed: int | None = None,
) -> SealedDesign:  # fmt: skip
    """Seals row `row` (its rank, from 1) of a design. `seed`: of a random assignment, where there was one.

    Raises ContractError when the table has no such rank.
    """
    found = design.table[design.table["rank"] == row]
    if found.empty:
        raise ContractError(f"the design table has ranks 1 to {len(design.table)}; there is no rank {row}.")
    chosen = {k: _plain(v) for k, v in found.iloc[0].to_dict().items()}
    end = start + timedelta(days=int(chosen["duration"]) * period_days - 1)
    record = {
        "version": VERSION, "experiment": experiment, "channel": channel, "kind": design.spec.kind,
        "start": start.isoformat(), "end": end.isoformat(), "estimator": estimator, "seed": seed,
        "spec": _plain(asdict(design.spec)), "sets_scored": design.sets, "panel_hash": design.panel_hash,
        "false_positives_on_history": _plain(design.size_on_history), "chosen": chosen,
    }  # fmt: skip
    text = json.dumps(record, sort_keys=True, ensure_ascii=False, indent=1)
    return SealedDesign(text, sha256(text.encode()).hexdigest())


def open_sealed(text: str, seal: str) -> SealedDesign:
    """The record, if its seal is unbroken. Raises ContractError when the text was changed after sealing."""
    found = sha256(text.encode()).hexdigest()
    if found != seal:
        raise ContractError(
            f"the design record was changed after it was sealed (seal {seal[:12]}…, text {found[:12]}…); use the "
            "original file, or design the test anew and say so."
        )
    return SealedDesign(text, seal)


def platform_rows(sealed: SealedDesign) -> list[dict[str, str]]:
    """One row per geo: geo, group, action, start, end. The columns that platforms' location uploads have in common."""
    record = sealed.record
    chosen = record["chosen"]
    groups = [("treatment", chosen["geos"], ACTIONS[record["kind"]]), ("control", chosen["control_geos"], "no change")]
    return [
        {"geo": geo, "group": group, "action": action, "start": record["start"], "end": record["end"]}
        for group, geos, action in groups
        for geo in geos.split(";")
        if geo
    ]
