"""docs/tables.md, made from `contracts.tables`, so that the page cannot say other than the warehouse holds."""

from __future__ import annotations

from contracts.columns import Column, View
from contracts.tables import VIEWS

INTRO = """\
# Tables

`warehouse.duckdb` in a workspace holds every published figure; `tables/*.parquet` holds the same tables as files. The
file is replaced whole and never written in place, so open it read-only and open it again to see a new run:
`duckdb -readonly warehouse.duckdb`, or `duckdb.connect("warehouse.duckdb", read_only=True)`.

- Only aggregates are here: no row speaks of a person, and no exact count of people's rows leaves the raw zone.
- One row is one fact. `mean` is the expected value; `p05` to `p95` is the 90 % interval that screens and report quote.
- What people save in the explorer lies in `state.sqlite` and is copied into this file on each save: `v_scenarios`,
  `v_scenario_cells`, `v_comments` and `v_approvals`. Access tokens are never copied.
- `run_id`, `release_id`, `model_version`, `as_of` and `evidence_ids` say where a row is from.
- Amounts of KPI are in KPI units of consenting people; money is in the project's one currency.
- Totals over channels cannot be read off by adding quantiles: means add up, intervals do not.

This page is made by `app/tables_doc.py` from `contracts/tables.py`; a test keeps the two the same.
"""

# (title, one sentence, SQL): tried on a warehouse by the tests.
QUERIES: tuple[tuple[str, str, str], ...] = (
    (
        "Latest ROI per channel",
        "`v_effects` holds one row per key of the latest published run, so no filter on runs is needed.",
        """\
SELECT channel, mean AS roi, p05, p95, model_version, as_of
FROM v_effects
WHERE scope = 'total' AND metric = 'roi' AND status = 'published'
ORDER BY roi DESC;""",
    ),
    (
        "Incrementality factor per channel and credit model, latest period",
        "Rows whose factor must not be printed (the credit's interval holds 0) have NULL in `mean`.",
        """\
SELECT channel, model, mean AS factor, p05, p95, p95 < 1 AS over_credited, flag
FROM v_incrementality
WHERE period_start = (SELECT max(period_start) FROM v_incrementality) AND mean IS NOT NULL
ORDER BY channel, model;""",
    ),
    (
        "Noise per KPI cell",
        "How large the released noise is against the figure it protects; suppressed cells are not for display.",
        """\
SELECT geo, metric, count(*) AS weeks, sqrt(avg(variance)) AS noise_sd,
       sqrt(avg(variance)) / nullif(avg(value), 0) AS noise_share
FROM v_kpi
WHERE NOT suppressed
GROUP BY geo, metric
ORDER BY metric, noise_share DESC;""",
    ),
)

_EXTRA = (
    (
        "response_draws",
        "One row per channel × geo × draw: the response of the calibrated model, from which planning and the explorer "
        "value any plan. Response of a geo in one period to a spend `s` held for long: "
        "`amplitude · (unit · s)^slope / ((unit · s)^slope + half_saturation^slope)`; in time, `unit · s` is the stock "
        "of docs/planning.md.",
        (
            Column("channel", "VARCHAR", "", "channel, named as in spend"),
            Column("geo", "VARCHAR", "", "geo"),
            Column("draw", "INTEGER", "", "number of the posterior draw; the same draw in all channels and geos"),
            Column("weight", "DOUBLE", "share", "importance weight of the draw; the draws' weights sum to 1"),
            Column("amplitude", "DOUBLE", "KPI units per period", "response at full saturation"),
            Column("half_saturation", "DOUBLE", "saturation units", "dose of half the amplitude"),
            Column("slope", "DOUBLE", "", "steepness of the curve"),
            Column("retention", "DOUBLE", "share", "carried to the next period"),
            Column("delay", "DOUBLE", "", "0: geometric carry-over; larger: it peaks later"),
            Column("unit", "DOUBLE", "saturation units per currency", "dose per unit of spend"),
            Column("current_spend", "DOUBLE", "currency per period", "mean of the last 13 periods"),
            Column("observed_max", "DOUBLE", "currency per period", "largest observed spend of the channel, all geos"),
            Column("observed", "DOUBLE", "saturation units", "largest exposure of one period seen in the geo"),
            Column("population", "DOUBLE", "people", "of the geo, or 1 where unknown"),
        ),
    ),
    (
        "response_recent",
        "One row per channel × geo × period before the data's end: what is still in flight when a plan begins.",
        (
            Column("channel", "VARCHAR", "", "channel, named as in spend"),
            Column("geo", "VARCHAR", "", "geo"),
            Column("periods_before", "INTEGER", "periods", "1: the last period of the data"),
            Column("exposure", "DOUBLE", "saturation units", "exposure of that period"),
        ),
    ),
    (
        "meta",
        "What the file says about itself. Keys: `project`, `kpi`, `currency`, `user_level` (`true`, or `false` when no "
        "user-level data was used), `consent` (`column` or `assumed`), `period_start`, `period_end`, `generated_at`, "
        "`model_version`, `seed`, `run_id`, `saved_state` (which saves the file holds; empty for none), "
        "`response` (JSON: lags, period_days, last_period, currency, kpi_name, revenue_per_kpi), `planning_period` "
        "(JSON: start, periods, assumptions of the plans).",
        (
            Column("key", "VARCHAR", "", "name"),
            Column("value", "VARCHAR", "", "value as text"),
        ),
    ),
)


def render_tables_md() -> str:
    """The text of docs/tables.md: introduction, worked queries, every view and table with its columns and units."""
    queries = [f"### {title}\n\n{text}\n\n```sql\n{sql}\n```\n" for title, text, sql in QUERIES]
    views = [_view(v) for v in VIEWS]
    extra = [f"### {name}\n\n{text}\n\n{_columns(columns)}\n" for name, text, columns in _EXTRA]
    return "\n".join(
        [INTRO, "## Worked queries\n", *queries, "## Views\n", *views, "## Tables beside the views\n", *extra]
    )


def _view(view: View) -> str:
    key = ", ".join(f"`{k}`" for k in view.key)
    return f"### {view.name}\n\nGrain: {view.grain}. Unique by {key}.\n\n{_columns(view.columns)}\n"


def _columns(columns: tuple[Column, ...]) -> str:
    rows = [f"| `{c.name}` | {c.type} | {_cell(c.unit)} | {_cell(c.text)} |" for c in columns]
    return "\n".join(["| column | type | unit | meaning |", "|---|---|---|---|", *rows])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    from pathlib import Path

    target = Path(__file__).resolve().parents[1] / "docs" / "tables.md"
    target.write_text(render_tables_md(), encoding="utf-8")
