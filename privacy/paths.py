"""Which of a journey's touches count: path transforms and the look-back window, before anything is counted.

Each is a function of one person's touches of one journey, so it changes no sensitivity. Names in brackets are those of
common attribution packages.

| path | keeps |
|---|---|
| all | every touch (`unique`, no reduction) |
| first_of_run, last_of_run | one touch of each run of touches of the same channel (`exposure`) |
| first_of_channel, last_of_channel | one touch of each channel (`first`) |

The two `_of_run` paths give the same sequence of channels; they differ in the age of what is kept, which only time
decay and the look-back window see.
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

PATHS = ("all", "first_of_run", "last_of_run", "first_of_channel", "last_of_channel")
WHOLE_BLOCK = 98  # days: no block is longer, so a look-back window of so many days cuts nothing


def reduced(touches: ir.Table, path: str) -> ir.Table:
    """`touches` (person, journey, seq, channel, ...) without those that `path` leaves out."""
    if path == "all":
        return touches
    newest = path.startswith("last")
    order = touches.seq.desc() if newest else touches.seq
    if path.endswith("_of_channel"):
        mine = ibis.window(group_by=[touches.person, touches.journey, touches.channel], order_by=order)
        ranked = touches.mutate(again=ibis.row_number().over(mine))
        return ranked.filter(ranked.again == 0).drop("again")
    whole = ibis.window(group_by=[touches.person, touches.journey], order_by=touches.seq)
    beside = touches.channel.lead() if newest else touches.channel.lag()
    marked = touches.mutate(beside=beside.over(whole))
    return marked.filter(marked.beside.isnull() | (marked.beside != marked.channel)).drop("beside")


def within(touches: ir.Table, conversions: ir.Table, lookback_days: int) -> ir.Table:
    """Touches at most `lookback_days` local days before the conversion that ends their journey.

    A journey that did not convert is measured back from its own last touch. `touches` has a column day, `conversions`
    (person, journey, day) one row per journey that converted.
    """
    if lookback_days >= WHOLE_BLOCK:
        return touches
    ended = conversions.select("person", "journey", end="day")
    joined = touches.left_join(ended, ["person", "journey"])
    joined = joined.select(*touches.columns, end="end")
    last = joined.day.max().over(ibis.window(group_by=[joined.person, joined.journey]))
    aged = joined.mutate(age=ibis.greatest(ibis.coalesce(joined.end, last) - joined.day, 0).cast("int64"))
    return aged.filter(aged.age <= lookback_days).select(*touches.columns)
