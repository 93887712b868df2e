"""Random assignment of geos: matched pairs and strata. The seed is part of the sealed record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from contracts.errors import ContractError


@dataclass(frozen=True, slots=True)
class Assignment:
    """`treated`, `control`: positions of geos. `blocks`: the pair or stratum of each geo (-1: left out)."""

    treated: np.ndarray
    control: np.ndarray
    blocks: np.ndarray


def _distances(kpi: np.ndarray) -> np.ndarray:
    """Squared distance (G, G) of two geos' histories, on the log scale of size and of shape."""
    if not (kpi.mean(axis=1) > 0).all():
        raise ContractError("every geo needs a positive mean KPI to be matched; leave out those without.")
    size = np.log(kpi.mean(axis=1))
    shape = kpi / kpi.mean(axis=1, keepdims=True)
    apart = ((shape[:, None] - shape[None]) ** 2).mean(axis=2)
    return (size[:, None] - size[None]) ** 2 + apart


def matched_pairs(kpi: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of geos with like histories, least total distance: greedy, then swaps between pairs until none helps.

    `kpi` (G, T) without holes; an odd geo out is left out (the one that costs most). Raises ContractError for fewer
    than two geos or a geo without a positive mean.
    """
    if len(kpi) < 2:
        raise ContractError(f"matched pairs need at least two geos; got {len(kpi)}.")
    cost = _distances(kpi)
    free, pairs = set(range(len(kpi))), []
    rows, columns = np.triu_indices(len(kpi), 1)
    for k in np.argsort(cost[rows, columns], kind="stable"):
        a, b = int(rows[k]), int(columns[k])
        if a in free and b in free:
            pairs.append((a, b))
            free -= {a, b}
    improved = True
    while improved:
        improved = False
        for i in range(len(pairs)):
            for j in range(i):
                (a, b), (c, d) = pairs[i], pairs[j]
                now = cost[a, b] + cost[c, d]
                for one, two in (((a, c), (b, d)), ((a, d), (b, c))):
                    if cost[one] + cost[two] < now - 1e-15:
                        pairs[i], pairs[j], improved = one, two, True
                        break
    return sorted((min(p), max(p)) for p in pairs)


def randomise_pairs(kpi: np.ndarray, seed: int) -> Assignment:
    """One geo of each matched pair is treated, by a fair coin."""
    pairs = matched_pairs(kpi)
    coins = np.random.default_rng(seed).integers(0, 2, len(pairs))
    blocks = np.full(len(kpi), -1)
    for k, (a, b) in enumerate(pairs):
        blocks[[a, b]] = k
    treated = np.array([p[c] for p, c in zip(pairs, coins, strict=True)])
    control = np.array([p[1 - c] for p, c in zip(pairs, coins, strict=True)])
    return Assignment(treated, control, blocks)


def randomise_strata(
    kpi: np.ndarray, seed: int, *, strata: int, share: float = 0.5, excluded: tuple[int, ...] = ()
) -> Assignment:
    """Geos in `strata` classes of like size; in each, `share` of them (rounded at random) is treated.

    Raises ContractError when a stratum would hold fewer than two geos, or `share` treats none or all of one.
    """
    if not 0 < share < 1:
        raise ContractError(f"the treated share must lie between 0 and 1; got {share}.")
    usable = np.array([g for g in np.argsort(kpi.mean(axis=1), kind="stable") if g not in excluded])
    if strata < 1 or len(usable) < 2 * strata:
        raise ContractError(f"{len(usable)} geos do not fill {strata} strata of two or more; ask for fewer strata.")
    rng = np.random.default_rng(seed)
    blocks = np.full(len(kpi), -1)
    treated: list[int] = []
    control: list[int] = []
    for k, members in enumerate(np.array_split(usable, strata)):
        blocks[members] = k
        exact = share * len(members)
        count = int(np.floor(exact)) + int(rng.random() < exact % 1)
        count = min(max(count, 1), len(members) - 1)
        order = rng.permutation(members)
        treated.extend(order[:count])
        control.extend(order[count:])
    return Assignment(np.sort(treated), np.sort(control), blocks)
