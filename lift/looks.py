"""The weekly looks of a running test, from their releases to intervals that hold at all of them together.

With `entry` declared, each look's release holds the people who entered in that week, so that the looks are independent
and their totals add up: `mixture_sequence`. Without it, each look's release holds everybody over all days so far: the
same people again, so `spending_sequence`. The effect is per person: of their first (part of a) week with `entry`, of
the days so far without. Decisions 0151, 0156.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from contracts.errors import ContractError
from contracts.evidence import Experiment, LiftEstimate
from contracts.readout import LookLine
from contracts.release import Release
from lift.sequential import Looks, mixture_sequence, spending_sequence
from lift.totals import Totals, added
from lift.trials import declared, read_arms, released_metrics

ESTIMATOR = "always_valid"
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class LooksReading:
    """All looks so far at one test. The estimates are per person and never pooled with a finished test's."""

    estimates: tuple[LiftEstimate, ...]  # after the newest look
    lines: tuple[LookLine, ...]  # at 95 %
    arms: tuple[Totals, ...]  # of the newest look, or of all people so far with `entry`


def look_number(release: Release) -> int:
    """Which look a trials release is; 0 for a whole test."""
    return int(release.metadata.get("spec", {}).get("look", 0))


def read_looks(experiment: Experiment, releases: Sequence[Release]) -> LooksReading:
    """Reads the looks in their order. Raises ContractError when there is none, or an arm is too small to divide by."""
    ordered = sorted(releases, key=look_number)
    if not ordered:
        raise ContractError(f"experiment {experiment.name!r} has no look yet.")
    design, control = declared(ordered[0]), experiment.control_arm
    found = [{a: added(cells) for a, cells in read_arms(experiment, r).items()} for r in ordered]
    rows: list[LiftEstimate] = []
    lines: list[LookLine] = []
    for arm in (a for a in found[0] if a != control):
        pairs = [(f[arm], f[control]) for f in found]
        for metric in released_metrics(experiment, ordered[0]):

            def sequence(level: float, pairs: Sequence[tuple[Totals, Totals]] = pairs, metric: str = metric) -> Looks:
                if design.entry:
                    return mixture_sequence(pairs, metric, planned_looks=design.looks, level=level)
                return spending_sequence(pairs, metric, level=level)

            rows.append(_row(experiment, ordered, arm, metric, {v: sequence(v) for v in (0.8, 0.9, LEVEL)}))
            lines += _lines(ordered, arm, metric, sequence(LEVEL))
    newest = {a: added([f[a] for f in found]) for a in found[0]} if design.entry else found[-1]
    return LooksReading(tuple(rows), tuple(lines), tuple(newest.values()))


def _row(
    experiment: Experiment, ordered: Sequence[Release], arm: str, metric: str, at: dict[float, Looks]
) -> LiftEstimate:
    wide, narrow, s = at[0.9], at[0.8], at[LEVEL]
    return LiftEstimate(
        experiment=experiment.name, estimator=ESTIMATOR, kind="user", channel=experiment.channel, arm=arm,
        metric=f"{metric} per person", start=experiment.start, end=ordered[-1].block_end, treated=(),
        mean=float(s.value[-1]), std_error=float(s.std_error[-1]), dof=math.inf,
        p05=float(wide.lower[-1]), p10=float(narrow.lower[-1]), p50=float(s.value[-1]), p90=float(narrow.upper[-1]),
        p95=float(wide.upper[-1]), p_value=float(s.p_value[-1]), noise_variance_share=float(s.noise_share[-1]),
        spend_delta=math.nan, spend_delta_se=0.0,
        evidence_ids=(f"experiment:{experiment.name}", *(r.release_id for r in ordered)),
    )  # fmt: skip


def _lines(ordered: Sequence[Release], arm: str, metric: str, s: Looks) -> list[LookLine]:
    return [
        LookLine(
            look_number(r), r.block_end, arm, f"{metric} per person", float(s.value[i]), float(s.lower[i]),
            float(s.upper[i]), float(s.p_always[i]), float(s.noise_share[i]),
        )
        for i, r in enumerate(ordered)
    ]  # fmt: skip
