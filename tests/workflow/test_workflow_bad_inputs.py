"""Bad input: exit code 2, one sentence with place, value and fix; nothing changed, no budget spent (issue 2)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from filelock import FileLock

from workflow.init import initialise

Break = Callable[[Path], None]


def snapshot(root: Path) -> dict[str, bytes]:
    """Every file that a failed command might have touched: outputs, releases, ledger."""
    watched = [root / "warehouse.duckdb", root / "report.html", root / ".plumb" / "ledger.sqlite"]
    watched += sorted((root / "releases").glob("*")) + sorted((root / ".plumb" / "runs").rglob("manifest.json"))
    return {str(p.relative_to(root)): p.read_bytes() for p in watched if p.is_file()}


def edit(name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Break:
    """Rewrites a CSV table of the workspace."""

    def apply(root: Path) -> None:
        change(pd.read_csv(root / name)).to_csv(root / name, index=False)

    return apply


def toml(pattern: str, replacement: str) -> Break:
    """Replaces one line of plumb.toml."""

    def apply(root: Path) -> None:
        path = root / "plumb.toml"
        text = path.read_text(encoding="utf-8")
        new = re.sub(pattern, replacement, text, count=1, flags=re.MULTILINE)
        assert new != text
        path.write_text(new, encoding="utf-8")

    return apply


def first(column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Sets one cell of the first row."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.astype({column: object}).assign(**{column: [value, *frame[column].iloc[1:]]})

    return change


def events(sql: str) -> Break:
    """Rewrites events.parquet through a SELECT over `e`."""

    def apply(root: Path) -> None:
        path = root / "events.parquet"
        with duckdb.connect() as connection:
            connection.execute(f"CREATE TABLE e AS SELECT * FROM read_parquet('{path}')")
            connection.execute(f"COPY ({sql}) TO '{path}' (FORMAT parquet)")

    return apply


def missing(name: str) -> Break:
    """Takes a file away."""
    return lambda root: (root / name).unlink()


FUTURE = "SELECT * REPLACE (CASE WHEN {} THEN TIMESTAMPTZ '2199-01-01' ELSE ts END AS ts) FROM e"

CASES: dict[str, tuple[Break, str]] = {
    "missing spend file": (missing("spend.csv"), r"spend: no file at 'spend.csv'.*\[inputs.spend\]"),
    "missing events file": (missing("events.parquet"), r"no file at 'events.parquet'"),
    "missing column in spend": (
        edit("spend.csv", lambda f: f.drop(columns="spend")), r"spend.csv has no column 'spend'; it has .*map it"),
    "missing column in events": (events("SELECT * EXCLUDE (ts) FROM e"), r"events.parquet.*ts"),
    "unknown channel in spend": (
        edit("spend.csv", first("channel", "serach")), r"spend.csv row 2: channel is 'serach'; it is not declared"),
    "unknown geo in spend": (edit("spend.csv", first("geo", "atlantis")), r"spend.csv row 2: geo is 'atlantis'"),
    "negative spend": (edit("spend.csv", first("spend", -5)), r"spend.csv row 2: spend is '-5.0'; negative values"),
    "spend that is no number": (edit("spend.csv", first("spend", "ten")), r"spend.csv row 2: spend is 'ten'"),
    "a date that is not ISO": (edit("spend.csv", first("date", "01/02/2024")), r"date is '01/02/2024'; write ISO"),
    "mixed currencies in spend": (
        edit("spend.csv", lambda f: f.assign(currency=["EUR"] + ["USD"] * (len(f) - 1))),
        r"spend.csv row \d+: currency is '\w+'; it has no rate into \w+; add it to \[rates\]"),
    "mixed currencies in events": (
        events("SELECT * REPLACE (CASE WHEN value IS NULL THEN currency ELSE 'JPY' END AS currency) FROM e"), r"JPY"),
    "a hole in the controls": (
        edit("controls.csv", lambda f: f[f["geo"] != f["geo"].iloc[0]]), r"controls.csv has no row for geo"),
    "experiment with an unknown geo": (
        edit("experiments.csv", lambda f: f.assign(treated=f["treated"].where(f["kind"] != "geo", "nowhere"))),
        r"experiments.csv row \d+: treated names the geo 'nowhere', which is not declared"),
    "experiment with an unknown channel": (
        edit("experiments.csv", first("channel", "radio")), r"experiments.csv row 2: channel is 'radio'"),
    "geo experiment with one unknown channel of two": (
        edit("experiments.csv", first("channel", "search;radio")), r"experiments.csv row 2: channel is 'search;radio'"),
    "experiment that ends before it starts": (
        edit("experiments.csv", first("end", "2000-01-01")), r"row 2: end is '2000-01-01'; the test ends before"),
    "typo in plumb.toml": (
        toml("^rho_per_user_quarter", "rho_per_user_quater"), r"rho_per_user_quater is not a known key; did you mean"),
    "a bound of 0": (toml(r"^bound = .*$", "bound = 0"), r"bound is 0; it must be greater than 0"),
    "broken toml": (toml(r"^delta = ", "delta = = "), r"not valid TOML"),
    "too many malformed rows": (
        events(FUTURE.format("hash(event_id) % 20 = 0")),
        r"max_rejected"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CASES))
def test_bad_input_is_refused_with_a_sentence(name: str, workspace: Path, plumb: Callable[..., object]) -> None:
    initialise(workspace)
    damage, sentence = CASES[name]
    damage(workspace)
    before = snapshot(workspace)
    code, answer = plumb("run", workspace)  # type: ignore[misc]
    assert code == 2, answer
    assert re.search(sentence, answer["error"], flags=re.DOTALL), answer["error"]
    assert snapshot(workspace) == before
    assert not (workspace / ".plumb" / "ledger.sqlite").exists() and not list(workspace.glob("releases/*"))


def test_a_second_run_at_once_is_refused_at_once(workspace: Path, plumb: Callable[..., object]) -> None:
    initialise(workspace)
    (workspace / ".plumb").mkdir()
    with FileLock(workspace / ".plumb" / "lock"):
        code, answer = plumb("run", workspace)  # type: ignore[misc]
    assert code == 2 and "another plumb command is working" in answer["error"]


def test_a_folder_without_plumb_toml_says_what_to_do(tmp_path: Path, plumb: Callable[..., object]) -> None:
    code, answer = plumb("run", tmp_path)  # type: ignore[misc]
    assert code == 2 and f"plumb init {tmp_path}" in answer["error"]


def test_channels_declared_nowhere(tmp_path: Path, workspace: Path, plumb: Callable[..., object]) -> None:
    (workspace / "events.parquet").rename(tmp_path / "events.parquet")
    code, answer = plumb("init", tmp_path)  # type: ignore[misc]
    assert code == 0
    code, answer = plumb("run", tmp_path)  # type: ignore[misc]
    assert code == 2 and "calendar_start" in answer["error"]
    text = (tmp_path / "plumb.toml").read_text(encoding="utf-8")
    dates = 'calendar_start = 2024-01-01\ncalendar_end = 2024-06-30\ngeos = ["geo_01"]\n'
    (tmp_path / "plumb.toml").write_text(text.replace("[project]\n", f"[project]\n{dates}"), encoding="utf-8")
    code, answer = plumb("run", tmp_path)  # type: ignore[misc]
    assert code == 2 and "no channel is declared" in answer["error"]


def test_a_full_disk_is_a_sentence(
    workspace: Path, plumb: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    initialise(workspace)
    usage = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr("workflow.paths.shutil.disk_usage", lambda path: usage)
    code, answer = plumb("run", workspace)  # type: ignore[misc]
    assert code == 2 and "MB free" in answer["error"] and "no privacy budget" in answer["error"]
    assert not list(workspace.glob("releases/*.parquet"))


def test_malformed_rows_below_the_share_are_quarantined(workspace: Path, plumb: Callable[..., object]) -> None:
    initialise(workspace)
    events(FUTURE.format("row_number() OVER () = 7"))(workspace)
    code, answer = plumb("check", workspace)  # type: ignore[misc]
    assert code == 0, answer
    held = next((workspace / "raw" / "quarantine" / "events").iterdir())
    assert b"future" not in held.read_bytes()
    code, answer = plumb("quarantine", "events", "-C", workspace)  # type: ignore[misc]
    assert code == 0 and "future" in str(answer["csv"])
