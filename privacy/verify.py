"""Recomputes everything about a release that can be recomputed, and says what cannot.

| status | means |
|---|---|
| holds | computed again, and the same |
| fails | computed again, and not the same: the file, the ledger or the code that wrote it cannot be trusted |
| differs | not the same and need not be: other code, libraries or declarations than today |
| unknown | cannot be computed from what is kept |

What can never be checked here: that the noise was drawn as stated (a draw has no seed and is not repeated), and the
totals under it (the rows are not kept). Tests of the sampler and of the bounding stand for both (docs/privacy.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from opendp.mod import OpenDPException

from contracts.errors import PlumblineError, PrivacyError
from contracts.release import NANO, Release
from contracts.trials import design_of
from privacy import files, trials
from privacy.budget import QUARTERS_PER_YEAR, Recorded, Spending
from privacy.disk import file_hash
from privacy.measure_policies import TrialPolicy
from privacy.mechanism import cost, epsilon_of, sigma_for
from privacy.released import fault
from privacy.vectors import ReleasePlan, digest, keys_hash

Status = Literal["holds", "fails", "differs", "unknown"]
MEASURED = ("vector", "units", "value", "variance")
# what computing with metadata that may say anything ends in: a file received from elsewhere may hold any JSON
UNREADABLE = (
    ArithmeticError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError, OpenDPException,
    PlumblineError,
)  # fmt: skip
CLOSE = 1e-12  # relative; both sides are products of the same doubles


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was computed again."""

    name: str
    status: Status
    text: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a release is compared with: the ledger (None when it cannot be trusted) and today's declared question."""

    spending: Spending | None
    plans: Mapping[str, ReleasePlan] | None  # by release id; None when plumb.toml gives no question today


def verify_file(path: Path, around: Surroundings, *, stored: bool) -> tuple[str, tuple[Check, ...]]:
    """(release id, checks) of one file; `stored` says that it lies among the workspace's releases.

    A file that cannot be read at all is one failed check.
    """
    try:
        release = files.read_release(path)
    except PrivacyError as error:
        return path.stem, (Check("file", "fails", str(error)),)
    parts: dict[str, Callable[[], Iterator[Check]]] = {
        "place": lambda: _place(path, release, stored),
        "ledger": lambda: _against_ledger(path, release, around.spending),
        "question": lambda: _question(release),
        "table": lambda: _table(release),
        "keys": lambda: _keys(release),
        "noise": lambda: _noise(release),
        "price": lambda: _price(release),
        "figures": lambda: _figures(release),
        "plumb.toml": lambda: _declared(release, around.plans),
        "makers": lambda: _makers(release),
        "not kept": _not_kept,
    }
    checks = [check for name, part in parts.items() for check in _guarded(name, part)]
    return release.release_id, tuple(checks)


def _guarded(name: str, part: Callable[[], Iterator[Check]]) -> list[Check]:
    """The checks of one part; metadata that it cannot be computed from is a failure, not a fault."""
    try:
        with np.errstate(over="raise", invalid="raise", divide="raise"):  # of figures that only a forger writes
            return list(part())
    except UNREADABLE as error:
        said = (str(error).splitlines() or [""])[0]
        return [Check(name, "fails", f"its metadata cannot be read ({type(error).__name__}: {said[:200]})")]


def _same(name: str, sound: bool, good: str, bad: str) -> Check:
    return Check(name, "holds" if sound else "fails", good if sound else bad)


def _place(path: Path, release: Release, stored: bool) -> Iterator[Check]:
    if not stored:
        return
    plain = path.is_file() and not path.is_symlink()
    named = path.name == f"{release.release_id}.parquet"
    text = "is a link; a release is a plain file" if not plain else f"holds {release.release_id}"
    yield _same("place", plain and named, "a plain file under its own id", f"{path.name} {text}")


