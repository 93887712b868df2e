"""v_credit, its history and v_parity from credit artifacts. The history is every version that was ever published."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from attribution.parity import Finding, versions
from contracts.columns import STAMP
from contracts.tables import BY_NAME
from workflow.artifacts import Artifact
from workflow.codec import credits_of, frame_of
from workflow.views_out import stamped

_OWN = [c for c in BY_NAME["v_credit"].names if c not in {s.name for s in STAMP} - {"evidence_ids"}]


def credit_view(artifact: Artifact, source: str) -> pd.DataFrame:
    """v_credit of one version. A version made before a column existed has NULL there."""
    frame = pd.read_parquet(artifact.path("credits.parquet"))
    return stamped(frame.reindex(columns=_OWN), artifact, source, "", None)


def credit_history(published: Sequence[Artifact], source: str) -> pd.DataFrame | None:
    """v_credit_history: every published version, oldest first; one of each run."""
    frames = [credit_view(a, source) for a in {a.run_id: a for a in published}.values()]
    return pd.concat(frames, ignore_index=True) if frames else None


def parity_view(published: Sequence[Artifact], source: str) -> pd.DataFrame | None:
    """v_parity of the newest published version, with its comparison to the one before."""
    if not published:
        return None
    now = published[-1]
    path = now.path("parity.parquet")
    frame = pd.read_parquet(path) if path.is_file() else pd.DataFrame(columns=list(Finding.__dataclass_fields__))
    if len(published) > 1:
        pair = [credits_of(pd.read_parquet(a.path("credits.parquet"))) for a in (now, published[-2])]
        since = frame_of(versions(*pair), Finding)
        frame = pd.concat([f for f in (frame, since) if not f.empty] or [frame], ignore_index=True)
    return stamped(frame, now, source, "", ";".join(sorted(_evidence(now))))


def _evidence(artifact: Artifact) -> set[str]:
    joined = pd.read_parquet(artifact.path("credits.parquet"), columns=["evidence_ids"])["evidence_ids"].unique()
    return {i for ids in joined for i in str(ids).split(";") if i}


def parity_checks(published: Sequence[Artifact]) -> pd.DataFrame:
    """Rows of v_checks: one per kind of comparison, with how many of them warn, and the first that does.

    That models disagree is no fault of anything, so it stands in v_parity only.
    """
    view = parity_view(published, "")
    rows = []
    for kind, found in view.groupby("kind") if view is not None and not view.empty else ():
        if kind == "models":
            continue
        bad = found[found["status"] == "warn"]
        text = f"{len(bad)} of {len(found)} comparisons warn" + (f"; {bad['text'].iloc[0]}" if len(bad) else "")
        rows.append(("credit parity", str(kind), "warn" if len(bad) else "pass", float(len(bad)), 0.0, text))
    return pd.DataFrame(rows, columns=list(BY_NAME["v_checks"].names))
