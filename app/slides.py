"""The budget review as slides: PPTX, one section a slide, tables as tables that can be edited."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import datetime

import pandas as pd
from pptx import Presentation
from pptx.presentation import Presentation as Deck
from pptx.slide import Slide
from pptx.util import Inches, Pt

from app.review_text import Section

_WIDTH, _HEIGHT, _EDGE, _TOP = 13.333, 7.5, 0.5, 1.3  # inches
_LINES, _ROWS = 7, 9  # sentences and rows of a table that a slide holds
_BLANK = 5  # the layout with a title and nothing else


def slides(sections: Sequence[Section], author: str, made: datetime) -> bytes:
    """The sections as PPTX. What a slide does not hold goes on over the next."""
    deck = Presentation()
    deck.slide_width, deck.slide_height = Inches(_WIDTH), Inches(_HEIGHT)
    about = deck.core_properties
    about.title, about.author, about.created, about.modified = sections[0].title, author, made, made
    for section in sections:
        for number, (lines, table) in enumerate(_parts(section)):
            slide = _slide(deck, section.title + (" (continued)" if number else ""))
            top = _text(slide, lines) if lines else _TOP
            if table is not None:
                _table(slide, table, top)
    out = io.BytesIO()
    deck.save(out)
    return out.getvalue()


def _parts(section: Section) -> list[tuple[tuple[str, ...], pd.DataFrame | None]]:
    """What goes on each slide of a section. A table begins below the last sentences where these are few."""
    lines = [section.lines[i : i + _LINES] for i in range(0, len(section.lines), _LINES)]
    if section.table is None:
        return [(part, None) for part in lines] or [((), None)]
    tables = [section.table.iloc[i : i + _ROWS] for i in range(0, len(section.table), _ROWS)]
    if lines and len(lines[-1]) <= 1:
        return [*((part, None) for part in lines[:-1]), (lines[-1], tables[0]), *(((), t) for t in tables[1:])]
    return [*((part, None) for part in lines), *(((), t) for t in tables)]


def _slide(deck: Deck, title: str) -> Slide:
    slide = deck.slides.add_slide(deck.slide_layouts[_BLANK])
    shape = slide.shapes.title
    assert shape is not None, "the layout has a title"
    shape.left, shape.top = Inches(_EDGE), Inches(0.3)
    shape.width, shape.height = Inches(_WIDTH - 2 * _EDGE), Inches(0.9)
    shape.text_frame.text = title
    shape.text_frame.paragraphs[0].font.size = Pt(28)
    return slide


def _text(slide: Slide, lines: Sequence[str]) -> float:
    """Writes sentences below the title; returns where they end, inches."""
    height = 0.75 * len(lines)
    box = slide.shapes.add_textbox(Inches(_EDGE), Inches(_TOP), Inches(_WIDTH - 2 * _EDGE), Inches(height))
    box.text_frame.word_wrap = True
    for i, line in enumerate(lines):
        paragraph = box.text_frame.paragraphs[0] if i == 0 else box.text_frame.add_paragraph()
        paragraph.text, paragraph.font.size, paragraph.space_after = f"• {line}", Pt(16), Pt(8)
    return _TOP + height


def _table(slide: Slide, frame: pd.DataFrame, top: float) -> None:
    rows, columns = len(frame) + 1, len(frame.columns)
    room = (Inches(_EDGE), Inches(top), Inches(_WIDTH - 2 * _EDGE), Inches(min(0.45 * rows, _HEIGHT - top - 0.3)))
    table = slide.shapes.add_table(rows, columns, *room).table
    for r, row in enumerate([list(frame.columns), *frame.to_numpy().tolist()]):
        for c, value in enumerate(row):
            cell = table.cell(r, c)
            cell.text = str(value)
            cell.text_frame.paragraphs[0].font.size = Pt(11)
