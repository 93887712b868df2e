"""Frames of the warehouse's views from releases, ledger and artifacts. No figure is computed a second time here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from contracts.panel import Panel
from contracts.release import NANO, Release, current
from contracts.tables import BY_NAME
from privacy.room import consistent
from workflow.artifacts import Artifact, all_of
from workflow.panel_build import kpi_rows
from workflow.warehouse import stamp

NO_RELEASE = "panel"


def stamped(
    frame: pd.DataFrame, artifact: Artifact, release_id: str, version: str, evidence: str | None
) -> pd.DataFrame:
    """`frame` stamped as made by `artifact`."""
    return stamp(
        frame,
        run_id=artifact.run_id,
        release_id=release_id,
        model_version=version,
        as_of=artifact.finished_at.isoformat(),
        evidence_ids=evidence,
    )


def kpi_view(releases: Sequence[Release], min_cohort: int, artifact: Artifact) -> pd.DataFrame:
    """v_kpi of released tables: signed values, suppressed where the block's noisy cohort is small."""
    rows = kpi_rows(releases)
    if rows.empty:
        return pd.DataFrame(columns=list(BY_NAME["v_kpi"].names))
    sizes = cohort_sizes(releases)
    rows["suppressed"] = [
        sizes.get((block, geo), float("inf")) < min_cohort
        for block, geo in zip(rows["block"], rows["geo"], strict=True)
    ]
    rows["evidence_ids"] = rows["release_id"]
    out = stamp(rows, run_id=artifact.run_id, release_id="", model_version="", as_of=artifact.finished_at.isoformat())
    out["release_id"] = rows["release_id"]
    return out.sort_values(["metric", "geo", "week"], ignore_index=True)


def levels_view(releases: Sequence[Release], min_cohort: int, artifact: Artifact) -> pd.DataFrame:
    """v_levels: levels as released and, for weekly cells, as least squares makes them agree with kpi; suppressed where
    the noisy cohorts of an area together are small.
    """
    kpi, sizes = {r.block: r for r in releases if r.measure == "kpi"}, cohort_sizes(releases)
    columns = ["metric", "level", "area", "week", "value", "variance"]
    frames = []
    for levels in (r for r in releases if r.measure == "levels"):
        ids = levels.release_id
        whole = levels.table[levels.table["level"] == "quarter"]
        parts = [whole[columns]]
        if levels.block in kpi and (kpi[levels.block].correction > 0) == (levels.correction > 0):
            parts.insert(0, consistent(kpi[levels.block], levels))
            ids = f"{kpi[levels.block].release_id};{ids}"
        else:  # only one of the two was corrected: they tell of different rows, so nothing is made to agree
            parts.insert(0, levels.table[levels.table["level"] != "quarter"][columns])
        people = _people_of_areas(sizes, levels)
        cells = pd.concat(parts, ignore_index=True).assign(block=levels.block, release_id=ids)
        places = zip(cells["level"] == "region", cells["area"], strict=True)
        cells["suppressed"] = [people.get((region, str(area)), float("inf")) < min_cohort for region, area in places]
        frames.append(cells)
    if not frames:
        return pd.DataFrame(columns=list(BY_NAME["v_levels"].names))
    columns = ["block", "release_id", *columns, "consistent", "consistent_variance", "suppressed"]
    rows = pd.concat(frames, ignore_index=True).reindex(columns=columns)
    rows["evidence_ids"] = rows["release_id"]
    out = stamp(rows, run_id=artifact.run_id, release_id="", model_version="", as_of=artifact.finished_at.isoformat())
    out["release_id"] = rows["release_id"]
    return out


def _people_of_areas(sizes: Mapping[tuple[str, str], float], levels: Release) -> dict[tuple[bool, str], float]:
    """(is a region, area) -> noisy people of its cohorts. Not of the nation, which is never too small to be shown."""
    geos = {geo: people for (block, geo), people in sizes.items() if block == levels.block}
    regions: Mapping[str, Sequence[str]] = levels.metadata["spec"]["regions"]
    known = {name: members for name, members in regions.items() if all(g in geos for g in members)}
    out = {(True, name): sum(geos[g] for g in members) for name, members in known.items()}
    return out | {(False, geo): people for geo, people in geos.items()}


def cohort_sizes(releases: Sequence[Release]) -> dict[tuple[str, str], float]:
    """(block, geo) -> noisy number of people, from the diagnostics tables."""
    out: dict[tuple[str, str], float] = {}
    for release in releases:
        if release.measure == "diagnostics" and "geo" in release.table:
            table = release.table[release.table["metric"] == COHORT_METRIC]
            out |= {(release.block, str(g)): float(v) for g, v in zip(table["geo"], table["value"], strict=True)}
    return out


