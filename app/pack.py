"""The review pack: one review as HTML, XLSX, PPTX and PDF."""

from __future__ import annotations

from app.handout import handout
from app.review import Review
from app.review_text import page, sections
from app.slides import slides
from app.workbook import workbook


def pack(r: Review, digest: str) -> dict[str, bytes]:
    """Files of the pack by suffix. `digest` is the SHA-256 of the warehouse that the review was made from."""
    told = sections(r, digest)
    return {
        "html": page(told).encode(),
        "xlsx": workbook(r, digest),
        "pptx": slides(told, r.owner, r.made),
        "pdf": handout(told, r.owner),
    }
