"""The budget review as a workbook: one sheet a subject, totals and differences as live formulas, names for the totals.

The column `key` joins the sheets. Every formula carries its value, so a reader that does not calculate shows the same
figures. The same review gives the same bytes: the file's date is that of the warehouse.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import xlsxwriter
from xlsxwriter.format import Format
from xlsxwriter.worksheet import Worksheet

from app.review import Band, Review

Cell = str | float | None
_MONEY, _AMOUNT, _SHARE, _RATIO = "#,##0", "#,##0", "0.0%", "0.00"


def workbook(r: Review, digest: str) -> bytes:
    """The review as XLSX. `digest` is the SHA-256 of the warehouse that it was made from."""
    out = io.BytesIO()
    book = xlsxwriter.Workbook(out, {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False})
    book.set_properties({"title": f"Budget review {r.period}".strip(), "author": r.owner, "created": r.made})
    sheets = _Sheets(book)
    _summary(sheets, r, digest)
    _channels(sheets, r)
    _options(sheets, r)
    _money(sheets, r)
    _claims(sheets, r)
    _tests(sheets, r)
    sheets.text("Assumptions", ("What the figures rest on", *r.assumptions))
    book.close()
    return out.getvalue()


class _Sheets:
    """The book with its formats."""

    def __init__(self, book: xlsxwriter.Workbook) -> None:
        self.book = book
        self.head = book.add_format({"bold": True, "text_wrap": True, "bottom": 1, "valign": "top"})
        self.wrap = book.add_format({"text_wrap": True, "valign": "top"})
        self.formats = {code: book.add_format({"num_format": code}) for code in (_MONEY, _SHARE, _RATIO)}

    def number(self, code: str) -> Format:
        return self.formats[code]

    def table(self, name: str, heads: Sequence[str], rows: Sequence[Sequence[Cell]], codes: Sequence[str]) -> Worksheet:
        """A sheet with a head and rows; `codes` are number formats by column, '' for text."""
        sheet = self.book.add_worksheet(name)
        sheet.freeze_panes(1, 1)
        sheet.set_row(0, 48)
        for c, head in enumerate(heads):
            sheet.write_string(0, c, head, self.head)
            sheet.set_column(c, c, 16)
        for r, row in enumerate(rows, 1):
            for c, (value, code) in enumerate(zip(row, codes, strict=True)):
                if isinstance(value, str):
                    sheet.write_string(r, c, value)
                elif value is not None:
                    sheet.write_number(r, c, value, self.number(code))
        return sheet

    def text(self, name: str, lines: Sequence[str]) -> Worksheet:
        sheet = self.book.add_worksheet(name)
        sheet.set_column(0, 0, 110)
        for i, line in enumerate(lines):
            sheet.write_string(i, 0, line, self.head if i == 0 else self.wrap)
        return sheet


def _summary(sheets: _Sheets, r: Review, digest: str) -> None:
    sheet = sheets.book.add_worksheet("Summary")
    sheet.set_column(0, 0, 44)
    sheet.set_column(1, 4, 22)
    chosen, last = r.chosen, len(r.lines) + 1
    facts: list[tuple[str, Cell]] = [
        ("Budget review of", r.period or "no planning period"),
        ("Plan", f"{chosen.letter}: {chosen.name}" if chosen else "none"),
        ("Status", "published" if r.published else "NOT PUBLISHED: the model did not pass its gate"),
        ("Data up to", r.cut_off),
        ("Model version", r.model_version),
        ("Owner", r.owner or "not named: set project.owner"),
        ("SHA-256 of the warehouse", digest),
    ]
    row = 0
    for name, value in facts:
        sheet.write_string(row, 0, name, sheets.head if row == 0 else None)
        sheet.write_string(row, 1, str(value))
        row += 1
    row += 1
    if chosen is not None:
        money = sheets.number(_MONEY)
        totals = (
            (f"spend now, {r.units.currency}", "spend_now", "B", sum(x.now for x in r.lines)),
            (f"spend of the plan, {r.units.currency}", "spend_plan", "C", sum(x.plan for x in r.lines)),
        )
        for label, name, column, value in totals:
            sheet.write_string(row, 0, label)
            sheet.write_formula(row, 1, f"=SUM(Channels!{column}2:{column}{last})", money, value)
            sheets.book.define_name(name, f"=Summary!$B${row + 1}")
            row += 1
        sheet.write_string(row, 0, f"change of spend, {r.units.currency}")
        sheet.write_formula(row, 1, "=spend_plan-spend_now", money, totals[1][3] - totals[0][3])
        row += 2
        for c, level in enumerate(("P10", "P50", "P90"), 1):
            sheet.write_string(row, c, level, sheets.head)
        at = [o.letter for o in r.options].index(chosen.letter) + 2
        for label, name, first in (
            (f"caused by the plan, {r.units.kpi_title}", "caused", "E"),
            (f"gain on the current split, {r.units.kpi_title}", "gain", "H"),
        ):
            row += 1
            sheet.write_string(row, 0, label)
            band = chosen.caused if name == "caused" else chosen.gain
            for c, (level, value) in enumerate(zip(("p10", "p50", "p90"), _parts(band), strict=True)):
                source = f"=Options!{chr(ord(first) + c)}{at}"
                sheet.write_formula(row, c + 1, source, sheets.number(_AMOUNT), value)
                sheets.book.define_name(f"{name}_{level}", f"=Summary!${chr(66 + c)}${row + 1}")
        row += 1
        sheet.write_string(row, 0, "chance that the plan beats the current split")
        sheet.write_formula(row, 1, f"=Options!K{at}", sheets.number(_SHARE), chosen.chance)
        row += 2
    for title, lines in (("Decisions", r.decisions), ("Not given, and why", r.missing)):
        if lines:
            sheet.write_string(row, 0, title, sheets.head)
            for line in lines:
                row += 1
                sheet.merge_range(row, 0, row, 4, line, sheets.wrap)
                sheet.set_row(row, 32)
            row += 2
    sheet.write_string(row, 0, "Sign-off", sheets.head)
    for who in ("Marketing", "Finance"):
        row += 1
        sheet.write_string(row, 0, f"{who}: name, date, signature")


def _channels(sheets: _Sheets, r: Review) -> None:
    money, kpi = r.units.currency, r.units.kpi_title
    heads = (
        "key", f"spend now, {money}", f"spend of the plan, {money}", f"change, {money}", "change of spend",
        *(f"caused by the current split, {kpi}, {p}" for p in ("P10", "P50", "P90")),
        *(f"caused by the plan, {kpi}, {p}" for p in ("P10", "P50", "P90")),
        *(f"{what}, {money} per {money}, {p}" for what in ("ROI", "mROI") for p in ("P10", "P50", "P90")),
        "evidence grade",
    )  # fmt: skip
    rows = [
        (x.channel, x.now, x.plan, None, None, *_parts(x.caused_now), *_parts(x.caused), *_parts(x.roi),
         *_parts(x.mroi), x.grade)
        for x in r.lines
    ]  # fmt: skip
    codes = ("", *[_MONEY] * 3, _SHARE, *[_AMOUNT] * 6, *[_RATIO] * 6, "")
    sheet = sheets.table("Channels", heads, rows, codes)
    for i, x in enumerate(r.lines, 2):
        sheet.write_formula(i - 1, 3, f"=C{i}-B{i}", sheets.number(_MONEY), x.plan - x.now)
        share = "" if x.change is None else x.change
        sheet.write_formula(i - 1, 4, f'=IF(B{i}>0,C{i}/B{i}-1,"")', sheets.number(_SHARE), share)


def _options(sheets: _Sheets, r: Review) -> None:
    kpi = r.units.kpi_title
    heads = (
        "key", "scenario", "author", f"spend, {r.units.currency}",
        *(f"caused, {kpi}, {p}" for p in ("P10", "P50", "P90")),
        *(f"gain on the current split, {kpi}, {p}" for p in ("P10", "P50", "P90")),
        "chance of a gain", "plan of record",
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = [
        (o.letter, o.name, o.author or "plumb plan", o.spend, *_parts(o.caused), *_parts(o.gain), o.chance,
         "yes" if o.of_record else "no")
        for o in r.options
    ]  # fmt: skip
    sheets.table("Options", heads, rows, ("", "", "", _MONEY, *[_AMOUNT] * 6, _SHARE, ""))


def _money(sheets: _Sheets, r: Review) -> None:
    money = r.units.currency
    heads = (
        "key", f"spend, {money}", *(f"revenue caused, {money}, {p}" for p in ("P10", "P50", "P90")),
        *(f"contribution less spend, {money}, {p}" for p in ("P10", "P50", "P90")), "chance to earn its spend",
        *(f"weeks until it has, {p} (empty: later than looked at)" for p in ("P10", "P50", "P90")), "weeks looked at",
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = [
        (o.letter, o.spend, *_parts(o.money.revenue), *_parts(o.money.contribution), o.money.pays,
         *(None if x is None or x == float("inf") else x for x in _parts(o.money.payback)), o.money.weeks)
        for o in r.options
        if o.money is not None
    ]  # fmt: skip
    if rows:
        sheets.table("Money", heads, rows, ("", *[_MONEY] * 7, _SHARE, *[_AMOUNT] * 4))


def _claims(sheets: _Sheets, r: Review) -> None:
    kpi = r.units.kpi_title
    heads = (
        "key", f"claimed, {kpi}", f"caused, {kpi}, mean", f"caused, {kpi}, P5", f"caused, {kpi}, P95",
        "caused ÷ claimed, mean", "caused ÷ claimed, P5", "caused ÷ claimed, P95",
    )  # fmt: skip
    columns = ("channel", "credited", "incremental_kpi", "incremental_p05", "incremental_p95", "mean", "p05", "p95")
    rows = [tuple(_plain(v) for v in row) for row in r.claims[list(columns)].itertuples(index=False)]
    sheets.table("Platform claims", heads, rows, ("", *[_AMOUNT] * 4, *[_RATIO] * 3))


def _tests(sheets: _Sheets, r: Review) -> None:
    money = r.units.currency
    heads = (
        "test", "key", "weeks", f"cost, {money}", f"worth less cost, {money}", "worth", "at most worth",
        "unit of worth", "chance to change the plan", "what would change it",
    )  # fmt: skip
    columns = (
        "test", "channel", "weeks", "cost", "net_value", "value", "perfect_information", "unit", "share_changed",
        "decision",
    )  # fmt: skip
    rows = [tuple(_plain(v) for v in row) for row in r.tests[list(columns)].itertuples(index=False)]
    codes = ("", "", _MONEY, _MONEY, _MONEY, _RATIO, _RATIO, "", _SHARE, "")
    sheets.table("Next tests", heads, rows, codes)


def _plain(value: object) -> Cell:
    if isinstance(value, str):
        return value
    number = float(value)  # type: ignore[arg-type]
    return None if number != number else number


def _parts(band: Band | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if band is None else (band.p10, band.p50, band.p90)