COHORT_METRIC = "cohort"


def panel_kpi_view(panel: Panel, artifact: Artifact) -> pd.DataFrame:
    """v_kpi of an aggregate panel; cells without a value are left out."""
    rows = [
        {"geo": g, "week": w, "metric": panel.kpi_name, "value": panel.kpi[i, t], "variance": panel.kpi_variance[i, t],
         "suppressed": False}
        for i, g in enumerate(panel.geos) for t, w in enumerate(panel.weeks) if panel.kpi[i, t] == panel.kpi[i, t]
    ]  # fmt: skip
    return stamped(pd.DataFrame(rows), artifact, NO_RELEASE, "", ";".join(panel.evidence_ids))


def runs_view(runs: Path, steps: Iterable[str], skipped: Mapping[str, str], run_id: str) -> pd.DataFrame:
    """v_runs: every artifact still on disk, and the steps that this run skipped."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for step in steps:
        for a in all_of(runs, step):
            rows[a.run_id, step] = {
                "run_id": a.run_id, "step": step, "status": a.status, "reason": a.reason,
                "started_at": a.started_at, "seconds": a.seconds,
            }  # fmt: skip
    for step, reason in skipped.items():
        rows.setdefault((run_id, step), {"run_id": run_id, "step": step, "status": "skipped", "reason": reason,
                                         "started_at": None, "seconds": 0.0})  # fmt: skip
    frame = pd.DataFrame(rows.values(), columns=list(BY_NAME["v_runs"].names))
    frame["started_at"] = pd.to_datetime(frame["started_at"])
    return frame.sort_values(["started_at", "run_id", "step"], ignore_index=True, na_position="last")


def lineage_view(artifacts: Mapping[str, Artifact]) -> pd.DataFrame:
    """v_lineage: what each step's artifact was made from."""
    rows = [
        {"output": f"{step}/{a.key[:12]}", "input": name, "input_hash": digest}
        for step, a in artifacts.items()
        for name, digest in sorted(a.inputs.items())
        if digest
    ]
    return pd.DataFrame(rows, columns=list(BY_NAME["v_lineage"].names))


def gate_checks(artifact: Artifact, prefix: str) -> pd.DataFrame:
    """Rows of v_checks from a fit's gate."""
    rows = json.loads(artifact.path("checks.json").read_text(encoding="utf-8"))
    frame = pd.DataFrame(rows, columns=["name", "subject", "status", "value", "threshold", "text"])
    frame["check_name"] = prefix + frame["name"]
    return frame[list(BY_NAME["v_checks"].names)]


def input_checks(artifact: Artifact) -> pd.DataFrame:
    """Rows of v_checks from `plumb check`."""
    rows = json.loads(artifact.path("checks.json").read_text(encoding="utf-8"))
    return pd.DataFrame(rows, columns=list(BY_NAME["v_checks"].names))


def gap_checks(artifact: Artifact) -> pd.DataFrame:
    """Rows of v_checks: how far the credits' total lies from the kpi table's, in sd."""
    gap, rows = pd.read_parquet(artifact.path("gap.parquet")), []
    for metric, period, sds in zip(gap["metric"], gap["period"], gap["gap_sd"].astype(float), strict=True):
        text = f"credits and kpi totals of {metric} in {period} differ by {sds:.1f} sd of their noise"
        status = "pass" if abs(sds) < MOST_GAP_SD else "warn"
        rows.append(_check("credit_total", f"{metric} {period}", status, sds, MOST_GAP_SD, text))
    return _checks(rows)


MOST_GAP_SD = 4.0


def _check(
    name: str, subject: str, status: str, value: float | None, threshold: float | None, text: str
) -> dict[str, Any]:
    return {"check_name": name, "subject": subject, "status": status, "value": value, "threshold": threshold,
            "text": text}  # fmt: skip


def _checks(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(BY_NAME["v_checks"].names))


def failed_check(name: str, subject: str, why: str) -> pd.DataFrame:
    """One row of v_checks that failed."""
    return _checks([_check(name, subject, "fail", None, None, why)])


def left_out_checks(artifact: Artifact) -> pd.DataFrame:
    """Rows of v_checks: experiments or quarters that a step could not read, and why."""
    left: Mapping[str, str] = artifact.facts.get("left_out", {})
    return _checks([_check(f"{artifact.step} left out", name, "warn", None, None, why) for name, why in left.items()])


