"""`plumb init`: a file that runs unedited, a partial one completed, secrets for the owner only."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest

from contracts.errors import ConfigError
from workflow.config import load
from workflow.guess import family_of, panel_guess, text_of
from workflow.init import initialise


def test_standard_files_are_recognised(workspace: Path) -> None:
    done = initialise(workspace)
    config = load(done.config)
    assert done.created and done.notes == ()
    assert set(done.inputs) == {"events", "spend", "controls", "assignments", "experiments"}
    assert config.inputs.events is not None and config.inputs.events.consent == "column"
    assert set(config.channels) == {"search", "retargeting", "social", "video", "tv"}
    assert config.families()["tv"] == "offline" and config.families()["retargeting"] == "retargeting"
    assert config.experiments["retargeting_holdout"].arms == ["control", "exposed"]
    assert len(config.project.geos) == 4


def test_secrets_are_private(workspace: Path, private_config: Path) -> None:
    config = load(initialise(workspace).config)
    home = private_config / "plumb" / config.project.id
    secret = home / "secret"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert len(secret.read_bytes()) == 32


def test_a_second_init_changes_nothing(workspace: Path, private_config: Path) -> None:
    initialise(workspace)
    before = (workspace / "plumb.toml").read_bytes()
    secret = next(private_config.rglob("secret")).read_bytes()
    assert initialise(workspace).added == ()
    assert (workspace / "plumb.toml").read_bytes() == before
    assert next(private_config.rglob("secret")).read_bytes() == secret


PARTIAL = """# ours
[privacy]   # strict team
delta = 1e-7  # agreed with legal

[project]
kpi = "revenue"
name = "Shop"

[channels.tv]
family = "other"
"""


def test_a_partial_file_keeps_keys_comments_and_order(workspace: Path) -> None:
    (workspace / "plumb.toml").write_text(PARTIAL, encoding="utf-8")
    done = initialise(workspace)
    text = done.config.read_text(encoding="utf-8")
    assert not done.created
    for line in PARTIAL.splitlines():
        assert line in text.splitlines()
    assert text.index("[privacy]") < text.index("[project]") < text.index("[channels.tv]")
    config = load(done.config)
    assert (config.project.kpi, config.project.name, config.privacy.delta) == ("revenue", "Shop", 1e-7)
    assert config.channels["tv"].family == "other" and len(config.channels) == 5
    assert config.privacy.rho_per_user_quarter == 0.2


def test_a_partial_file_with_inline_tables_is_completed(workspace: Path) -> None:
    (workspace / "plumb.toml").write_text("inputs = { max_rejected = 0.02 }\n", encoding="utf-8")
    config = load(initialise(workspace).config)
    assert config.inputs.max_rejected == 0.02 and config.inputs.spend is not None


def test_a_typo_in_a_partial_file_is_refused_and_nothing_is_written(workspace: Path) -> None:
    path = workspace / "plumb.toml"
    path.write_text('[project]\ncurency = "EUR"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"\[project\] curency is not a known key; did you mean currency"):
        initialise(workspace)
    assert path.read_text(encoding="utf-8") == '[project]\ncurency = "EUR"\n'


def test_weekly_spend_sets_the_week_start_and_currency(tmp_path: Path) -> None:
    days = ["2026-01-04", "2026-01-11", "2026-01-18"]  # Sundays
    rows = "".join(f"{d},north,tv,10,EUR\n" for d in days)
    (tmp_path / "spend.csv").write_text("date,geo,channel,spend,currency\n" + rows, encoding="utf-8")
    (tmp_path / "events.csv").write_text("event_id,user_id,ts,event,channel,geo\n", encoding="utf-8")
    config = load(initialise(tmp_path).config)
    assert (config.project.week_start, config.project.currency) == ("sunday", "EUR")
    assert config.inputs.events is not None and config.inputs.events.consent == "assumed"


def test_inputs_without_geo_count_nationally(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("event_id,user_id,ts,event,channel\n", encoding="utf-8")
    done = initialise(tmp_path)
    written = tomllib.loads(done.config.read_text(encoding="utf-8"))
    assert written["project"]["geos"] == ["national"]
    assert written["inputs"]["events"]["columns"] == {"geo": {"value": "national"}}
    assert "national" in done.notes[0]


def test_folders_and_parquet_win_over_csv_of_the_same_stem(tmp_path: Path, workspace: Path) -> None:
    (tmp_path / "events").mkdir()
    (workspace / "events.parquet").rename(tmp_path / "events" / "part-0.parquet")
    (tmp_path / "spend.csv").write_bytes((workspace / "spend.csv").read_bytes())
    config = load(initialise(tmp_path).config)
    assert config.inputs.events is not None and config.inputs.events.path == "events"


def test_an_empty_folder_gets_a_file_and_a_note(tmp_path: Path) -> None:
    done = initialise(tmp_path)
    assert done.created and "neither [inputs.events] nor [inputs.panel]" in done.notes[0]


def test_panel_columns_are_guessed(shared_data: Path) -> None:
    source = shared_data / "mmm"
    table = text_of(source, ["meridian_geo_all_channels.csv"], "panel", {})
    found = panel_guess(table)
    assert found.spend == {f"Channel{i}": f"Channel{i}_spend" for i in range(5)}
    assert found.exposure == {f"Channel{i}": f"Channel{i}_impression" for i in range(5)}
    assert found.keys["date"] == "time" and found.keys["revenue_per_kpi"] == "revenue_per_conversion"
    assert found.keys["organic"] == ["Organic_channel0_impression"]
    assert found.keys["controls"] == ["competitor_sales_control", "sentiment_score_control", "Promo"]


@pytest.mark.parametrize(
    ("name", "family"),
    [("Brand Search", "brand_search"), ("paid_search", "brand_search"), ("tv", "offline"), ("Connected TV", "offline"),
     ("Retargeting", "retargeting"), ("e-mail", "email"), ("facebook", "prospecting"), ("affiliates", "affiliate"),
     ("xyz", "other")],
)  # fmt: skip
def test_families(name: str, family: str) -> None:
    assert family_of(name) == family
