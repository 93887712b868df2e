"""Writes the input files of DESIGN section 2 and, apart, the truth."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from simulate.demand import Demand
from simulate.media import Media, Trial, treated_spend_delta
from simulate.params import CHANNELS, HISTORY, POPULATION_PER_PERSON, TRAITS
from simulate.people import EXPOSED, People
from simulate.touches import EVENTS, NONE, Events

CURRENCY = "EUR"
EVENT_COLUMNS = ("event_id", "user_id", "ts", "event", "channel", "geo", "value", "currency", "consent", "valid")


def geo_names(geos: int) -> list[str]:
    """geo_01, geo_02, ...; as many digits as it takes, at least two."""
    width = max(2, len(str(geos)))
    return [f"geo_{i + 1:0{width}d}" for i in range(geos)]


def numbered(prefix: str, numbers: np.ndarray, width: int) -> pa.Array:
    """Strings such as u000123."""
    padded = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), width=width, padding="0")
    return pc.binary_join_element_wise(prefix, padded, "")


def user_ids(people: People) -> pa.Array:
    """One id a person, in the order of the people."""
    return numbered("u", people.user_number, max(6, len(str(people.size))))


def _pick(words: list[str], index: np.ndarray) -> pa.Array:
    """words[index]; null where index is -1."""
    codes = pa.array(index.astype(np.int32), mask=index < 0)
    return pa.array(words).take(codes)


def write_events(
    path: Path,
    events: Events,
    valid: np.ndarray,
    people: People,
    names: list[str],
    start: date,
    repeated: np.ndarray,
) -> None:
    """One row an event in order of time; rows at the positions `repeated` appear twice, as exact copies."""
    order = np.argsort(events.ts, kind="stable")
    rows, ok = events.take(order), valid[order]
    origin = int(datetime.combine(start, time(), tzinfo=UTC).timestamp()) * 1_000_000
    converts = rows.event == EVENTS.index("conversion")
    table = pa.table(
        {
            "event_id": numbered("e", np.arange(len(order)), 9),
            "user_id": user_ids(people).take(pa.array(rows.person)),
            "ts": pa.array(rows.ts + origin).cast(pa.timestamp("us", tz="UTC")),
            "event": _pick(list(EVENTS), rows.event),
            "channel": _pick(list(CHANNELS), rows.channel),
            "geo": _pick(names, people.geo[rows.person]),
            "value": pa.array(rows.value, mask=~converts),
            "currency": _pick([CURRENCY], np.where(converts, 0, NONE)),
            "consent": pa.array(people.consent[rows.person]),
            "valid": pa.array(ok),
        }
    ).select(EVENT_COLUMNS)
    copies = table.take(pa.array(repeated))
    pq.write_table(pa.concat_tables([table, copies]), path, compression="zstd")


def _grid(start: date, names: list[str], weeks: int) -> tuple[np.ndarray, np.ndarray]:
    """Date and geo columns of a geo × week table, geo by geo."""
    days = [(start + timedelta(weeks=t)).isoformat() for t in range(weeks)]
    return np.tile(days, len(names)), np.repeat(names, weeks)


def spend_table(media: Media, names: list[str], start: date, noise: np.ndarray) -> pd.DataFrame:
    """date, geo, channel, spend, currency, impressions; `noise` (channel, geo, week) is the log price of reach."""
    weeks = media.spend.shape[2]
    parts = []
    for c, channel in enumerate(CHANNELS):
        day, geo = _grid(start, names, weeks)
        spend = media.spend[c].ravel()
        impressions = np.round(spend / TRAITS[c].cpm * 1000 * np.exp(noise[c].ravel())).astype(np.int64)
        frame = {"date": day, "geo": geo, "channel": channel, "spend": spend, "currency": CURRENCY}
        parts.append(pd.DataFrame(frame | {"impressions": impressions}))
    return pd.concat(parts, ignore_index=True)


def controls_table(demand: Demand, people: People, names: list[str], start: date) -> pd.DataFrame:
    """date, geo, population, price, promo, demand_index for the panel's weeks."""
    weeks = demand.promo.shape[1] - HISTORY
    day, geo = _grid(start, names, weeks)
    return pd.DataFrame(
        {
            "date": day,
            "geo": geo,
            "population": np.repeat(people.per_geo * POPULATION_PER_PERSON, weeks),
            "price": demand.price[:, HISTORY:].ravel(),
            "promo": demand.promo[:, HISTORY:].ravel(),
            "demand_index": demand.index[:, HISTORY:].ravel(),
        }
    )


def assignments_table(people: People, trial: Trial, known: pd.DataFrame | None = None) -> pd.DataFrame:
    """user_id, experiment, arm of the user-randomised test, then the columns of `known`, in order of user_id."""
    arm = np.where(people.arm == EXPOSED, "exposed", "control")
    ids = user_ids(people).to_numpy(zero_copy_only=False)
    frame = pd.DataFrame({"user_id": ids, "experiment": trial.name, "arm": arm})
    frame = frame if known is None else pd.concat([frame, known], axis=1)
    return frame.sort_values("user_id", ignore_index=True)


def experiments_table(media: Media, people: People, names: list[str], start: date) -> pd.DataFrame:
    """experiment, kind, channel, start, end, treated, spend_delta.

    The go-dark test has no spend_delta, so that a reader must derive it from the spend table; the others carry the
    true one (see `treated_spend_delta`).
    """
    return pd.DataFrame(
        [
            {
                "experiment": t.name,
                "kind": t.kind,
                "channel": CHANNELS[t.channel],
                "start": t.start_date(start).isoformat(),
                "end": t.end_date(start).isoformat(),
                "treated": ";".join(names[g] for g in t.treated),
                "spend_delta": None
                if t.kind == "geo" and t.factor == 0
                else round(treated_spend_delta(t, media, people), 2),
            }
            for t in media.tests
        ]
    )


def write_effects(path: Path, effects: pd.DataFrame) -> None:
    """truth/effects.parquet with week as a date."""
    schema = pa.schema(
        [("geo", pa.string()), ("week", pa.date32()), ("channel", pa.string()), ("incremental", pa.int64())]
    )
    pq.write_table(pa.Table.from_pandas(effects, schema=schema, preserve_index=False), path)
