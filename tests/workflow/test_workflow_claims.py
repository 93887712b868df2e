"""Platform exports as they come, billing, and what a run makes of them; faults name file, row, value and fix."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ConfigError, InputError
from workflow.claims_formats import recognise
from workflow.claims_in import guess_channel, read_billing, read_claims
from workflow.config import Config, parse
from workflow.init import initialise
from workflow.warehouse import read_view

CHANNELS = ("search", "social")
GOOGLE = [
    "Campaign report",
    "1 January 2024 - 2 January 2024",
    "Day\tCampaign\tCampaign type\tConversions\tConv. value\tCost\tCurrency code",
    '2024-01-01\tBrand\tSearch\t12.50\t"1,234.50"\t50.00\tEUR',
    "2024-01-02\tBrand\tSearch\t--\t0.00\t49.00\tEUR",
    "Total: Account\t--\t--\t12.50\t1234.50\t99.00\tEUR",
]
META = [
    "Campaign name,Day,Reporting starts,Reporting ends,Purchases,Purchases conversion value,Amount spent (USD)",
    "Prospecting,2024-01-01,2024-01-01,2024-01-01,9,400.5,20",
    "Prospecting,2024-01-01,2024-01-01,2024-01-01,1,100,10",
]
GA4 = [
    "# ----------------------------------------",
    "# Acquisition",
    "# ----------------------------------------",
    "Session default channel group,Date,Key events,Total revenue",
    "Paid Search,20240101,7,700",
    "Paid Social,20240102,3,300",
    "",
    ",,10,1000",
]
API = [
    "segments.date,campaign.name,metrics.conversions,metrics.conversions_value,metrics.cost_micros",
    "2024-01-01,Brand,2,30,1500000",
]


def config(**claims: Any) -> Config:
    section = {"path": "claims.csv", "channels": {"Search": "search", "meta": "social", "Paid Search": "search",
                                                  "Paid Social": "social", "Brand": "search"}}  # fmt: skip
    project = {"id": "abcd1234", "currency": "EUR"}
    inputs = {"events": {"path": "events.csv"}, "platform_claims": section | claims}
    return parse({"project": project, "rates": {"USD": 0.5}, "inputs": inputs})


def read(root: Path, lines: list[str], encoding: str = "utf-8", **claims: Any) -> list[dict[str, Any]]:
    (root / "claims.csv").write_bytes("\n".join(lines).encode(encoding))
    found = read_claims(root, config(**claims), CHANNELS)
    assert found is not None
    return found.rows.to_dict("records")


def test_google_ads_in_utf_16_with_titles_and_totals(tmp_path: Path) -> None:
    first, second = read(tmp_path, GOOGLE, "utf-16")
    assert (first["platform"], first["channel"], first["campaign"]) == ("google_ads", "search", "Brand")
    assert (first["conversions"], first["revenue"], first["spend"]) == (12.5, 1234.5, 50.0)
    assert first["start"] == first["end"] == date(2024, 1, 1) and first["as_of"] is None
    assert second["conversions"] != second["conversions"] and second["spend"] == 49


def test_meta_adds_ad_sets_and_reads_its_currency_from_the_header(tmp_path: Path) -> None:
    (row,) = read(tmp_path, META)
    assert (row["channel"], row["conversions"], row["revenue"], row["spend"]) == ("social", 10, 250.25, 15.0)


def test_ga4_skips_comments_and_the_grand_total(tmp_path: Path) -> None:
    rows = read(tmp_path, GA4)
    assert [(r["channel"], r["start"], r["revenue"]) for r in rows] == [
        ("search", date(2024, 1, 1), 700), ("social", date(2024, 1, 2), 300),
    ]  # fmt: skip


def test_micros_of_the_google_ads_api(tmp_path: Path) -> None:
    (row,) = read(tmp_path, API)
    assert (row["spend"], row["channel"]) == (1.5, "search")


def test_a_table_of_our_own_with_as_of_and_spans(tmp_path: Path) -> None:
    lines = ["von;bis;Kanal;Umsatz;Stand", "2024-01-01;2024-01-31;social;1.234,50 €;2024-02-05"]
    names = {"start": "von", "end": "bis", "channel": "Kanal", "revenue": "Umsatz", "as_of": "Stand",
             "platform": {"value": "shop"}}  # fmt: skip
    (row,) = read(tmp_path, lines, columns=names)
    assert (row["platform"], row["channel"], row["revenue"]) == ("shop", "social", 1234.5)
    assert (row["end"], row["as_of"]) == (date(2024, 1, 31), date(2024, 2, 5))


def test_what_is_mapped_to_nothing_is_left_out(tmp_path: Path) -> None:
    rows = read(tmp_path, GA4, channels={"Paid Search": "search", "Paid Social": ""})
    assert [r["channel"] for r in rows] == ["search"]


@pytest.mark.parametrize(
    ("lines", "claims", "message"),
    [
        (GA4, {"channels": {}}, r"claims.csv row 5: no channel is known for 'Paid Search' / 'ga4' \(declared: search, "
                                r'social\); say which .*platform_claims.channels\].* "Paid Search" = "search"'),
        (GA4, {"channels": {"Paid Search": "serch"}}, r"maps 'Paid Search' to 'serch', which is not declared"),
        (["a,b", "1,2"], {}, r"claims.csv is no export that is known here \(Google Ads, Meta, GA4\): it needs a date"),
        ([*META, "Prospecting,2024-01-02,2024-01-02,2024-01-02,many,1,1"], {},
         r"claims.csv row 4: Purchases is 'many'; write a plain number"),
        ([*META, "Prospecting,Jan 2,Jan 2,Jan 2,1,1,1"], {}, r"claims.csv row 4: Day is 'Jan 2'; write ISO dates"),
        ([*META, "Prospecting,2024-01-02,2024-01-02,2024-01-02,-3,1,1"], {}, r"negative values are not allowed"),
        ([m.replace("USD", "GBP") for m in META], {}, r"currency is 'GBP'; it has no rate into EUR"),
        (META, {"columns": {"conversions": "Leads"}}, r"has no column 'Leads', which \[inputs.platform_claims\]"),
        (META[:1], {}, r"claims.csv holds no rows besides totals; export it again"),
        (GA4, {"channels": {"Paid Search": "", "Paid Social": ""}}, r"holds no claim of a declared channel"),
    ],
)  # fmt: skip
def test_faults_are_sentences(tmp_path: Path, lines: list[str], claims: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, lines, **claims)


def test_two_exports_of_the_same_days_need_an_as_of(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("\n".join(META), encoding="utf-8")
    with pytest.raises(InputError, match=r"platform_claims\]: platform claims of meta/social/Prospecting .* twice"):
        read(tmp_path, META, path=["claims.csv", "b.csv"])


def test_claims_beside_a_panel_are_refused() -> None:
    raw = {"project": {"id": "abcd1234"}, "inputs": {"panel": {"path": "panel.csv", "spend": {"tv": "tv"}},
                                                     "platform_claims": {"path": "claims.csv"}}}  # fmt: skip
    with pytest.raises(ConfigError, match=r"\[inputs.platform_claims\] is compared with released credit"):
        parse(raw)


def test_attribution_settings_are_checked() -> None:
    raw = config().model_dump(mode="json", exclude_none=True)
    with pytest.raises(ConfigError, match=r"models"):
        parse(raw | {"attribution": {"models": ["best"]}})
    with pytest.raises(ConfigError, match="list every model once"):
        parse(raw | {"attribution": {"models": ["linear", "linear"]}})


def test_guesses_and_recognition() -> None:
    assert guess_channel("Paid Search", ("paid_search", "tv")) == "paid_search"
    assert guess_channel("Cross-network", CHANNELS) is None
    assert recognise(["x", "y"]) is None and recognise(META[0].split(",")).platform == "meta"  # type: ignore[union-attr]


def test_billing_counts_only_where_it_covers_the_span(tmp_path: Path) -> None:
    days = [date(2024, 1, 1) + timedelta(days=i) for i in range(10)]
    text = "date,revenue,currency\n" + "\n".join(f"{d},10,USD" for d in days)
    (tmp_path / "billing.csv").write_text(text, encoding="utf-8")
    raw = config().model_dump(mode="json", exclude_none=True)
    raw["inputs"] = {"events": {"path": "events.csv"}, "billing": {"path": "billing.csv"}}
    billing = read_billing(tmp_path, parse(raw))
    assert billing is not None
    assert billing.within(days[0], days[6]) == {"revenue": 35.0}
    assert billing.within(days[0], days[9] + timedelta(days=1)) == {}


def test_a_run_with_claims_rules_and_order_two(workspace: Path, plumb) -> None:  # type: ignore[no-untyped-def]
    days = [date(2024, 1, 1) + timedelta(days=i) for i in range(39 * 7)]
    text = "date,platform,channel,conversions,revenue,spend\n"
    text += "".join(f"{d},google,search,40,2000,5\n{d},meta,Social,30,1500,5\n" for d in days)
    (workspace / "claims.csv").write_text(text, encoding="utf-8")
    (workspace / "billing.csv").write_text("date,revenue\n" + "".join(f"{d},100\n" for d in days), encoding="utf-8")
    said = initialise(workspace)
    assert {"platform_claims", "billing"} <= set(said.inputs) and not said.notes
    config_file = workspace / "plumb.toml"
    written = config_file.read_text(encoding="utf-8")
    assert 'Social = "social"' in written
    for before, after in (("rho_per_user_quarter = 0.2", "rho_per_user_quarter = 20.0"), ("kpi = 0.5", "kpi = 0.2"),
                          ("credit = 0.0", "credit = 0.3"), ("markov_order = 1", "markov_order = 2"),
                          ('"shapley"]', '"shapley", "shapley_rate"]')):  # fmt: skip
        assert before in written, before
        written = written.replace(before, after, 1)
    config_file.write_text(written, encoding="utf-8")
    assert plumb("release", workspace)[0] == 0
    code, answer = plumb("credit", workspace)
    assert code == 0, answer
    credit = read_view(workspace / "warehouse.duckdb", "v_credit")
    models = {"last_touch", "first_touch", "linear", "position_based", "markov", "shapley", "shapley_rate"}
    assert set(credit["model"]) == models | {"time_decay", "last_non_direct", "u_shaped", "platform_claimed"}
    sums = credit.groupby(["metric", "period_start", "model"])["mean"].sum().unstack()
    assert (sums.sub(sums["linear"], axis=0).abs() < 1e-6 * sums["linear"].abs().max()).all().all()
    rest = credit[(credit["model"] == "platform_claimed") & (credit["channel"] == "unattributed")]
    assert (rest["mean"] < 0).all() and (rest["sd"] > 0).all(), "claims above all sales show"
    assert credit[credit["metric"] == "revenue"]["roas"].notna().any() and credit["cpa"].notna().any()
    assert "order 2" in credit[credit["model"] == "markov"]["definition"].iloc[0]
    parity = read_view(workspace / "warehouse.duckdb", "v_parity")
    assert {"models", "change", "total", "claims"} <= set(parity["kind"])
    over = parity[(parity["kind"] == "claims") & (parity["subject"] == "platform_claimed")]
    assert (over["value"] > 1).all() and (over["status"] == "warn").all()
    checks = read_view(workspace / "warehouse.duckdb", "v_checks")
    assert set(checks[checks["check_name"] == "credit parity"]["subject"]) == {"change", "total", "claims"}
    # a restated export makes a new version: history keeps both, parity compares them
    (workspace / "claims.csv").write_text(text.replace("40,2000", "60,3000"), encoding="utf-8")
    assert plumb("credit", workspace)[0] == 0
    history = read_view(workspace / "warehouse.duckdb", "v_credit_history")
    assert history["run_id"].nunique() == 2 and history["as_of"].nunique() == 2
    parity = read_view(workspace / "warehouse.duckdb", "v_parity")
    moved = parity[(parity["kind"] == "versions") & (parity["status"] == "warn")]
    assert set(moved["subject"]) == {"platform_claimed"}
