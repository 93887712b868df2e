"""Names in the session under which the parts of the Scenarios page share the plan."""

from __future__ import annotations

PLAN = "scenario_plan"  # (C,) currency per period
TOTAL = "scenario_total"  # the budget, currency per period
NOTICE = "scenario_notice"  # a sentence for the next run of the page
FOUND = "scenario_found"  # the same, of something that went well
