"""Every view of the warehouse, column by column, with type and unit. docs/tables.md is generated from this list."""

from __future__ import annotations

from contracts.columns import View
from contracts.decision_views import DECISIONS
from contracts.evidence_views import EVIDENCE
from contracts.record_views import RECORDS

VIEWS: tuple[View, ...] = (*EVIDENCE, *DECISIONS, *RECORDS)
BY_NAME: dict[str, View] = {v.name: v for v in VIEWS}
