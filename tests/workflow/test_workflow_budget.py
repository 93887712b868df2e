"""`plumb budget`, `plan` and `void` below it and `plumb verify`; and what plumb.toml cannot be made to ask for."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from privacy.room import read_release
from workflow import budget as module
from workflow.cli import app
from workflow.init import initialise
from workflow.people_inputs import actor

Plumb = Callable[..., tuple[int, dict[str, Any]]]
PANEL = '[project]\nid = "panel-door"\n[inputs.panel]\npath = "p.csv"\n[inputs.panel.spend]\nsearch = "search"\n'


def edit(path: Path) -> None:
    """A better figure in every row of a published release, everything else as it was."""
    table = pq.read_table(path)
    at = table.schema.get_field_index("value")
    pq.write_table(table.set_column(at, "value", pc.add(table["value"], 1.0)), path)


def text(*arguments: object) -> tuple[int, str]:
    """A command as a person runs it."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, result.output


def test_the_budget_says_how_much_of_what_who_and_when(work: Path, plumb: Plumb) -> None:
    code, answer = plumb("budget", work)
    assert code == 0 and answer["door"] == "events"
    for block in answer["blocks"]:
        assert sum(m["spent"] for m in block["measures"]) == pytest.approx(block["spent"])
        assert sum(m["cap"] for m in block["measures"]) == pytest.approx(block["cap"]) == pytest.approx(0.2)
        assert block["left"] == pytest.approx(block["cap"] - block["spent"])
        mine = [c for c in answer["charges"] if c["block"] == block["block"]]
        assert sum(c["rho"] for c in mine) == pytest.approx(block["spent"])
        assert block["epsilon"] < block["epsilon_cap"] == pytest.approx(3.131, abs=1e-3)
    assert {c["by"] for c in answer["charges"]} == {actor()} and {c["state"] for c in answer["charges"]} == {
        "published"
    }
    assert sum(y["spent"] for y in answer["years"]) == pytest.approx(sum(b["spent"] for b in answer["blocks"]))
    assert answer["year_rho"] == pytest.approx(sum(b["spent"] for b in answer["blocks"]))
    code, shown = text("budget", "-C", work)
    assert code == 0 and "reserve" in shown and answer["charges"][0]["release_id"] in shown
    assert answer["ledger"]["head"] in shown and "those of parts do not add up" in shown


def test_the_budget_before_the_first_release_and_behind_the_other_door(workspace: Path, tmp_path: Path) -> None:
    initialise(workspace)
    code, shown = text("budget", workspace)
    assert code == 0 and "Nothing was released yet" in shown and "epsilon 3.13 at delta 1e-06" in shown
    assert not (workspace / ".plumb" / "ledger.sqlite").exists()
    code, shown = text("verify", workspace)
    assert code == 0 and "ledger: holds" in shown
    (tmp_path / "plumb.toml").write_text(PANEL, encoding="utf-8")
    for command in (("budget",), ("budget", "plan"), ("verify",)):
        code, shown = text(*command, "-C", tmp_path)
        assert code == 0 and "there is no privacy budget to spend" in " ".join(shown.split()), shown
    code, shown = text("budget", "void", "kpi-1", "--proof", "never released anything", "-C", tmp_path)
    assert code == 2 and "there is nothing to void" in shown