def _against_ledger(path: Path, release: Release, spending: Spending | None) -> Iterator[Check]:
    if spending is None:
        yield Check("ledger", "unknown", "no ledger to compare with")
        return
    known, meta = spending.live(release.release_id), release.metadata
    if known is None or known.state != "published":
        yield Check("ledger", "fails", "the ledger of this workspace never published it")
        return
    yield _same(
        "file hash",
        file_hash(path) == known.out_hash,
        "the file is the one whose hash the ledger committed",
        "the file was edited after publication",
    )
    yield _same(
        "ledger entry",
        (meta.get("ledger_head"), meta.get("spec_hash"), release.measure)
        == (known.reserve_hash, known.spec_hash, known.measure),
        "names the entry that charged it, under the same question and measure",
        "the entry that it names is not the one that charged it",
    )
    payer = meta.get("spec", {}).get("paid_by", release.measure)
    yield _same(
        "payer",
        payer == known.share,
        f"the {known.share} share pays it, as its question says",
        f"the ledger charged the {known.share} share, its question says {payer}",
    )
    charged = {(block, meta.get("nano_rho")) for block in meta.get("blocks", [])}
    yield _same(
        "charge",
        charged == set(known.charges),
        f"rho {release.rho:g} is charged to {len(charged)} block(s), as the file says",
        f"the ledger charged {dict(known.charges)} nano-rho, the file says {sorted(charged)}",
    )
    yield from _caps(release, known, spending)


def _caps(release: Release, known: Recorded, spending: Spending) -> Iterator[Check]:
    caps = {q.block: q for q in spending.quarters}
    mine = [caps[block] for block, _ in known.charges if block in caps]
    within = len(mine) == len(known.charges) and all(q.spent_nano <= q.cap_nano for q in mine)
    stated = release.metadata.get("quarter", {}).get("nano_rho")
    yield _same(
        "grant",
        within and all(q.cap_nano == stated for q in mine),
        "its quarters are within their grant, and the grant is the one it states",
        "a quarter is over its grant, or the grant is not the one it states",
    )


def _question(release: Release) -> Iterator[Check]:
    meta = release.metadata
    if "spec" not in meta:
        yield Check("question", "unknown", "made before releases carried their question")
        return
    spec, hashed = meta["spec"], digest(meta["spec"])
    sound = hashed == meta["spec_hash"] and release.release_id.endswith(f"-{hashed[:16]}")
    yield _same("question", sound, "its id is the hash of the question inside", "its id is not that of its question")
    told = (spec["measure"], spec["blocks"], spec["experiment"], spec["keys"], spec.get("correction", 0))
    found = (meta["measure"], meta["blocks"], meta["experiment"], meta["keys_hash"], release.correction)
    vectors = [[v["name"], v["bound_units"], v["cells"], v["nano_rho"]] for v in meta["vectors"]]
    asked = [[name, units, cells, nano] for name, units, _, _, cells, nano in spec["vectors"]]
    yield _same("answer", told == found and vectors == asked, "it answers that question", "it answers another question")


def _table(release: Release) -> Iterator[Check]:
    found = fault(release.measure, release.table, tuple(v.name for v in release.vectors))
    good = "its columns, types and keys are those of its measure"
    yield _same("table", not found, good, f"its table breaks the contract of its measure: {found}")


def _rows(release: Release) -> dict[str, pd.DataFrame]:
    names = [v.name for v in release.vectors]
    return {n: release.table[release.table["vector"] == n].reset_index(drop=True) for n in names}


def _keys(release: Release) -> Iterator[Check]:
    rows = _rows(release)
    keys = {name: table[[c for c in table.columns if c not in MEASURED]] for name, table in rows.items()}
    sound = keys_hash(keys) == release.metadata["keys_hash"] and sum(map(len, rows.values())) == len(release.table)
    yield _same("keys", sound, "its rows are the declared keys, in order", "its rows are not the declared keys")


def _noise(release: Release) -> Iterator[Check]:
    for spec, v in zip(release.vectors, release.metadata["vectors"], strict=True):
        units, nano, sigma = int(v["bound_units"]), int(v["nano_rho"]), float(v["sigma_units"])
        price = cost(units, sigma)
        again = sigma_for(units, nano)
        sound = price * NANO <= nano and math.isclose(again, sigma, rel_tol=1e-9)
        sound = sound and math.isclose(spec.l2_bound, units * spec.unit, rel_tol=CLOSE)
        sound = sound and math.isclose(spec.sigma, sigma * spec.unit, rel_tol=CLOSE)
        text = f"sigma {spec.sigma:g} for C {spec.l2_bound:g}"
        yield _same(
            f"noise of {v['name']}",
            sound,
            f"{text} costs at most {nano} nano-rho by OpenDP's map, and is the smallest that does",
            f"{text} is not what {nano} nano-rho buy (computed again: {again * spec.unit:g})",
        )


