"""Credit from enumerated journeys: aggregate path lists such as clean rooms export (path, conversions, others, value).

The same models as from a release, on exact counts, for any number of channels: states of order k are those that occur,
transitions are sparse, and the removal effects of all channels are solved together,

    w_i = r + Q_i w_i,     Q_i = Q without what enters a state that ends in i,     RE_i = 1 − (q0 w_i) / (q0 p),

to a residual of `TOLERANCE`. The error of a removal effect is at most the residual times the longest expected journey.
Sizes: 100 channels and 200,000 journeys of order 2 have about 10,000 states; see docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from contracts.errors import ContractError

TOLERANCE = 1e-12  # largest residual of any state, in the L2 norm over states
MOST_STEPS = 2000


@dataclass(frozen=True, slots=True)
class Paths:
    """Journeys laid end to end: `touch` (T,) are positions in `channels`, journey j is touch[start[j]:start[j + 1]]."""

    channels: tuple[str, ...]
    touch: np.ndarray  # (T,) int
    start: np.ndarray  # (J + 1,) int
    conversions: np.ndarray  # (J,) >= 0
    others: np.ndarray  # (J,) >= 0, journeys that did not convert
    value: np.ndarray  # (J,) revenue of the conversions; zeros where unknown

    def __post_init__(self) -> None:
        j = len(self.start) - 1
        for name in ("conversions", "others", "value"):
            amount = getattr(self, name)
            if amount.shape != (j,):
                raise ContractError(f"paths {name} must have shape {(j,)}; got {amount.shape}.")
            if not (np.isfinite(amount).all() and (amount >= 0).all()):
                raise ContractError(f"paths {name} must be finite numbers >= 0.")
        if (np.diff(self.start) < 1).any():
            raise ContractError("every path needs at least one touch; put conversions without a touch elsewhere.")

    @property
    def length(self) -> np.ndarray:
        """Touches (J,) of each journey."""
        return np.diff(self.start)


def read_paths(
    texts: Sequence[str],
    conversions: np.ndarray,
    others: np.ndarray | None = None,
    value: np.ndarray | None = None,
    separator: str = ">",
) -> Paths:
    """Paths from text such as 'search > social'. Blanks around names do not count. Raises ContractError."""
    lists = pc.split_pattern(pa.array([str(t) for t in texts], pa.string()), separator)
    words = pc.utf8_trim_whitespace(lists.flatten()).dictionary_encode()
    names = [str(n) for n in words.dictionary.to_pylist()]
    starts = lists.offsets.to_numpy()
    found = words.indices.to_numpy()
    if "" in names:
        row = int(np.searchsorted(starts, np.flatnonzero(found == names.index(""))[0], side="right")) - 1
        raise ContractError(f"path {row + 1} ({texts[row]!r}) holds an empty channel; mend it.")
    channels = tuple(sorted(names))
    at = {c: i for i, c in enumerate(channels)}
    touch = np.array([at[n] for n in names], dtype=np.int64)[found]
    zeros = np.zeros(len(texts))
    return Paths(
        channels,
        touch,
        starts.astype(np.int64),
        np.asarray(conversions, dtype=float),
        zeros if others is None else np.asarray(others, dtype=float),
        zeros if value is None else np.asarray(value, dtype=float),
    )


def without_runs(paths: Paths) -> Paths:
    """The same journeys with runs of one channel counted once (the option 'no self-loops')."""
    first = np.zeros(len(paths.touch), dtype=bool)
    first[paths.start[:-1]] = True
    keep = first | np.r_[True, paths.touch[1:] != paths.touch[:-1]]
    lengths = np.add.reduceat(keep, paths.start[:-1]) if len(keep) else np.zeros(0, int)
    return Paths(
        paths.channels, paths.touch[keep], np.r_[0, np.cumsum(lengths)], paths.conversions, paths.others, paths.value
    )


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of order k over the states that occur. Rows are probabilities."""

    move: sparse.csr_array  # (S, S)
    start: np.ndarray  # (S,)
    win: np.ndarray  # (S,)
    newest: np.ndarray  # (S,) channel that a state ends in


