"""Readers of what platforms claim and of billing totals: public tables, exact figures.

`[inputs.platform_claims]`: exports of Google Ads, Meta or GA4 as they come, or any table with date (or start and end),
conversions or revenue, and optionally platform, channel, campaign, geo, spend, currency, as_of. Its `channels` say
which declared channel a campaign, a channel label or a platform is; "" leaves it out.
`[inputs.billing]`: date (or start and end), conversions and revenue as the books have them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from attribution.claims import COLUMNS, newest
from contracts.errors import ContractError, InputError
from workflow.claims_formats import read_export
from workflow.config import ClaimsInput, Config
from workflow.files_in import TextTable, dates, numbers, resolve
from workflow.tables_in import rates, read_input, split_columns

WHAT = "platform_claims"


@dataclass(frozen=True, slots=True)
class Claims:
    """Columns of `rows`: attribution.claims.COLUMNS, one row a claim, money in the project's currency."""

    rows: pd.DataFrame
    files: tuple[Path, ...]


def read_claims(root: Path, config: Config, channels: Sequence[str]) -> Claims | None:
    """What platforms claim, or None without such an input. Raises InputError at the first fault."""
    section = config.inputs.platform_claims
    if section is None:
        return None
    files = resolve(root, section.paths, WHAT)
    columns, fixed = split_columns(section.columns, WHAT)
    frames = [_claims(read_export(path, columns, fixed), section, config, channels) for path in files]
    rows = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(COLUMNS))
    if rows.empty:
        raise InputError(
            f"{files[0].name} holds no claim of a declared channel; add rows or take [inputs.{WHAT}] out of plumb.toml."
        )
    # rows of one export that share every name are parts of one claim (an ad set, a device, a left-out column)
    key = [*COLUMNS[:6], "as_of"]
    rows["as_of"] = [None if pd.isna(v) else v for v in rows["as_of"]]
    summed = rows.groupby([*key, "file"], dropna=False, sort=True)[["conversions", "revenue", "spend"]]
    rows = summed.sum(min_count=1).reset_index()
    rows["as_of"] = [None if pd.isna(v) else v for v in rows["as_of"]]
    try:
        newest(rows)
    except ContractError as error:
        raise InputError(f"[inputs.{WHAT}]: {error}") from None
    return Claims(rows[list(COLUMNS)], tuple(files))


def _claims(table: TextTable, section: ClaimsInput, config: Config, channels: Sequence[str]) -> pd.DataFrame:
    if table.cells.empty:
        raise InputError(f"{table.files[0].name} holds no rows besides totals; export it again.")
    start = dates(table, "date" if table.has("date") else "start")
    end = dates(table, "end") if not table.has("date") and table.has("end") else start
    table.fail(end < start, "end" if table.has("end") else "date", "the claim ends before it starts")
    amounts = {name: _amount(table, name) for name in ("conversions", "revenue", "spend")}
    rate = rates(table, config)
    out = pd.DataFrame({name: _words(table, name) for name in ("platform", "campaign", "geo")})
    out["channel"] = _channels(table, section, channels)
    out["start"], out["end"] = start, end
    out["conversions"] = amounts["conversions"]
    out["revenue"], out["spend"] = amounts["revenue"] * rate, amounts["spend"] * rate
    out["as_of"] = dates(table, "as_of") if table.has("as_of") else None
    out["file"] = table.files[0].name
    return out[out["channel"] != ""]


def _amount(table: TextTable, name: str) -> np.ndarray:
    if not table.has(name):
        return np.full(len(table.cells), np.nan)
    return numbers(table, name, empty=np.nan, minimum=0)


def _words(table: TextTable, name: str) -> list[str]:
    if not table.has(name):
        return [""] * len(table.cells)
    return ["" if v is None or pd.isna(v) else str(v) for v in table.column(name)]


def labels(table: TextTable) -> list[tuple[str, ...]]:
    """Per row the names by which plumb.toml may give its channel, the most telling first."""
    parts = [_words(table, name) for name in ("campaign", "channel", "platform")]
    return [tuple(p for p in row if p) for row in zip(*parts, strict=True)]


def claim_labels(files: Sequence[Path], columns: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Distinct `labels` of some exports, in order of first sight."""
    return list(dict.fromkeys(names for path in files for names in labels(read_export(path, columns, {}))))


def _channels(table: TextTable, section: ClaimsInput, channels: Sequence[str]) -> list[str]:
    """The declared channel of each row; '' where it is left out."""
    for theirs, ours in section.channels.items():
        if ours and ours not in channels:
            raise InputError(
                f"plumb.toml: [inputs.{WHAT}.channels] maps {theirs!r} to {ours!r}, which is not declared (declared: "
                f'{", ".join(channels)}); mend the name, or write "" to leave it out.'
            )
    out = []
    for i, names in enumerate(labels(table)):
        hit = next((section.channels[n] for n in names if n in section.channels), None)
        hit = next((n for n in names if n in channels), None) if hit is None else hit
        if hit is None:
            label = names[0]
            raise InputError(
                f"{table.place(i)}: no channel is known for {' / '.join(map(repr, names))} (declared: "
                f"{', '.join(channels)}); say which it is in [inputs.{WHAT}.channels] of plumb.toml, for example "
                f'"{label}" = "{channels[0] if channels else "search"}", or "" to leave it out.'
            )
        out.append(hit)
    return out


def guess_channel(label: str, channels: Sequence[str]) -> str | None:
    """The declared channel that a label plainly names: the same letters and digits. Written down by `plumb init`."""
    bare = {re.sub(r"[^a-z0-9]", "", c.lower()): c for c in channels}
    return bare.get(re.sub(r"[^a-z0-9]", "", label.lower()))


@dataclass(frozen=True, slots=True)
class Billing:
    """What the books say. Columns of `rows`: start, end, conversions, revenue (NaN where not given)."""

    rows: pd.DataFrame
    files: tuple[Path, ...]

    def within(self, first: date, last: date) -> dict[str, float]:
        """Sums of a span of days; a metric, or everything, is missing where the books do not cover all its days."""
        inside = self.rows[
            [s <= last and e >= first for s, e in zip(self.rows["start"], self.rows["end"], strict=True)]
        ]
        if inside.empty or min(inside["start"]) > first or max(inside["end"]) < last:
            return {}
        over = [max((min(e, last) - max(s, first)).days + 1, 0) / ((e - s).days + 1)
                for s, e in zip(inside["start"], inside["end"], strict=True)]  # fmt: skip
        sums = {m: (inside[m] * over).sum(min_count=len(inside)) for m in ("conversions", "revenue")}
        return {m: float(v) for m, v in sums.items() if np.isfinite(v)}


def read_billing(root: Path, config: Config) -> Billing | None:
    """Billing totals, or None without such an input. Raises InputError."""
    section = config.inputs.billing
    if section is None:
        return None
    table = read_input(root, section, "billing")
    start = dates(table, "date" if table.has("date") else "start")
    end = dates(table, "end") if not table.has("date") and table.has("end") else start
    table.fail(end < start, "end" if table.has("end") else "date", "the row ends before it starts")
    if not (table.has("conversions") or table.has("revenue")):
        table.column("revenue")
    money = _amount(table, "revenue") * rates(table, config)
    rows = pd.DataFrame({"start": start, "end": end, "conversions": _amount(table, "conversions"), "revenue": money})
    return Billing(rows, table.files)