def test_a_plan_reads_nothing_about_people(workspace: Path, plumb: Plumb, tmp_path: Path) -> None:
    initialise(workspace)
    for path in workspace.glob("events*"):
        path.unlink()
    (workspace / "assignments.csv").unlink(missing_ok=True)
    code, answer = plumb("budget", "plan", workspace, "--rho", 0.1, "--rho", 0.4, "--size", 200)
    assert code == 0 and [r["rho"] for r in answer["rows"]] == [0.1, 0.4] and answer["sizes"] == [200.0]
    one, four = answer["rows"]
    assert one["conversions_sd"] == pytest.approx(2 * four["conversions_sd"], rel=1e-6)
    assert one["relative_error"] == [pytest.approx(one["conversions_sd"] / 200)]
    assert one["epsilon_quarter"] == pytest.approx(2.142, abs=1e-3)
    code, answer = plumb("budget", "plan", tmp_path / "nowhere")
    assert code == 0 and not answer["declared"] and [r["rho"] for r in answer["rows"]] == [0.05, 0.1, 0.2, 0.5, 1.0]
    code, shown = text("budget", "plan", workspace, "--experiments", 1)
    assert (
        code == 0
        and "user lift" in shown
        and "two arms of 50,000 people" in shown
        and "sd = C / sqrt(2 rho" in shown
        and "12.4 %" in shown
    )
    for options, said in (
        (("--share", "kpi"), "write a measure and its part, such as kpi=0.6"),
        (("--share", "sales=0.2"), "--share sales is unknown"),
        (("--share", "kpi=0.9"), "must add up to 1 at most"),
        (("--rho", "-1"), "rho_per_user_quarter must be > 0"),
        (("--base-rate", "2"), "base_rate must lie between 0 and 1"),
    ):
        code, shown = text("budget", "plan", workspace, *options)
        assert code == 2 and said in shown, shown


def test_a_plan_reads_the_tests_that_are_declared(workspace: Path, plumb: Plumb) -> None:
    initialise(workspace)
    code, before = plumb("budget", "plan", workspace, "--rho", 0.2)
    assert code == 0 and [t["test"] for t in before["tests"]] == ["retargeting_holdout"], before
    path, head = workspace / "plumb.toml", "[experiments.retargeting_holdout]\n"
    told = path.read_text(encoding="utf-8")
    keys = 'metrics = ["conversions"]\nlooks = 2\nstrata = ["new", "old"]\n'
    extra = '\n[experiments.later]\narms = ["control", "mail"]\n'
    path.write_text(told.replace(head, head + keys) + extra, encoding="utf-8")
    code, after = plumb("budget", "plan", workspace, "--rho", 0.2)
    old, (mine, later) = before["tests"][0], after["tests"]
    assert (old["components"], mine["components"], mine["strata"], mine["looks"]) == (8, 3, 2, 2)
    assert later["test"] == "later" and later["lift"]["total"] == pytest.approx(old["lift"]["total"])
    assert mine["rho"] + 2 * mine["look_rho"] == pytest.approx(old["rho"]) and mine["look_sd"] > mine["sd"]
    assert after["rows"][0]["user_lift"]["total"] == max(t["lift"]["total"] for t in after["tests"])
    assert {c["vector"] for c in after["cells"] if c["measure"] == "trials"} == {
        "retargeting_holdout", "retargeting_holdout, each look", "later",
    }  # fmt: skip
    code, shown = text("budget", "plan", workspace)
    assert code == 0 and "declared test" in shown and "the one that shows least" in " ".join(shown.split()), shown
    code, answer = plumb("budget", "plan", workspace, "--experiments", 2)
    assert code == 0 and answer["tests"] == [] and answer["assumed"]["experiments"] == 2
    path.write_text(told.replace(head, head + "looks = 100\n"), encoding="utf-8")
    code, shown = text("budget", "plan", workspace)
    assert code == 2 and "declare at most one look a week" in shown


def test_the_plan_of_a_declared_test_is_what_its_release_paid_and_got(work: Path, plumb: Plumb) -> None:
    (told,) = plumb("budget", "plan", work)[1]["tests"]
    paid = [c for c in plumb("budget", work)[1]["charges"] if c["measure"] == "trials"]
    assert len(paid) == told["quarters"] and {c["rho"] for c in paid} == {told["rho"]}
    (vector,) = read_release(work / "releases" / f"{paid[0]['release_id']}.parquet").vectors
    assert vector.sigma == told["sd"]


def test_verify_has_an_exit_code_of_its_own(work: Path, plumb: Plumb) -> None:
    code, answer = plumb("verify", "-C", work)
    assert (code, answer["status"], answer["failed"], answer["question"]) == (0, "ok", False, "")
    assert len(answer["subjects"]) == 1 + len(list((work / "releases").iterdir()))
    path = next((work / "releases").glob("kpi-*"))
    good = path.read_bytes()
    edit(path)
    code, answer = plumb("verify", path.stem, "-C", work)
    assert (code, answer["status"]) == (5, "failed")
    code, shown = text("verify", work)
    assert code == 5 and "FAILS" in shown and "the file was edited after publication" in shown
    path.write_bytes(good)
    head = plumb("budget", work)[1]["ledger"]["head"]
    assert plumb("verify", "-C", work, "--witness", head)[0] == 0
    code, shown = text("verify", "-C", work, "--witness", "0" * 64)
    assert code == 5 and "the noted entry is not in the chain" in shown
    assert plumb("verify", "nothing", "-C", work)[0] == 2


