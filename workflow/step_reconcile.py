"""`plumb reconcile`: model, lift tests and credit pooled into one incremental outcome per channel and period."""

from __future__ import annotations

import numpy as np
import pandas as pd

from contracts.errors import GateFailed
from contracts.tables import BY_NAME
from reconcile.pool import MAX_RHAT, MIN_ESS, PoolInputs, Reconciled, reconcile
from reconcile.reasons import reasons
from workflow.artifacts import Artifact, Draft
from workflow.codec import read_arrays, write_arrays, write_frame
from workflow.job import Job
from workflow.pool_evidence import pool_inputs
from workflow.progress import Report
from workflow.step_credit import read_credits
from workflow.step_fit import single_channel_lifts
from workflow.step_lift import library_digest, read_library, release_hashes
from workflow.steps import Made, Step

VIEWS = ("v_incrementality", "v_reconciled", "v_conflicts", "v_pool_scores", "v_pool_priors")


def _model_step(job: Job) -> str:
    return "fit_uncalibrated" if job.config.reconcile.lifts == "pooled" else "fit_calibrated"


def _skip(job: Job) -> str:
    outcome = job.outcomes[_model_step(job)]
    if outcome.status == "skipped":
        return f"no model: {outcome.reason}"
    if outcome.status == "failed_gate":
        return "the model did not pass its gate"
    return ""


def _inputs(job: Job) -> dict[str, str]:
    step = _model_step(job)
    return {
        step: job.digest(step),
        "lift": library_digest(job.outcomes["lift"].artifact),
        "credit": job.digest("credit"),
        **release_hashes(job, "kpi", "diagnostics"),
    }


def _build(job: Job, draft: Draft, report: Report) -> Made:
    inputs, priors = pool_inputs(job), job.config.reconcile.pool_priors()
    try:
        found = reconcile(inputs, priors, seed=job.config.model.seed + 2)
    except GateFailed as error:
        return Made({}, "failed_gate", str(error))
    frames = {
        "v_incrementality": found.factors, "v_reconciled": found.outcomes, "v_pool_scores": found.scores,
        "v_conflicts": conflict_rows(inputs, found), "v_pool_priors": pd.DataFrame(priors.table()),
    }  # fmt: skip
    evidence = ";".join(_evidence(job))
    for name, frame in frames.items():
        write_frame(frame.assign(evidence_ids=evidence), draft.path(f"{name}.parquet"))
    arrays = {"incremental": found.incremental, "by_period": found.by_period, "channels": np.array(found.channels)}
    write_arrays(arrays, draft.path("pool.npz"))
    return Made(_facts(found))


def conflict_rows(inputs: PoolInputs, found: Reconciled) -> pd.DataFrame:
    """Rows of v_conflicts: every comparison of a source with the rest, and what can explain it where it is flagged."""
    why: dict[str, list[str]] = {}
    for reason in reasons(inputs):
        why.setdefault(reason.channel, []).append(f"{reason.kind}: {reason.text}")
    columns = ["channel", "source", "subject", "z", "severity", "p_sign", "text", "reasons", "widened"]
    rows = [
        {"channel": f.channel, "source": f.source, "subject": f.subject, "z": f.z, "severity": f.severity,
         "p_sign": f.p_sign, "text": f.text, "reasons": "; ".join(why.get(f.channel, [])) if f.severity else "",
         "widened": f.channel in found.diagnostics.widened}
        for f in found.conflicts
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _evidence(job: Job) -> list[str]:
    ids = set(job.panel.evidence_ids)
    library, _ = read_library(job.outcomes["lift"].artifact)
    ids |= {i for k in single_channel_lifts(job) for i in library.estimates[k].evidence_ids}
    ids |= {i for c in read_credits(job.outcomes["credit"].artifact) for i in c.evidence_ids}
    return sorted(ids)


def _facts(found: Reconciled) -> dict[str, object]:
    health = found.diagnostics
    return {
        "rhat": health.rhat, "ess": health.ess, "divergences": health.divergences, "draws": health.draws,
        "widened": list(health.widened), "left_out": {f"evidence {n + 1}": t for n, t in enumerate(found.left_out)},
    }  # fmt: skip


def read_pool(artifact: Artifact) -> tuple[tuple[str, ...], np.ndarray]:
    """Channels and draws (S, C) of the reconciled incremental outcome, KPI units over the period."""
    arrays = read_arrays(artifact.path("pool.npz"))
    return tuple(str(c) for c in arrays["channels"]), arrays["incremental"]


def health_checks(artifact: Artifact) -> pd.DataFrame:
    """Rows of v_checks about the sampler of the pool."""
    rhat, ess = float(artifact.facts["rhat"]), float(artifact.facts["ess"])
    rows = [
        ("reconcile r_hat", "pool", "pass", rhat, MAX_RHAT, f"largest R-hat {rhat:.3f}"),
        ("reconcile ess", "pool", "pass", ess, MIN_ESS, f"smallest effective sample size {ess:.0f}"),
    ]
    for channel in artifact.facts.get("widened", []):
        rows.append(("reconcile conflict", channel, "warn", float("nan"), float("nan"),
                     "a test and the other evidence contradict each other; the answer was widened"))  # fmt: skip
    return pd.DataFrame(rows, columns=list(BY_NAME["v_checks"].names))


STEP = Step(
    name="reconcile",
    command="reconcile",
    title="Reconciling",
    rooms=("contracts", "reconcile", "mmm", "workflow.step_reconcile", "workflow.pool_evidence"),
    skip=_skip,
    inputs=_inputs,
    settings=lambda job: job.config.part("project", "channels", "model", "reconcile"),
    build=_build,
)
