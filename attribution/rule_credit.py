"""Credit of declared per-person rules, as released: the reader of `credit` releases.

The rules were applied person by person inside the privacy room; what is read here are signed noisy sums with known
variance. Nothing is estimated: a rule's credit by channel is the released cell.

| on paper | here | unit |
|---|---|---|
| A[r,c,m] | value | conversions, or currency |
| tau²[r,m] | variance | of the released noise, independent between cells |
| clipped[r,m] | clipped, clipped_variance | credit that the bound took from all channels together, same unit |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from contracts.errors import ContractError
from contracts.release import Release

CLIPPED = "clipped:"


@dataclass(frozen=True, slots=True)
class RuleCredit:
    """One rule and metric of one block. `channels` ends with 'unattributed'; arrays are (channels,)."""

    model: str
    metric: str
    channels: tuple[str, ...]
    value: np.ndarray
    variance: np.ndarray
    clipped: float  # nan where it was not released
    clipped_variance: float
    parameters: dict[str, Any]  # what was declared of the rule

    @property
    def total(self) -> tuple[float, float]:
        """Credit of all channels and 'unattributed', and its variance."""
        return float(self.value.sum()), float(self.variance.sum())


def read_credit(release: Release) -> tuple[RuleCredit, ...]:
    """Every rule x metric of a credit release, in the order of the release.

    Raises ContractError when the release is of another measure or does not say what its rules are.
    """
    if release.measure != "credit":
        raise ContractError(f"release {release.release_id!r} holds {release.measure!r}; this reads 'credit'.")
    rules = (release.metadata.get("credit") or {}).get("rules", {})
    names = [str(v) for v in release.table["vector"].unique() if not str(v).startswith(CLIPPED)]
    out = []
    for name in names:
        rows = release.vector(name)
        model, metric = str(rows["model"][0]), str(rows["metric"][0])
        if model not in rules:
            raise ContractError(f"credit release {release.release_id!r} does not declare its rule {model!r}.")
        lost = release.table[release.table["vector"] == CLIPPED + name]
        mass, variance = (float(lost[c].iloc[0]) if len(lost) else float("nan") for c in ("value", "variance"))
        out.append(
            RuleCredit(
                model,
                metric,
                tuple(map(str, rows["channel"])),
                rows["value"].to_numpy(float),
                rows["variance"].to_numpy(float),
                mass,
                variance,
                dict(rules[model]),
            )
        )
    return tuple(out)
