"""The exports that advertising platforms give, recognised by their column names, and their cells made plain.

A format names, for each of our columns, the names that its exports use (lower case; the first one found counts). A file
counts as the first format whose `needs` it has. Anything else is read by our own names or by `columns` of plumb.toml.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from contracts.errors import InputError
from workflow.files_in import TextTable, file_format, read_text

OURS = (
    "platform", "channel", "campaign", "geo", "date", "start", "end", "conversions", "revenue", "spend", "currency",
    "as_of",
)  # fmt: skip
PREAMBLE = 20  # lines before the header in which titles and comments may stand


@dataclass(frozen=True, slots=True)
class Export:
    """One kind of export. `micros`: spend is in millionths."""

    platform: str
    needs: tuple[str, ...]
    names: Mapping[str, tuple[str, ...]]
    micros: bool = False


EXPORTS = (
    Export(
        "google_ads", ("segments.date", "metrics.conversions"),
        {"date": ("segments.date",), "campaign": ("campaign.name",),
         "channel": ("campaign.advertising_channel_type",), "conversions": ("metrics.conversions",),
         "revenue": ("metrics.conversions_value",), "spend": ("metrics.cost_micros",),
         "currency": ("customer.currency_code",), "geo": ("segments.geo_target_region", "segments.geo_target_country")},
        micros=True,
    ),
    Export(
        "google_ads", ("day", "conversions"),
        {"date": ("day",), "campaign": ("campaign",), "channel": ("campaign type",), "conversions": ("conversions",),
         "revenue": ("conv. value", "conversion value", "total conv. value"), "spend": ("cost",),
         "currency": ("currency code", "currency"), "geo": ("region (matched)", "region", "country/territory")},
    ),
    Export(
        "meta", ("reporting starts", "reporting ends"),
        {"start": ("day", "reporting starts"), "end": ("day", "reporting ends"), "campaign": ("campaign name",),
         "conversions": ("purchases", "website purchases", "results"),
         "revenue": ("purchases conversion value", "website purchases conversion value", "purchase conversion value"),
         "spend": ("amount spent",), "currency": ("currency",), "geo": ("region", "country")},
    ),
    Export(
        "meta", ("date_start", "date_stop"),
        {"start": ("date_start",), "end": ("date_stop",), "campaign": ("campaign_name",),
         "conversions": ("purchases", "conversions", "purchase", "offsite_conversion.fb_pixel_purchase"),
         "revenue": ("purchase_value", "conversion_values", "revenue"), "spend": ("spend",),
         "currency": ("account_currency",), "geo": ("region", "country")},
    ),
    *(
        Export(
            "ga4", (dimension, "date"),
            {"date": ("date",), "channel": (dimension,),
             "campaign": ("session campaign", "sessioncampaignname", "campaign"),
             "conversions": ("transactions", "ecommerce purchases", "ecommercepurchases", "key events", "keyevents",
                             "conversions"),
             "revenue": ("purchase revenue", "purchaserevenue", "total revenue", "totalrevenue"),
             "spend": ("ads cost", "advertiseradcost"), "currency": ("currency",), "geo": ("region", "country")},
        )
        for dimension in (
            "session default channel group", "session primary channel group", "session primary channel group "
            "(default channel group)", "default channel group", "primary channel group (default channel group)",
            "session source / medium", "sessiondefaultchannelgroup", "sessionprimarychannelgroup",
            "sessionsourcemedium",
        )
    ),
)  # fmt: skip


def recognise(names: Sequence[str]) -> Export | None:
    """The kind of export with these columns, or None."""
    lower = {_bare(n) for n in names}
    return next((e for e in EXPORTS if set(e.needs) <= lower), None)


def _bare(name: str) -> str:
    """Lower case without a currency in brackets: 'Amount spent (EUR)' is 'amount spent'."""
    return re.sub(r"\s*\([a-z]{3}\)$", "", name.strip().lower())


def read_export(path: Path, columns: Mapping[str, str], fixed: Mapping[str, str]) -> TextTable:
    """One file under our column names, cells as plain text. Rows of totals are left out.

    `columns` (ours -> theirs) and `fixed` come from plumb.toml and win over what is recognised. Raises InputError for
    a file that cannot be read or lacks dates or figures.
    """
    what = "platform_claims"
    table = _read_csv(path) if file_format(path) == "csv" else read_text([path], what, {}, {})
    names = [str(c) for c in table.cells.columns]
    named, export = _named(path, names, columns)
    cells = pd.DataFrame({ours: table.cells[theirs] for ours, theirs in named.items()}, index=table.cells.index)
    for ours, theirs in named.items():
        if ours in ("conversions", "revenue", "spend"):
            cells[ours] = cells[ours].map(_plain)
        if ours == "spend" and "currency" not in named and (money := re.search(r"\(([A-Za-z]{3})\)$", theirs)):
            cells["currency"] = money[1].upper()
        if ours in ("date", "start", "end", "as_of"):
            cells[ours] = cells[ours].map(_iso)
    if export is not None and export.micros and "spend" in cells:
        cells["spend"] = pd.to_numeric(cells["spend"], errors="coerce").map(
            lambda v: None if pd.isna(v) else f"{v / 1e6:.6f}"
        )
    for ours, value in fixed.items():
        cells[ours] = value
    if "platform" not in cells:
        cells["platform"] = export.platform if export is not None else path.name.split(".")[0]
    keep = ~cells.apply(_is_total, axis=1).to_numpy(bool)
    return TextTable(
        what, cells[keep].reset_index(drop=True), table.files, table.file_of[keep], table.row_of[keep], named
    )


def _named(path: Path, names: Sequence[str], columns: Mapping[str, str]) -> tuple[dict[str, str], Export | None]:
    """(ours -> the file's own name of the column, what was recognised)."""
    export, lower = recognise(names), {_bare(n): n for n in reversed(names)}
    out: dict[str, str] = {}
    for ours in OURS:
        if ours in columns:
            if columns[ours] not in names:
                raise InputError(
                    f"{path.name} has no column {columns[ours]!r}, which [inputs.platform_claims] columns maps to "
                    f"{ours}; it has {', '.join(names)}."
                )
            out[ours] = columns[ours]
        else:
            options = export.names.get(ours, ()) if export is not None else (ours,)
            hit = next((lower[o] for o in options if o in lower), None)
            if hit is not None:
                out[ours] = hit
    if not ({"conversions", "revenue"} & set(out)) or not ("date" in out or {"start", "end"} <= set(out)):
        raise InputError(
            f"{path.name} is no export that is known here (Google Ads, Meta, GA4): it needs a date (or start and end) "
            f"and conversions or revenue; it has {', '.join(names)}. Map them in [inputs.platform_claims] columns of "
            'plumb.toml, for example date = "theirs".'
        )
    return out, export


def _is_total(row: pd.Series) -> bool:
    """A line that sums others: it has no date, or calls itself a total."""
    when = row.get("date", row.get("start"))
    text = [str(v).strip().lower() for v in row if not pd.isna(v)]
    return bool(pd.isna(when)) or any(re.match(r"^(grand )?total\b", t) for t in text)


def _plain(cell: str | None) -> str | None:
    """'$1,234.50' as '1234.50', '1.234,50 €' as '1234.50', '--' as absent; anything else stays as it is."""
    if cell is None or pd.isna(cell) or cell.strip() in ("--", "-", "", "—"):
        return None
    text = re.sub(r"[\s\u00a0\u202f'’]|[$€£¥]|^[A-Z]{3}|[A-Z]{3}$", "", cell.strip())
    if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", text):
        return text.replace(",", "")
    if re.fullmatch(r"-?\d{1,3}(\.\d{3})+,\d+", text) or re.fullmatch(r"-?\d+,\d{1,2}", text):
        return text.replace(".", "").replace(",", ".")
    return text


def _iso(cell: str | None) -> str | None:
    """20240131 as 2024-01-31; anything else as it is."""
    if cell is None or pd.isna(cell) or cell.strip().lower().startswith("total"):
        return None
    return f"{cell[:4]}-{cell[4:6]}-{cell[6:]}" if re.fullmatch(r"\d{8}", cell) else cell


def _read_csv(path: Path) -> TextTable:
    """A CSV with titles or comments above its header, in UTF-8 or UTF-16, separated by comma, semicolon or tab."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        lines = raw.decode(encoding).splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is neither UTF-8 nor UTF-16 text ({error.reason}); save it as UTF-8.") from None
    best, rows = 0, [list(next(csv.reader([line], delimiter=_separator(line)), [])) for line in lines[:PREAMBLE]]
    known = next((i for i, row in enumerate(rows) if recognise(row) is not None), None)
    widest = max((sum(bool(c.strip()) for c in row) for row in rows), default=0)
    best = known if known is not None else next(
        (i for i, row in enumerate(rows) if sum(bool(c.strip()) for c in row) == widest), 0
    )  # fmt: skip
    if not rows or widest < 2:
        raise InputError(f"{path.name} has no header row with at least two columns; export it again.")
    header, separator = [c.strip() for c in rows[best]], _separator(lines[best])
    cells, numbers = [], []
    for number, line in enumerate(lines[best + 1 :], best + 2):
        row = next(csv.reader([line], delimiter=separator), [])
        if not any(c.strip() for c in row) or row[0].lstrip().startswith("#"):
            continue
        cells.append([c.strip() or None for c in row[: len(header)]] + [None] * (len(header) - len(row)))
        numbers.append(number)
    frame = pd.DataFrame(cells, columns=header, dtype=object)
    return TextTable("platform_claims", frame, (path,), np.zeros(len(frame), int), np.array(numbers, int), {})


def _separator(line: str) -> str:
    return max(",;\t", key=line.count)
