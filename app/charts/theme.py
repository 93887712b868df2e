"""Colours, shapes and sizes that all charts share.

A channel keeps its colour and shape on every page: both follow from its place among all channels of the workspace.
The colours keep a contrast of at least 3 : 1 on white and on the dark page, and were searched so that any two of them
stay apart (CIE76 distance above 20) under full protanopia and deuteranopia; shape, label or dash says the same beside
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt
import pandas as pd

COLOURS = ("#0078C3", "#D25A00", "#00A587", "#782DFF", "#96965A", "#875A4B", "#6978FF", "#2D7887")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
BASELINE = "#8A8F98"
RULE = "#8A8F98"
WIDTH = 640


def channel_colours(channels: Iterable[str]) -> dict[str, str]:
    """Colour of every channel. After eight channels colours come round again, with another shape."""
    return {c: COLOURS[i % len(COLOURS)] for i, c in enumerate(sorted(set(channels)))}


def channel_shapes(channels: Iterable[str]) -> dict[str, str]:
    """Shape of every channel's mark; shifted by one each time that the colours come round."""
    return {c: SHAPES[(i + i // len(COLOURS)) % len(SHAPES)] for i, c in enumerate(sorted(set(channels)))}


def colour_scale(channels: Sequence[str]) -> alt.Scale:
    """Colour scale over all channels of the workspace."""
    colours = channel_colours(channels)
    return alt.Scale(domain=list(colours), range=list(colours.values()))


def shape_scale(channels: Sequence[str]) -> alt.Scale:
    """Shape scale over all channels of the workspace."""
    shapes = channel_shapes(channels)
    return alt.Scale(domain=list(shapes), range=list(shapes.values()))


def amount_axis(title: str, **options: Any) -> alt.Axis:
    """Axis of an amount: short numbers (12k), light grid. The title names the unit."""
    return alt.Axis(title=title, format="~s", tickCount=6, titleFontWeight="normal", **options)


def name_axis() -> alt.Axis:
    """Axis of names: no title, no ticks, labels wide enough to be read."""
    return alt.Axis(title=None, ticks=False, domain=False, labelLimit=220, labelOverlap=False)


def require(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The named columns of `frame`. Raises KeyError that names those missing: a chart draws finished numbers only."""
    missing = [c for c in columns if c not in frame]
    if missing:
        raise KeyError(f"chart data lacks {', '.join(missing)}; it holds {', '.join(map(str, frame.columns))}")
    return frame[list(columns)]


def finish(chart: alt.LayerChart, height: int) -> alt.LayerChart:
    """Size and frame, axes and legend included. Width is that of the report; pages stretch it to the column."""
    fit = alt.AutoSizeParams(type="fit", contains="padding")
    return chart.properties(width=WIDTH, height=height, autosize=fit).configure_view(strokeWidth=0)
