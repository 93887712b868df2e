"""The budget review on paper: PDF, A4 across. The same review gives the same bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

import pandas as pd
import reportlab
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4, landscape
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Flowable, KeepTogether, Paragraph, SimpleDocTemplate, Spacer, Table

from app.review_text import Section

_MARGIN = 15 * mm
_REGULAR, _BOLD = "Vera", "VeraBd"  # the library's own, which have the minus sign; Latin letters only


_BOXES = (
    "Some names hold characters that this paper's font lacks; they show as boxes here, and right in the other files."
)


def handout(sections: Sequence[Section], author: str) -> bytes:
    """The sections as PDF."""
    for name in (_REGULAR, _BOLD):
        pdfmetrics.registerFont(TTFont(name, Path(reportlab.__file__).parent / "fonts" / f"{name}.ttf"))
    out = io.BytesIO()
    paper = landscape(A4)
    document = SimpleDocTemplate(
        out, pagesize=paper, leftMargin=_MARGIN, rightMargin=_MARGIN, topMargin=_MARGIN, bottomMargin=_MARGIN,
        title=sections[0].title, author=author, invariant=1,
    )  # fmt: skip
    width = paper[0] - 2 * _MARGIN
    warned = [Paragraph(escape(_BOXES), _style(9)), Spacer(0, 4 * mm)] if unprintable(sections) else []
    document.build(
        [*warned, *(x for s in sections for x in _flow(s, width))], onFirstPage=_number, onLaterPages=_number
    )
    return out.getvalue()


def unprintable(sections: Sequence[Section]) -> bool:
    """Whether any character has no glyph in the regular font (the bold one has the same)."""
    tables = [s.table for s in sections if s.table is not None]
    cells = (str(v) for t in tables for v in (*t.columns, *t.to_numpy().ravel()))
    text = "".join((*cells, *(part for s in sections for part in (s.title, *s.lines))))
    known = pdfmetrics.getFont(_REGULAR).face.charToGlyph
    return any(ord(c) not in known for c in text if not c.isspace())


def _style(size: float, bold: bool = False) -> ParagraphStyle:
    return ParagraphStyle(f"{size}{bold}", fontName=_BOLD if bold else _REGULAR, fontSize=size, leading=1.35 * size)


def _flow(section: Section, width: float) -> list[Flowable]:
    head = Paragraph(escape(section.title), _style(14, bold=True))
    body: list[Flowable] = [Paragraph(escape(f"• {line}"), _style(9)) for line in section.lines]
    if section.table is not None:
        body.append(_table(section.table, width))
    kept = len(body) if section.table is not None else 1  # a table longer than a page goes on over the next one
    return [KeepTogether([head, Spacer(0, 2 * mm), *body[:kept]]), *body[kept:], Spacer(0, 6 * mm)]


def _table(frame: pd.DataFrame, width: float) -> Table:
    cells = [[Paragraph(escape(str(c)), _style(7.5, bold=True)) for c in frame.columns]]
    cells += [[Paragraph(escape(str(v)), _style(7.5)) for v in row] for row in frame.itertuples(index=False)]
    lines = [("LINEBELOW", (0, 0), (-1, -1), 0.3, colors.grey), ("VALIGN", (0, 0), (-1, -1), "TOP")]
    return Table(cells, colWidths=[width / len(frame.columns)] * len(frame.columns), repeatRows=1, style=lines)


def _number(canvas, document) -> None:  # type: ignore[no-untyped-def]  # the library's canvas has no types
    canvas.setFont(_REGULAR, 7.5)
    canvas.drawRightString(document.pagesize[0] - _MARGIN, 8 * mm, f"page {document.page}")
