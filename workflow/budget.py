"""What `plumb budget`, `plumb budget void` and `plumb verify`, answer from the workspace's files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from contracts.errors import MissingStep, PlumblineError, PrivacyError
from contracts.release import NANO
from privacy.room import (
    MEASURES,
    Quarter,
    Recorded,
    ReleasePlan,
    Subject,
    audit,
    epsilon_of,
    fiscal_years,
    plan_releases,
    read_spending,
    void_release,
    worst_year,
)
from workflow.job import Job
from workflow.people_inputs import actor, ledger_paths, question, utc_clock
from workflow.runner import locked

PANEL_SENTENCE = (
    "This workspace uses the aggregate-only door ([inputs.panel]): it reads no rows about people, so there is no "
    "privacy budget to spend. A known noise of its aggregates belongs into kpi_variance."
)


def _epsilon(nano: int, delta: float) -> float:
    return epsilon_of(nano, delta) if nano > 0 else 0.0


def budget_of(job: Job) -> dict[str, Any]:
    """Spent and left of every quarter and year, by measure, who charged what and when. Reads the ledger only."""
    if job.panel_door:
        return {"door": "panel", "text": PANEL_SENTENCE, "blocks": [], "years": [], "charges": [], "voided": []}
    policy = job.config.privacy.policy()
    found = read_spending(ledger_paths(job), utc_clock())
    quarters = found.quarters if found else ()
    releases = found.releases if found else ()
    worst, cap = worst_year(quarters), policy.cap_nano
    return {
        "door": "events",
        "delta": policy.delta,
        "grant": {
            "rho": cap / NANO,
            "epsilon": _epsilon(cap, policy.delta),
            "year_epsilon": _epsilon(4 * cap, policy.delta),
            "shares": {m: policy.share_nano(m) / NANO for m in MEASURES},
        },
        "blocks": [_quarter(q, policy.delta) for q in quarters],
        "years": _years(quarters, job.config.project.fiscal_year_start, policy.delta),
        "year_rho": worst / NANO,
        "year_epsilon": _epsilon(worst, policy.delta),
        "charges": [row for r in releases if r.state != "void" for row in _charges(r)],
        "voided": [_void(r) for r in releases if r.state == "void"],
        "ledger": {"entries": found.head_seq + 1, "head": found.head_hash} if found else None,
    }


def _quarter(q: Quarter, delta: float) -> dict[str, Any]:
    return {
        "block": q.block,
        "spent": q.spent_nano / NANO,
        "left": (q.cap_nano - q.spent_nano) / NANO,
        "cap": q.cap_nano / NANO,
        "epsilon": _epsilon(q.spent_nano, delta),
        "epsilon_cap": _epsilon(q.cap_nano, delta),
        "measures": [
            {
                "measure": p.measure,
                "spent": p.spent_nano / NANO,
                "left": (p.cap_nano - p.spent_nano) / NANO,
                "cap": p.cap_nano / NANO,
                "epsilon": _epsilon(p.spent_nano, delta),
            }
            for p in q.portions
            if p.cap_nano or p.spent_nano
        ],
    }


def _years(quarters: Sequence[Quarter], first_month: int, delta: float) -> list[dict[str, Any]]:
    return [
        {
            "from": start.isoformat(),
            "to": date(start.year + 1, start.month, 1).isoformat(),  # exclusive
            "spent": spent / NANO,
            "cap": cap / NANO,
            "epsilon": _epsilon(spent, delta),
        }
        for start, (spent, cap) in sorted(fiscal_years(quarters, first_month).items())
    ]


def _charges(r: Recorded) -> list[dict[str, Any]]:
    return [
        {
            "release_id": r.release_id,
            "measure": r.measure,
            "block": block,
            "rho": nano / NANO,
            "paid_by": r.share,
            "state": r.state,
            "by": r.by,
            "charged_at": r.reserved_at,
            "published_at": r.published_at,
        }
        for block, nano in r.charges
    ]


def _void(r: Recorded) -> dict[str, Any]:
    proof = dict(r.voided or {})
    return {
        "release_id": r.release_id,
        "measure": r.measure,
        "rho": r.charges[0][1] / NANO,
        "blocks": [b for b, _ in r.charges],
        "charged_at": r.reserved_at,
        "voided_at": proof.get("at"),
        "by": proof.get("by"),
        "reason": proof.get("reason"),
        "sha256": proof.get("sha256"),
    }


def void(job: Job, release_id: str, proof: str) -> dict[str, Any]:
    """Takes back one charge (see `privacy.void`). Raises PrivacyError, InputError, WorkspaceError."""
    if job.panel_door:
        raise PrivacyError(f"there is nothing to void. {PANEL_SENTENCE}")
    with locked(job.workspace):
        done = void_release(
            release_id,
            proof,
            ledger=ledger_paths(job),
            releases_dir=job.workspace.releases,
            raw_dir=job.workspace.raw,
            actor=actor(),
            now=utc_clock(),
        )
    return {"release_id": done.release_id, "rho": {b: n / NANO for b, n in done.charges}, "proof": done.proof}


def verify(job: Job, names: tuple[str, ...], witness: str) -> dict[str, Any]:
    """Checks of the ledger and of releases; `failed` says whether one of them does not hold."""
    if job.panel_door:
        return {"door": "panel", "text": PANEL_SENTENCE, "failed": False, "subjects": []}
    plans, why = _plans(job)
    subjects = audit(
        names,
        ledger=ledger_paths(job),
        releases_dir=job.workspace.releases,
        plans=plans,
        now=utc_clock(),
        witness=witness,
    )
    return {
        "door": "events",
        "failed": any(s.failed for s in subjects),
        "question": why,
        "subjects": [_subject(s) for s in subjects],
    }


def _plans(job: Job) -> tuple[dict[str, ReleasePlan] | None, str]:
    """Releases that plumb.toml asks for today, or why it asks for none."""
    try:
        return {p.release_id: p for p in plan_releases(question(job), job.config.privacy.policy())}, ""
    except (MissingStep, PlumblineError) as error:
        return None, str(error)


def _subject(s: Subject) -> dict[str, Any]:
    return {
        "name": s.name,
        "path": str(s.path) if s.path else None,
        "failed": s.failed,
        "checks": [{"name": c.name, "status": c.status, "text": c.text} for c in s.checks],
    }
