"""The raw zone from the command line: who may open it, who is who, who is forgotten, and when a quarter closes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

from privacy.check import custody_figure
from workflow import people_inputs
from workflow.cli import app
from workflow.config import load
from workflow.init import initialise
from workflow.job import Job
from workflow.paths import Workspace, secret_home

Plumb = Callable[..., tuple[int, dict[str, object]]]


def somebody(workspace: Path) -> str:
    """An id of the world."""
    with duckdb.connect() as con:
        row = con.execute(f"SELECT min(user_id) FROM '{workspace / 'events.parquet'}'").fetchone()
    assert row is not None
    return str(row[0])


def write_map(workspace: Path, rows: str) -> None:
    (workspace / "people.csv").write_text("device_id,person_id\n" + rows, encoding="utf-8")
    text = (workspace / "plumb.toml").read_text(encoding="utf-8")
    (workspace / "plumb.toml").write_text(text + '\n[inputs.identity]\npath = "people.csv"\n', encoding="utf-8")


def test_open_doors_are_refused_with_the_command(workspace: Path, plumb: Plumb) -> None:
    initialise(workspace)
    home = secret_home(load(workspace / "plumb.toml").project.id)
    (workspace / "raw").mkdir()
    for path, open_mode, mode in ((workspace / "raw", 0o755, 700), (home / "secret", 0o640, 600), (home, 0o711, 700)):
        before = path.stat().st_mode
        path.chmod(open_mode)
        code, answer = plumb("check", workspace)
        assert code == 2 and f"run: chmod {mode} {path}" in str(answer["error"]), answer
        path.chmod(before)
        if path.name == "raw":
            path.chmod(0o700)
    assert not Workspace(workspace).ledger.exists()


def test_somebody_is_forgotten(workspace: Path, plumb: Plumb) -> None:
    initialise(workspace)
    who = somebody(workspace)
    code, answer = plumb("forget", who, "-C", workspace)
    assert code == 0 and answer["known_before"] is False
    assert [Path(p).name for p in answer["still_in"]][0] == "events.parquet"  # type: ignore[attr-defined]
    result = CliRunner().invoke(app, ["forget", "-", "-C", str(workspace)], input=f"{who}\n")
    assert result.exit_code == 0 and "as before" in result.stdout and "yours to mend" in result.stdout
    job = Job.open(workspace, quiet=True)
    assert len(people_inputs.load_settings(job).forgotten) == 1
    code, answer = plumb("forget", " ", "-C", workspace)
    assert code == 2 and "user id is empty" in str(answer["error"])
    assert who.encode() not in (workspace / ".plumb" / "forgotten.sealed").read_bytes()


def test_there_is_nobody_behind_a_panel(tmp_path: Path, plumb: Plumb) -> None:
    (tmp_path / "panel.csv").write_text(
        "date,kpi,tv_spend\n" + "".join(f"{date(2025, 1, 6) + timedelta(weeks=i)},5,1\n" for i in range(30)),
        encoding="utf-8",
    )
    initialise(tmp_path)
    for command in (("forget", "ann"), ("quarantine",)):
        code, answer = plumb(*command, "-C", tmp_path)
        assert code == 2 and "holds no user-level data" in str(answer["error"])
    assert not (tmp_path / "raw").exists()


def test_input_files_that_everybody_may_read_are_a_warning(workspace: Path, plumb: Plumb) -> None:
    initialise(workspace)
    for mode, status in ((0o604, "warn"), (0o600, "pass")):
        for name in ("events.parquet", "assignments.csv"):
            (workspace / name).chmod(mode)
        figure = custody_figure(people_inputs.people_inputs(Job.open(workspace, quiet=True)))
        assert figure.status == status
        assert ("take that away with chmod o-rwx" in figure.text) is (status == "warn")
    assert plumb("quarantine", "spend", "-C", workspace)[0] == 2


def test_init_finds_a_map_and_says_how_long_things_are_kept(workspace: Path) -> None:
    (workspace / "identity.csv").write_text("device_id,person_id\nx,y\n", encoding="utf-8")
    initialise(workspace)
    config = load(workspace / "plumb.toml")
    assert config.inputs.identity is not None and config.inputs.identity.path == "identity.csv"
    text = (workspace / "plumb.toml").read_text(encoding="utf-8")
    assert "close_lag_days = 7" in text and "retention_days = 35" in text


def test_a_map_is_read_and_a_double_one_refused(workspace: Path, plumb: Plumb) -> None:
    initialise(workspace)
    who = somebody(workspace)
    write_map(workspace, f"{who},somebody\n")
    assert plumb("check", workspace)[0] == 0
    (workspace / "people.csv").write_text(f"device_id,person_id\n{who},a\n{who},b\n", encoding="utf-8")
    code, answer = plumb("check", workspace)
    assert code == 2 and "people.csv row 1 gives a device to one person" in str(answer["error"])
    assert who not in str(answer["error"])


def test_direct_identifiers_stop_the_check(workspace: Path, plumb: Plumb) -> None:
    initialise(workspace)
    path = workspace / "events.parquet"
    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE e AS SELECT *, '10.1.2.' || (hash(user_id) % 250) AS seen_from FROM '{path}'")
        con.execute(f"COPY e TO '{path}' (FORMAT parquet)")
    code, answer = plumb("check", workspace)
    assert code == 2 and "column 'seen_from'" in str(answer["error"]) and "10.1.2." not in str(answer["error"])
    text = (workspace / "plumb.toml").read_text(encoding="utf-8")
    (workspace / "plumb.toml").write_text(
        text.replace("[inputs]\n", '[inputs]\nnot_identifiers = ["seen_from"]\n', 1), encoding="utf-8"
    )
    assert plumb("check", workspace)[0] == 0


@pytest.mark.parametrize(("lag", "days", "closed"), [(7, 7, False), (7, 8, True), (0, 1, True), (30, 8, False)])
def test_a_quarter_closes_after_its_lag(workspace: Path, monkeypatch, lag, days, closed) -> None:  # type: ignore[no-untyped-def]
    initialise(workspace)
    job = Job.open(workspace, quiet=True)
    privacy = job.config.privacy.model_copy(update={"close_lag_days": lag})
    job.config = job.config.model_copy(update={"privacy": privacy})
    first = people_inputs.blocks(job.public.weeks, job.config.project.fiscal_year_start)[0]
    last = max(w for w in job.public.weeks if w <= first.end) + timedelta(days=6)
    clock = datetime.combine(last + timedelta(days=days), datetime.min.time(), UTC)
    monkeypatch.setattr(people_inputs, "utc_clock", lambda: clock)
    assert (first.id in [b.id for b in people_inputs.closed_blocks(job)]) is closed
    job.as_of = clock.date()
    assert first.id in [b.id for b in people_inputs.closed_blocks(job)], "who names a day says that rows are in"