def diagnostics_checks(releases: Sequence[Release]) -> pd.DataFrame:
    """Rows of v_checks from the diagnostics tables: consent, bots and clipped mass per block, all with their noise."""
    rows = []
    for release in releases:
        if release.measure != "diagnostics":
            continue
        noisy = release.table[release.table["metric"] != COHORT_METRIC]
        figures = {
            str(m): (float(v), float(x))
            for m, v, x in zip(noisy["metric"], noisy["value"], noisy["variance"], strict=True)
        }
        for metric, (value, variance) in figures.items():
            text = f"{metric}: {value:.0f} (noise sd {variance**0.5:.0f})"
            rows.append(_check(f"diagnostics {metric}", release.block, "pass", value, None, text))
        rows += [_share(release.block, figures, *share) for share in SHARES]
    return _checks(rows)


def cohort_check(releases: Sequence[Release], min_cohort: int) -> pd.DataFrame:
    """One row of v_checks: whether the minimum cohort can be applied to every released quarter of kpi."""
    known = {block for block, _ in cohort_sizes(releases)}
    blind = sorted({r.block for r in releases if r.measure == "kpi"} - known) if min_cohort else []
    text = (
        f"no cell of {', '.join(blind)} can be marked as too small to show: noisy cohort sizes are not released there "
        "(privacy.shares.diagnostics, or the quarter is still open)"
        if blind
        else f"cells of cohorts under {min_cohort} noisy people are marked not for display"
    )
    return _checks([_check("minimum cohort", "kpi", "warn" if blind else "pass", None, min_cohort, text)])


def scale_back_check(panel: Panel) -> pd.DataFrame:
    """One row of v_checks: the factor by which estimates are scaled for what the bounds clipped, never silent."""
    mean, sd = panel.scale_back
    text = (
        f"estimates are scaled by {mean:.3f} (sd {sd:.3f}, drawn with each) for what the bounds clipped: the released "
        "clipped mass, spread evenly by assumption (docs/decisions/0043)"
        if sd > 0
        else "nothing is scaled back: no clipped mass is released, or the noise hides the total"
    )
    return _checks([_check("scaled back for clipping", panel.kpi_name, "pass", mean, None, text)])


# name, part, whole: noisy shares of people
SHARES = (("consent rate", "consenting", "people"), ("invalid share", "invalid_people", "consenting"))


def _share(block: str, figures: Mapping[str, tuple[float, float]], name: str, part: str, whole: str) -> dict[str, Any]:
    """A noisy share with the sd that its two noises give it; no value where the noise hides the whole (under 3 sd).

    Neither clipped to [0, 1] nor rounded. Delta method: Var = (Var part + share² Var whole) ÷ whole².
    """
    (some, v), (of, w) = figures.get(part, (0.0, 0.0)), figures.get(whole, (0.0, 0.0))
    if not of > 3 * w**0.5 > 0:
        text = f"{name}: not told, the noise hides how many people there are"
        return _check(f"diagnostics {name}", block, "pass", None, None, text)
    share = some / of
    sd = (v + share**2 * w) ** 0.5 / of
    text = f"{name}: {share:.1%} of {whole} (noise sd {sd:.1%})"
    return _check(f"diagnostics {name}", block, "pass", share, None, text)


def releases_view(releases: Sequence[Release], run_id: str) -> pd.DataFrame:
    """v_releases: one row per release and bounded vector; those that a correction replaced name it."""
    rows, read = [], {(r.measure, r.block): r.release_id for r in current(releases) if r.correction}
    for r in releases:
        weeks = r.table["week"].dropna().tolist() if "week" in r.table else []  # a cell of a whole quarter has none
        start = min(weeks, default=r.block_start)
        published = pd.Timestamp(str(r.metadata["published_at"])).tz_localize(None)
        for v in r.vectors:
            rows.append({
                "run_id": run_id, "release_id": r.release_id, "measure": r.measure, "block": r.block,
                "period_start": start, "period_end": r.block_end, "vector": v.name, "rho": v.nano_rho / NANO,
                "epsilon": r.epsilon, "delta": r.delta, "l2_bound": v.l2_bound, "sigma": v.sigma,
                "published_at": published, "hash": r.metadata["file_hash"], "correction": r.correction,
                "superseded_by": _other(read.get((r.measure, r.block), ""), r.release_id),
            })  # fmt: skip
    return pd.DataFrame(rows, columns=list(BY_NAME["v_releases"].names))


def _other(newest: str, own: str) -> str:
    return "" if newest == own else newest