def chain_of(paths: Paths, order: int) -> Chain:
    """Counts of the journeys' transitions of order k, as probabilities."""
    if order < 1:
        raise ContractError(f"the order of a Markov model must be 1 or more; got {order}.")
    k, n = len(paths.channels), len(paths.touch)
    if (k + 1.0) ** order > 2.0**62:
        raise ContractError(f"states of {order} of {k} channels cannot be numbered; lower the order.")
    first = np.zeros(n, dtype=bool)
    first[paths.start[:-1]] = True
    code, back, seen = paths.touch + 1, paths.touch + 1, first.copy()
    for step in range(1, order):
        back = np.r_[0, back[:-1]]
        back[seen] = 0  # no touch stands before the first one
        code = code + back * (k + 1) ** step
        seen = seen | np.r_[False, seen[:-1]]
    states, at = np.unique(code, return_inverse=True)
    size, total = len(states), paths.conversions + paths.others
    weight = np.repeat(total, paths.length)
    last = np.zeros(n, dtype=bool)
    last[paths.start[1:] - 1] = True
    inner = np.flatnonzero(~last)
    visits = np.bincount(at, weights=weight, minlength=size)
    scale = 1 / np.where(visits > 0, visits, 1.0)
    counts = sparse.coo_array((weight[inner], (at[inner], at[inner + 1])), shape=(size, size)).tocsr()
    move = sparse.csr_array(sparse.diags_array(scale) @ counts)
    begin = np.bincount(at[paths.start[:-1]], weights=total, minlength=size) / total.sum()
    win = np.bincount(at[last], weights=paths.conversions, minlength=size) * scale
    return Chain(move, begin, win, (states % (k + 1) - 1).astype(np.int64))


def removal_effects(chain: Chain, channels: int, tolerance: float = TOLERANCE) -> np.ndarray:
    """Share (K,) of the conversions that is lost when a channel leads nowhere."""
    wins = chain.start @ _solve(chain, channels, tolerance)
    if wins[-1] <= 0:
        raise ContractError("no path converts, so there is nothing to credit.")
    effects: np.ndarray = 1 - wins[:-1] / wins[-1]
    return effects


def _solve(chain: Chain, channels: int, tolerance: float) -> np.ndarray:
    """Probability (S, K + 1) to convert without channel i (last column: with all), by extrapolated value iteration.

    A state ends in one channel, so removing it is one zero a row. The error of a step shrinks by the chance that a
    journey goes on; its largest part shrinks by one factor a column, which is measured and summed to its end.
    """
    rows = np.arange(len(chain.newest))
    right = np.repeat(chain.win[:, None], channels + 1, axis=1)
    right[rows, chain.newest] = 0.0
    x, before = right.copy(), np.ones(channels + 1)
    change = right
    for step in range(1, MOST_STEPS):
        fresh = chain.move @ x
        fresh += right
        fresh[rows, chain.newest] = 0.0
        older, change = change, np.subtract(fresh, x, out=x)
        x = fresh
        if step % 4 == 0:
            size = np.einsum("sm,sm->m", change, change)
            if float(np.sqrt(size.max())) <= tolerance:
                return x
            factor = np.einsum("sm,sm->m", change, older) / np.where(before > 0, before, 1.0)
            safe = np.clip(factor, 0.0, 0.95)
            x = x + change * (safe / (1 - safe))
        elif step % 4 == 3:
            before = np.einsum("sm,sm->m", change, change)
            change = change.copy()
    raise ContractError(f"the Markov chain did not settle within {MOST_STEPS} steps; journeys in it never seem to end.")


def path_credit(paths: Paths, model: str, *, order: int = 1, revenue: bool = False) -> np.ndarray:
    """Credit (K,) of one model: last_touch, first_touch, linear, shapley or markov; conversions, or revenue.

    Sums to the conversions (revenue) of the paths; Markov revenue is its conversion shares of the revenue. Raises
    ContractError for another model.
    """
    amount = paths.value if revenue else paths.conversions
    k = len(paths.channels)
    if model == "markov":
        effects = removal_effects(chain_of(paths, order), k)
        out: np.ndarray = effects / effects.sum() * amount.sum()
        return out
    if model == "last_touch":
        return np.bincount(paths.touch[paths.start[1:] - 1], weights=amount, minlength=k)
    if model == "first_touch":
        return np.bincount(paths.touch[paths.start[:-1]], weights=amount, minlength=k)
    journey = np.repeat(np.arange(len(amount)), paths.length)
    if model == "linear":
        return np.bincount(paths.touch, weights=(amount / paths.length)[journey], minlength=k)
    if model == "shapley":
        pairs = np.unique(journey * k + paths.touch)
        distinct = np.bincount(pairs // k, minlength=len(amount))
        return np.bincount(pairs % k, weights=(amount / distinct)[pairs // k], minlength=k)
    raise ContractError(
        f"unknown credit model {model!r} of paths; the models are last_touch, first_touch, linear, shapley, markov."
    )
