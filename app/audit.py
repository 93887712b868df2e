"""View models of Lineage & audit: from a figure back to its inputs, the runs, and who did what when."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from app.rows import each
from app.store import Snapshot
from app.wording import figure, listed

MAX_DEPTH = 12


@dataclass(frozen=True, slots=True)
class Link:
    """One step back: what was made, from what, and the hash of the content that was read."""

    depth: int
    output: str
    source: str
    hash: str


def outputs(s: Snapshot) -> tuple[str, ...]:
    """What lineage can start from: everything that something else was made into, views first."""
    found = dict.fromkeys(str(o) for o in s.lineage["output"])
    return tuple(sorted(found, key=lambda o: (not o.startswith("v_"), o)))


def trace(s: Snapshot, output: str) -> tuple[Link, ...]:
    """Every input behind an output, nearest first, each once. A cycle would end at what was seen before."""
    made = {str(name): rows for name, rows in s.lineage.groupby("output", sort=False)}
    seen, todo, out = {output}, [(0, output)], []
    while todo:
        depth, name = todo.pop(0)
        if depth >= MAX_DEPTH or name not in made:
            continue
        for r in each(made[name]):
            out.append(Link(depth + 1, name, str(r.input), str(r.input_hash or "")))
            if r.input not in seen:
                seen.add(str(r.input))
                todo.append((depth + 1, str(r.input)))
    return tuple(out)


def trace_table(links: tuple[Link, ...]) -> pd.DataFrame:
    """The trace as text."""
    return pd.DataFrame(
        [{"step back": str(k.depth), "made": k.output, "from": k.source, "content hash": k.hash[:16]} for k in links],
        columns=["step back", "made", "from", "content hash"],
    )


def roots(s: Snapshot, links: tuple[Link, ...]) -> str:
    """Where a trace ends, in words."""
    made = {str(o) for o in s.lineage["output"]}
    ends = [k.source for k in links if k.source not in made]
    files = sorted({e for e in ends if not e.startswith("release:")})
    releases = sorted({e for e in ends if e.startswith("release:")})
    parts = [f"{len(releases)} private release{'s' if len(releases) > 1 else ''}"] if releases else []
    parts += [f"the input{'s' if len(files) > 1 else ''} {listed(files)}"] if files else []
    return f"It rests on {listed(parts)}." if parts else "Nothing is recorded behind it."


def runs(s: Snapshot) -> pd.DataFrame:
    """Steps of the job, newest first."""
    rows = s.runs.sort_values("started_at", ascending=False, na_position="last", kind="stable")
    return pd.DataFrame(
        [
            {
                "started": f"{r.started_at:%Y-%m-%d %H:%M:%S} UTC" if pd.notna(r.started_at) else "–",
                "step": str(r.step).replace("_", " "),
                "status": str(r.status).replace("_", " "),
                "seconds": figure(r.seconds),
                "reason": r.reason or "",
                "run": r.run_id,
            }
            for r in each(rows)
        ]
    )


def deeds(s: Snapshot) -> pd.DataFrame:
    """Who did what when: releases charged, scenarios saved, decisions, comments; newest first."""
    rows: list[tuple[pd.Timestamp, str, str, str]] = []
    for r in each(s.releases.drop_duplicates("release_id")):
        rows.append((r.published_at, "the job", "published a release", f"{r.measure} of {r.block}, {r.release_id}"))
    saved = s.scenarios[s.scenarios["scenario_id"].fillna("") != ""].drop_duplicates(["scenario_id", "version"])
    for r in each(saved):
        rows.append((r.as_of, r.author, "saved a scenario", f"{r.scenario}, version {r.version}"))
    names = dict(zip(saved["scenario_id"], saved["scenario"], strict=True))
    for r in each(s.approvals):
        what = f"{names.get(r.scenario_id, r.scenario_id)}, version {r.version}: {r.reason}"
        rows.append((r.decided_at, r.author, f"{r.decision} a scenario", what))
    for r in each(s.comments):
        about = names.get(r.subject_id, r.subject_id)
        rows.append((r.written_at, r.author, f"commented on the {r.subject_kind} {about}", r.text))
    rows.sort(key=lambda row: row[0], reverse=True)
    return pd.DataFrame(
        [{"when": f"{t:%Y-%m-%d %H:%M} UTC", "who": who, "did": did, "what": what} for t, who, did, what in rows],
        columns=["when", "who", "did", "what"],
    )
