"""From the declared question and policy to release plans. Pure: no row about a person is read.

Grants are split in integer nano-rho, always rounded down, so that what is charged never exceeds a cap.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, timedelta
from typing import Any, cast

import pandas as pd

from contracts.calendar import Block
from contracts.errors import ConfigError, InputError
from contracts.evidence import Experiment
from contracts.release import Measure
from contracts.trials import LOOKS_SHARE
from privacy import credit, diagnostics, journeys, kpi, levels, media, trials
from privacy.bounding import linf_units
from privacy.bounds import MICROS, Bound, FixedPoint, fixed_point, slice_nano
from privacy.cadence import Batch
from privacy.corrections import RESERVE, corrections_of
from privacy.inputs import Question
from privacy.mechanism import sigma_for
from privacy.policy import PrivacyPolicy
from privacy.safety import check_integers
from privacy.vectors import ReleasePlan, VectorPlan, canonical, digest, keys_hash

SCHEMA_VERSION = 1
WHOLE: tuple[Measure, ...] = ("diagnostics", "media", "credit", "levels")  # about a whole quarter, in one batch


def plan_releases(question: Question, policy: PrivacyPolicy) -> tuple[ReleasePlan, ...]:
    """All releases of the question: per block and measure, kpi and journeys in their batches, then experiments, then
    corrections of closed blocks (`privacy.corrections`).

    A measure whose share is 0 is left out. Diagnostics, media and credit describe a whole quarter: where kpi comes in
    several batches, they wait for the quarter's end. An experiment whose window runs past the last block waits
    (`waiting`). Raises ConfigError when the journeys table would be too large, a grant too small or a rule names an
    unknown channel, InputError when an experiment starts before the calendar.
    """
    plans: list[ReleasePlan] = []
    for block in question.blocks:
        for measure in ("kpi", "journeys"):
            plans += [_block_plan(measure, block, b, question, policy) for b in _due(measure, block, question, policy)]
        if block.closed or policy.cadence.get("kpi", "quarter") == "quarter":
            for measure in WHOLE:
                plans += [
                    _block_plan(measure, block, b, question, policy) for b in _due(measure, block, question, policy)
                ]
    if policy.share_nano("trials"):
        plans += [p for e in question.experiments for p in _trial_plans(e, question, policy)]
    for block in question.blocks:
        plans += _corrections(block, question, policy)
    for e in waiting(question):
        if question.calendar and question.first_day(e) < question.calendar[0].first_day:
            raise InputError(_too_early(e, question))
    return tuple(plans)


def _too_early(e: Experiment, question: Question) -> str:
    first, opens = question.first_day(e), question.calendar[0].first_day
    if e.start < opens:
        return (
            f"experiment {e.name!r} starts on {e.start}, before the calendar does ({opens}); extend spend or controls "
            "back to its start, or remove it."
        )
    return (
        f"experiment {e.name!r} reads days from {first} on (pre_days or covariate.since of experiments.{e.name}), and "
        f"the calendar starts on {opens}; read fewer days, or extend spend, controls or project.calendar_start back."
    )


def waiting(question: Question) -> tuple[Experiment, ...]:
    """Experiments that cannot be released yet, because a day of their window lies outside every block."""
    return tuple(e for e in question.experiments if not question.covers(question.first_day(e), e.end))


def release_keys(plan: ReleasePlan, question: Question, policy: PrivacyPolicy) -> dict[str, pd.DataFrame]:
    """Public keys of each vector of a plan, in the order of its cells."""
    names = tuple(v.name for v in plan.vectors)
    if plan.measure == "trials":
        return trials.keys(plan.experiment, question.arms[plan.experiment], trial_part(plan, question))
    return _batch_keys(plan.measure, plan.weeks, question, policy, names)


def _batch_keys(
    measure: str, weeks: tuple[date, ...], question: Question, policy: PrivacyPolicy, names: tuple[str, ...]
) -> dict[str, pd.DataFrame]:
    if measure == "kpi":
        return kpi.keys(weeks, question, names)
    if measure == "journeys":
        return journeys.keys(question.channels, policy.journeys.max_touches, names, policy.journeys.markov_order)
    if measure == "media":
        return media.keys(weeks, question, policy.media, names)
    if measure == "credit":
        return credit.keys(question, names)
    if measure == "levels":
        return levels.keys(weeks, question, policy, names)
    return diagnostics.keys(question, names)


def _bounds(measure: str, policy: PrivacyPolicy) -> dict[str, Bound]:
    if measure == "kpi":
        return dict(policy.kpi)
    if measure == "journeys":
        return policy.journeys.vectors()
    if measure == "media":
        return policy.media.vectors()
    if measure == "credit":
        return policy.credit.vectors()
    if measure == "levels":
        return policy.levels.vectors(policy.kpi)
    return diagnostics.vectors(policy)


def _check_size(question: Question, policy: PrivacyPolicy) -> None:
    order = policy.journeys.markov_order
    cells = journeys.cell_count(len(question.channels), policy.journeys.max_touches, order)
    if cells > journeys.CELL_LIMIT:
        raise ConfigError(
            f"the journeys table would have {cells:,} cells ({len(question.channels)} channels, "
            f"privacy.journeys.max_touches = {policy.journeys.max_touches}, markov_order = {order}); at most "
            f"{journeys.CELL_LIMIT:,} are released. Lower markov_order or max_touches, merge channels, or set "
            "privacy.shares.journeys = 0."
        )
    joined = [c for c in question.channels if order > 1 and journeys.STEP in c]
    if joined:
        raise ConfigError(
            f"channel {joined[0]!r} holds {journeys.STEP!r}, which joins channels where privacy.journeys.markov_order "
            "is above 1; rename the channel or set markov_order = 1."
        )


def _vector(
    name: str, declared: float, fixed: FixedPoint, denominator: int, cells: int, nano: int, l0: int = 0
) -> VectorPlan:
    if nano < 1:
        raise ConfigError(
            f"the grant of vector {name!r} is under one nano-rho; raise privacy.rho_per_user_quarter or its share, "
            "or set the share of its measure to 0."
        )
    check_integers(name, fixed.units, fixed.step, cells, l0)
    sigma = sigma_for(fixed.units, nano)
    return VectorPlan(name, declared, fixed.units, fixed.step, denominator, cells, nano, sigma, l0)


def _used(measure: str, policy: PrivacyPolicy) -> dict[str, Bound]:
    return {name: b for name, b in _bounds(measure, policy).items() if b.share > 0}


def _due(measure: str, block: Block, question: Question, policy: PrivacyPolicy) -> tuple[Batch, ...]:
    """Batches to release now; none where nothing is granted or nothing can be counted."""
    if not policy.share_nano(measure) or not _countable(measure, question, policy):
        return ()
    return policy.batches(measure, block)


def _countable(measure: str, question: Question, policy: PrivacyPolicy) -> bool:
    """False where the measure would have no cell. Raises ConfigError where it cannot be counted as declared."""
    if not _used(measure, policy) or (measure in ("journeys", "media", "credit") and not question.channels):
        return False
    if measure == "journeys":
        _check_size(question, policy)
    if measure == "credit":
        credit.check_direct(question, policy.credit)
    if measure == "levels":
        levels.check(question, policy)
    return True


def _corrections(block: Block, question: Question, policy: PrivacyPolicy) -> list[ReleasePlan]:
    return [
        _block_plan(cast(Measure, c.measure), block, policy.correction_batch(c, block), question, policy, number)
        for number, c in corrections_of(block, policy.corrections)
        if _countable(c.measure, question, policy)
    ]


def _block_plan(
    measure: Measure, block: Block, batch: Batch, question: Question, policy: PrivacyPolicy, correction: int = 0
) -> ReleasePlan:
    bounds, weeks = _used(measure, policy), batch.weeks
    keys = _batch_keys(measure, weeks, question, policy, tuple(bounds))
    vectors = tuple(
        _vector(
            name,
            b.bound,
            diagnostics.fixed(name, b.bound) if measure == "diagnostics" else fixed_point(b.bound),
            MICROS,
            len(keys[name]),
            slice_nano(batch.nano, b.share),
            policy.l0(measure, name, b),
        )
        for name, b in bounds.items()
    )
    modules = {"kpi": kpi, "journeys": journeys, "diagnostics": diagnostics, "media": media, "credit": credit}
    method = (modules | {"levels": levels})[measure].METHOD
    extra: dict[str, Any] = {"weeks": [w.isoformat() for w in weeks], "week_start": question.week_start}
    if measure == "journeys":
        extra |= policy.journeys.declared()
    if measure == "credit":
        extra["credit"] = credit.declared(policy.credit)
    if measure == "levels":
        extra["regions"] = {name: list(geos) for name, geos in policy.levels.regions.items()}
    if measure == "diagnostics":  # what was clipped depends on the bounds of kpi
        extra["kpi_bounds"] = {n: fixed_point(b.bound).units * fixed_point(b.bound).step for n, b in policy.kpi.items()}
        parts = [[w.isoformat() for w in batch] for batch in policy.kpi_batches(block, correction)]
        extra |= {"kpi_batches": parts} if len(parts) > 1 else {}  # and on what was bounded together
        capped = {n: policy.l0("kpi", n, b) for n, b in policy.kpi.items() if policy.l0("kpi", n, b)}
        extra |= {"kpi_l0": capped} if capped else {}
    if any(v.l0 for v in vectors):  # the norm is the default and leaves the hash of older releases as it was
        extra["l0_linf"] = {v.name: [v.l0, linf_units(v.bound_units, v.l0)] for v in vectors if v.l0}
    if correction:
        extra |= {"correction": correction, "paid_by": RESERVE}
    last_day = weeks[-1] + timedelta(days=6)
    return _plan(
        measure, (block,), weeks[0], last_day, "", vectors, keys, {"method": method} | extra, weeks, correction
    )


def trial_part(plan: ReleasePlan, question: Question) -> trials.Part:
    """Which part of which test a plan of measure 'trials' releases."""
    experiment = next(e for e in question.experiments if e.name == plan.experiment)
    return trials.part_of(question, experiment, plan.look)


def _trial_plans(experiment: Experiment, question: Question, policy: PrivacyPolicy) -> list[ReleasePlan]:
    """The looks that are due, and the whole test once it is over."""
    looks = range(1, question.design(experiment).looks + 1)
    parts = [trials.part_of(question, experiment, k) for k in (*looks, 0)]
    due = [p for p in parts if question.covers(p.first_day, p.end, running=p.look > 0)]
    return [_trial_plan(experiment, part, question, policy) for part in due]


def _trial_nano(experiment: Experiment, part: trials.Part, question: Question, policy: PrivacyPolicy) -> int:
    """Blocks share their trials grant equally among all declared experiments that touch them, released or waiting.

    Of a test's slice its looks together get one part in LOOKS_SHARE, equally, and the whole test gets the rest. Looks
    come while the quarter is open, so with them a test counts from the start that begins later in the quarter.
    """
    grant, looks = policy.share_nano("trials"), part.design.looks

    def sharing(block: Block) -> int:
        weeks = block.full_weeks if looks else block.weeks
        last = weeks[-1] + timedelta(days=6)
        return sum(question.first_day(e) <= last and weeks[0] <= e.end for e in question.experiments)

    own = min(grant // sharing(b) for b in question.touched(part.first_day, part.end))
    each = own // LOOKS_SHARE // looks if looks else 0
    return each if part.look else own - each * looks


def _trial_plan(experiment: Experiment, part: trials.Part, question: Question, policy: PrivacyPolicy) -> ReleasePlan:
    touched, arms = question.touched(part.first_day, part.end), question.arms[experiment.name]
    components = part.components
    keys = trials.keys(experiment.name, arms, part)
    fixed = FixedPoint(1, trials.bound_units(components))
    nano = _trial_nano(experiment, part, question, policy)
    vector = _vector("trial", len(components) ** 0.5, fixed, trials.ONE, len(keys["trial"]), nano)
    extra: dict[str, Any] = {
        "method": trials.METHOD,
        "window": [part.start.isoformat(), part.end.isoformat()],
        "weeks": [w.isoformat() for b in touched for w in b.weeks],
        "arms": list(arms),
        "bounds": policy.trials.bounds(),
    }
    if part.design.declared():  # the default leaves the hash of older releases as it was
        extra["design"] = part.design.declared()
    if part.look:  # a look is out before the calendar of its last quarter is whole
        extra |= {"look": part.look, "weeks": []}
    plan = _plan("trials", touched, part.start, part.end, experiment.name, (vector,), keys, extra)
    return replace(plan, look=part.look)


def _plan(
    measure: Measure,
    blocks: tuple[Block, ...],
    start: Any,
    end: Any,
    experiment: str,
    vectors: tuple[VectorPlan, ...],
    keys: dict[str, pd.DataFrame],
    extra: dict[str, Any],
    weeks: tuple[date, ...] = (),
    correction: int = 0,
) -> ReleasePlan:
    hashed = keys_hash(keys)
    spec = {
        "schema": SCHEMA_VERSION,
        "measure": measure,
        "blocks": [b.id for b in blocks],
        "experiment": experiment,
        "vectors": [[v.name, v.bound_units, v.numerator, v.denominator, v.cells, v.nano] for v in vectors],
        "keys": hashed,
    } | extra
    name = experiment or _batch_name(blocks[0], weeks) + (f"-c{correction}" if correction else "")
    if "look" in extra:
        name = f"{name[:30]}-look-{extra['look']}"
    slug = re.sub(r"[^A-Za-z0-9-]+", "-", name)[:40]
    spec_hash = digest(spec)
    release_id = f"{measure}-{slug}-{spec_hash[:16]}"
    return ReleasePlan(
        release_id,
        spec_hash,
        measure,
        tuple(b.id for b in blocks),
        start,
        end,
        experiment,
        vectors,
        hashed,
        weeks,
        canonical(spec),
        correction=correction,
    )


def _batch_name(block: Block, weeks: tuple[date, ...]) -> str:
    """The quarter's first day, or the first week of a batch that is a part of the quarter."""
    return (block.start if weeks == block.weeks else weeks[0]).isoformat()
