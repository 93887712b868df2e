"""States of a Markov chain of order k: the last k channels of a journey, fewer near its start.

State 0 is the start. Then come the K states of one channel, the K² of two, up to K^k of k; inside one length the newest
channel runs fastest. A released flow table has one row a state in this order.

| on paper | here | dims |
|---|---|---|
| K channels, order k | channels, order | |
| S = K + K² + ... + K^k | count | |
| state after s when c is seen | onward | (1 + S, K) |
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np

from contracts.errors import ContractError

JOIN = ">"  # between the channels of a state's name in a release
MAX_ORDER = 4


@dataclass(frozen=True, slots=True)
class States:
    """The states of one order. Rows of `onward` and `shorter` count the start as state 0."""

    channels: int
    order: int
    onward: np.ndarray  # (1 + S, K) state reached
    newest: np.ndarray  # (S,) channel that a state ends in
    shorter: np.ndarray  # (S,) the state without its oldest channel; 0 for a state of one channel

    @property
    def count(self) -> int:
        """S, without the start."""
        return len(self.newest)


@cache
def states_of(channels: int, order: int) -> States:
    """All states of 1 .. order channels."""
    words = [w for size in range(order + 1) for w in product(range(channels), repeat=size)]
    at = {w: i for i, w in enumerate(words)}
    onward = np.array([[at[(*w, c)[-order:]] for c in range(channels)] for w in words], dtype=int)
    newest = np.array([w[-1] for w in words[1:]], dtype=int)
    shorter = np.array([at[w[1:]] for w in words[1:]], dtype=int)
    return States(channels, order, onward.reshape(len(words), channels), newest, shorter)


def state_names(channels: tuple[str, ...], order: int) -> dict[str, int]:
    """Name in a release -> state, the start included."""
    words = (w for size in range(1, order + 1) for w in product(channels, repeat=size))
    return {"start": 0} | {JOIN.join(w): i for i, w in enumerate(words, 1)}


def order_of(channels: int, sources: int) -> int:
    """The order of a flow table with so many sources besides the start. Raises ContractError when none fits."""
    total = 0
    for order in range(1, MAX_ORDER + 1):
        total += channels**order
        if total == sources:
            return order
    raise ContractError(
        f"the flow table has {sources} sources for {channels} channels, which fits no order from 1 to {MAX_ORDER}; "
        "release it again."
    )