def _price(release: Release) -> Iterator[Check]:
    meta = release.metadata
    parts = sum(v.nano_rho for v in release.vectors)
    yield _same(
        "rho", parts == meta["nano_rho"], "its vectors add up to its rho", "its vectors do not add up to its rho"
    )
    quarter, year, delta = meta["quarter"], meta["year"], meta["delta"]
    pairs = (
        (meta["nano_rho"], meta["epsilon"]),
        (quarter["nano_rho"], quarter["epsilon"]),
        (year["nano_rho"], year["epsilon"]),
    )
    sound = all(math.isclose(epsilon_of(nano, delta), epsilon, rel_tol=1e-9) for nano, epsilon in pairs)
    sound = sound and year["nano_rho"] == QUARTERS_PER_YEAR * quarter["nano_rho"]
    yield _same(
        "epsilon",
        sound,
        f"epsilon {meta['epsilon']:.4g} (quarter {quarter['epsilon']:.4g}, year {year['epsilon']:.4g}) at {delta:g}",
        "epsilon is not that of its rho",
    )


def _scale(release: Release, cells: int) -> np.ndarray:
    """(cells,) metric units per normalised unit: of trials the component bounds, else ones."""
    if release.measure != "trials":
        return np.ones(cells)
    spec: Mapping[str, Any] = release.metadata.get("spec", {})
    design = design_of(spec.get("design"))
    components = design.look_components() if spec.get("look") else design.components()
    bounds = trials.component_bounds(TrialPolicy(**release.metadata["trial_bounds"]), components, design.covariate)
    return np.tile(bounds, cells // len(bounds))


def _figures(release: Release) -> Iterator[Check]:
    for spec in release.vectors:
        rows = release.vector(spec.name)
        scale = _scale(release, len(rows))
        value = rows["units"].to_numpy(float) * spec.unit * scale
        variance = (spec.sigma * scale) ** 2
        sound = np.allclose(rows["value"].to_numpy(float), value, rtol=1e-9, atol=0) and np.allclose(
            rows["variance"].to_numpy(float), variance, rtol=1e-9, atol=0
        )
        yield _same(
            f"figures of {spec.name}",
            bool(sound),
            "value and variance follow from units and sigma in every row",
            "value or variance does not follow from units and sigma",
        )


def _declared(release: Release, plans: Mapping[str, ReleasePlan] | None) -> Iterator[Check]:
    if plans is None:
        yield Check("plumb.toml", "unknown", "plumb.toml gives no question to compare with")
    elif release.release_id in plans:
        sound = plans[release.release_id].spec_hash == release.metadata.get("spec_hash")
        yield _same("plumb.toml", sound, "plumb.toml asks this very question today", "plumb.toml gives another hash")
    else:
        yield Check("plumb.toml", "differs", "plumb.toml asks another question today; the file's own was used")


def _makers(release: Release) -> Iterator[Check]:
    meta = release.metadata
    same = meta.get("code_hash") == files.code_hash()
    text = "made by the code that runs now" if same else f"made by other code ({str(meta.get('code_hash'))[:12]})"
    yield Check("code", "holds" if same else "differs", text)
    then, now = meta.get("dependencies"), dict(files.dependencies())
    if then is None:
        yield Check("libraries", "unknown", "made before releases carried their versions")
        return
    yield _same(
        "libraries' hash",
        files.dependency_hash(then) == meta.get("dependency_hash"),
        "the versions are those of its hash",
        "the versions are not those of its hash",
    )
    changed = [f"{n} {then.get(n, 'none')} (now {now.get(n, 'none')})" for n in sorted({*then, *now})
               if then.get(n) != now.get(n)]  # fmt: skip
    yield Check("libraries", "differs" if changed else "holds", ", ".join(changed) or "the same versions as now")


def _not_kept() -> Iterator[Check]:
    yield Check("the draw", "unknown", "noise has no seed and is not drawn again; the sampler's tests stand for it")
    yield Check("the rows", "unknown", "rows about people are not kept with a release; bounding's tests stand for it")