def test_an_edited_release_is_met_by_every_command_that_reads_it(work: Path, plumb: Plumb) -> None:
    """Also where plumb.toml asks another question by now, so that nothing would publish or verify it otherwise."""
    path = next((work / "releases").glob("kpi-2024-04-01-*"))
    good = path.read_bytes()
    config = work / "plumb.toml"
    config.write_text(
        config.read_text("utf-8").replace("[project]", "[project]\ncalendar_end = 2024-05-12", 1), "utf-8"
    )
    edit(path)
    for command in ("lift", "release"):
        code, answer = plumb(command, work)
        assert code == 2 and answer["kind"] == "LedgerError" and "was edited after publication" in answer["error"]
    path.write_bytes(good)
    shutil.copy(path, path.with_name("a-second-one.parquet"))
    code, answer = plumb("lift", work)
    assert code == 2 and "claims to be release kpi-" in answer["error"]


@pytest.mark.parametrize(
    ("setting", "code", "said"),
    [
        ("fiscal_year_start = 2", 2, "project.fiscal_year_start of plumb.toml was another one then"),
        ('time_zone = "Asia/Tokyo"', 2, "was released with time_zone = 'UTC' and plumb.toml now says 'Asia/Tokyo'"),
        ("calendar_end = 2024-05-12", 0, ""),
    ],
)
def test_plumb_toml_cannot_ask_for_fresh_quarters(work: Path, plumb: Plumb, setting: str, code: int, said: str) -> None:
    """Refused, or nothing new is asked: what is out stays, and not one nano-rho moves."""
    config = work / "plumb.toml"
    lines = [x for x in config.read_text("utf-8").splitlines() if not x.startswith(setting.split(" =")[0])]
    config.write_text("\n".join(lines).replace("[project]", f"[project]\n{setting}", 1), "utf-8")
    before, spent = sorted((work / "releases").iterdir()), plumb("budget", work)[1]["blocks"]
    found, answer = plumb("release", work)
    assert found == code and said in str(answer.get("error", "")), answer
    assert plumb("budget", work)[1]["blocks"] == spent
    assert sorted((work / "releases").iterdir()) == before


def test_a_charge_cut_off_before_its_draw_is_voided(
    workspace: Path, plumb: Plumb, monkeypatch: pytest.MonkeyPatch
) -> None:
    initialise(workspace)

    def die(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("privacy.publish._draw", die)
        assert plumb("release", workspace)[0] == 130
    waiting = [c for c in plumb("budget", workspace)[1]["charges"] if c["state"] == "reserved"]
    name = waiting[0]["release_id"]
    code, answer = plumb("budget", "void", name, "--proof", "interrupted before any draw", "-C", workspace)
    assert code == 0 and sum(answer["rho"].values()) == pytest.approx(waiting[0]["rho"])
    answer = plumb("budget", workspace)[1]
    assert name not in {c["release_id"] for c in answer["charges"]}
    assert answer["voided"][0]["reason"] == "interrupted before any draw" and answer["voided"][0]["by"] == actor()
    code, shown = text("budget", workspace)
    assert "Voided: " + name in shown.replace("\n", " ")
    code, answer = plumb("release", workspace)
    assert code == 0, answer
    code, answer = plumb("budget", "void", name, "--proof", "I would like it back", "-C", workspace)
    assert code == 2 and "what people have seen cannot be unspent" in answer["error"]
    raw = sqlite3.connect(workspace / ".plumb" / "ledger.sqlite")
    bodies = [json.loads(b) for (b,) in raw.execute("SELECT body FROM entry WHERE kind = 'void'")]
    raw.close()
    assert [b["release"] for b in bodies] == [name]


def test_the_actor_has_a_name_even_without_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", unknown)
    assert actor() == f"uid {os.getuid()}" and module.actor is actor
