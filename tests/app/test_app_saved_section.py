"""The Scenarios page saves, opens, copies, renames, deletes and comments; run as Streamlit runs it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import app_sample_warehouse as sample
import pytest
from streamlit.testing.v1 import AppTest

from app import scenario, store
from app.saved import database, files, pricing, scenarios
from app.saved.scenarios import Pricing
from app.store import ENV

MAIN = Path(__file__).resolve().parents[2] / "app" / "main.py"
NOW = scenario.current(sample.surface())


@pytest.fixture
def root(tmp_path: Path, warehouse: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace of its own with the full fixture."""
    shutil.copyfile(warehouse("full"), tmp_path / "warehouse.duckdb")
    monkeypatch.setenv(ENV, str(tmp_path / "warehouse.duckdb"))
    return tmp_path


def opened() -> AppTest:
    at = AppTest.from_file(MAIN, default_timeout=60).run()
    at.switch_page("views/scenarios_page.py").run()
    assert not at.exception
    return at


def press(at: AppTest, key: str) -> AppTest:
    at.button(key=key).click().run()
    assert not at.exception, at.exception
    return at


def save(at: AppTest, name: str, note: str = "", author: str = "ana") -> AppTest:
    at.text_input(key="saved_name").set_value(name)
    at.text_input(key="saved_author").set_value(author)
    at.text_area(key="saved_note").set_value(note)
    return press(at, "saved_save_new")


def said(at: AppTest) -> str:
    """All text on the page, each piece from a small letter on, without Markdown's escapes."""
    kinds = (at.success, at.warning, at.error, at.info, at.caption, at.markdown)
    return "\n".join(e.value[:1].lower() + e.value[1:] for kind in kinds for e in kind).replace("\\", "")


def names(root: Path) -> list[str]:
    frame = store.load(root / "warehouse.duckdb").scenarios
    return sorted(frame.loc[frame["scenario_id"] != "", "scenario"].unique())


def test_saving_puts_what_is_on_the_screen_into_the_warehouse(root: Path) -> None:
    at = opened()
    assert "nothing has been saved yet" in said(at)
    at.slider(key="scenario_move.social").set_value(20).run()
    shown = scenario.compare(sample.surface(), at.session_state["scenario_plan"])
    save(at, "Push social", "before the fair")
    assert "saved Push social." in said(at)
    rows = store.load(root / "warehouse.duckdb").scenarios
    mine = rows[rows["scenario"] == "Push social"].set_index("channel")
    assert (set(mine["author"]), set(mine["note"]), set(mine["version"])) == ({"ana"}, {"before the fair"}, {1})
    assert mine.at["social", "spend"] == pytest.approx(1.2 * 13 * NOW[2])
    assert mine["mean"].sum() == pytest.approx(13 * shown.planned.mean)
    assert not mine["outdated"].any()
    table = next(d.value for d in at.dataframe if "priced with" in d.value.columns)
    assert table["priced with"].tolist() == ["the fit in use"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "a scenario's name is empty"),
        ("  ", "a scenario's name is empty"),
        ("Current", "kept for the scenario that `plumb plan` makes"),
        ("a\nb", "control character"),
        ("push SOCIAL", "there is a scenario 'Push social' already"),
    ],
)
def test_a_bad_or_taken_name_is_a_sentence_and_nothing_is_saved(root: Path, name: str, sentence: str) -> None:
    at = save(opened(), "Push social")
    save(at, name)
    assert sentence in said(at)
    assert names(root) == ["Push social"]


def test_a_save_without_an_author_takes_the_account(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "the account")
    at = save(opened(), "Push", author="")
    assert "saved Push." in said(at)
    with database.reading(root / files.STATE_NAME) as con:
        assert scenarios.entries(con)[0].author == "the account"


def test_open_change_and_save_makes_the_next_version(root: Path) -> None:
    at = opened()
    at.slider(key="scenario_move.social").set_value(20).run()
    save(at, "Push", "first")
    at.slider(key="scenario_move.social").set_value(-10).run()
    press(at, "saved_open")
    assert at.slider(key="scenario_move.social").value == 20
    assert "opened Push, version 1." in said(at)
    at.slider(key="scenario_move.tv").set_value(5).run()
    at.text_input(key="saved_name").set_value("Push more")
    press(at, "saved_save_changes")
    assert "of Push more" in said(at) and names(root) == ["Push more"]


def test_a_change_of_someone_else_is_not_overwritten(root: Path) -> None:
    at = save(opened(), "Push")
    with database.writing(root / files.STATE_NAME) as con:
        one = scenarios.entries(con)[0]
        scenarios.rename(con, one.id, one.version, "bo", "Pushed by bo")
    press(at, "saved_save_changes")
    assert "was changed meanwhile by bo (version 2, you saw 1)" in said(at)
    with database.reading(root / files.STATE_NAME) as con:
        assert [(e.name, e.version) for e in scenarios.entries(con)] == [("Pushed by bo", 2)]


def test_copy_rename_comment_and_delete(root: Path) -> None:
    at = save(opened(), "Push")
    press(at, "saved_copy")
    assert names(root) == ["Push", "Push (copy)"]
    assert at.selectbox(key="saved_pick").value != at.session_state["saved_opened"][0]
    at.text_input(key="saved_rename").set_value("Calm")
    press(at, "saved_rename_now")
    at.text_area(key="saved_comment").set_value("who pays for *this*?")
    press(at, "saved_add_comment")
    assert "who pays for *this*?" in said(at)
    assert names(root) == ["Calm", "Push"]
    at.text_area(key="saved_comment").set_value(" ")
    press(at, "saved_add_comment")
    assert "a comment is empty" in said(at)
    press(at, "saved_delete")
    assert "deleted Calm." in said(at) and names(root) == ["Push"]


def test_a_busy_writer_keeps_the_save_and_the_next_look_brings_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    at = opened()
    with files.publishing(root):
        save(at, "Push")
        assert "It is kept, but not yet in the warehouse" in said(at)
        assert "will take it in" in said(at)
        assert names(root) == []
    at.run()
    assert not at.exception
    assert names(root) == ["Push"]


def refit(root: Path) -> None:
    """The same workspace after another fit: every draw a tenth larger."""
    tables = sample.full()
    assert tables.draws is not None
    assert tables.draws is not None
    tables.draws.draws["amplitude"] *= 1.1
    sample.write(root / "new.duckdb", tables).replace(root / "warehouse.duckdb")


def test_after_a_refit_a_saved_scenario_is_marked_and_can_be_priced_again(root: Path) -> None:
    at = save(opened(), "Push")
    refit(root)
    at.run()
    assert "priced with an older fit" in said(at)
    at.run()  # the catch-up of the last look has brought the save into the new file
    rows = store.load(root / "warehouse.duckdb").scenarios.query("scenario == 'Push'")
    assert rows["outdated"].all()
    press(at, "saved_reprice")
    after = store.load(root / "warehouse.duckdb").scenarios.query("scenario == 'Push'")
    assert not after["outdated"].any() and set(after["version"]) == {2}
    assert after["mean"].sum() == pytest.approx(1.1 * rows["mean"].sum())
    assert after["spend"].tolist() == pytest.approx(rows["spend"].tolist())
    assert "older fit" not in said(at)


def test_a_refit_under_an_open_page_refuses_the_save_and_keeps_the_plan(root: Path) -> None:
    at = opened()
    at.slider(key="scenario_move.social").set_value(20).run()
    refit(root)
    save(at, "Push")
    assert "the model was fitted again while this page was open" in said(at)
    assert at.slider(key="scenario_move.social").value == 20
    assert not (root / files.STATE_NAME).exists() or names(root) == []
    save(at, "Push")
    assert names(root) == ["Push"]


def test_a_scenario_in_another_currency_is_not_opened(root: Path) -> None:
    at = save(opened(), "Push")
    tables = sample.full()
    tables.meta["currency"] = "USD"
    sample.write(root / "new.duckdb", tables).replace(root / "warehouse.duckdb")
    at.run()
    for key in ("saved_open", "saved_save_changes"):
        press(at, key)
        assert "is counted in EUR, the workspace counts in USD" in said(at)
    with database.reading(root / files.STATE_NAME) as con:
        assert scenarios.entries(con)[0].version == 1


@pytest.mark.parametrize("variant", ["aggregate_only", "failed_gate"])
def test_other_states_of_the_workspace(root: Path, warehouse: Callable[[str], Path], variant: str) -> None:
    priced: Pricing = pricing.price(
        store.load(root / "warehouse.duckdb"), dict(zip(sample.CHANNELS, NOW.tolist(), strict=True))
    )
    shutil.copyfile(warehouse(variant), root / "warehouse.duckdb")
    if variant == "aggregate_only":
        at = save(opened(), "Push")
        assert names(root) == ["Push"]
        assert "no user-level data was used" in said(at)
        return
    with database.writing(root / files.STATE_NAME) as con:
        scenarios.create(con, "Push", "ana", "", priced)
    at = opened()
    assert "There is no published model now." in said(at)
    assert "saved_open" not in {b.key for b in at.button}
    press(at, "saved_copy")
    assert names(root) == ["Push", "Push (copy)"]


def test_a_damaged_state_file_is_a_sentence(root: Path) -> None:
    (root / files.STATE_NAME).write_bytes(b"no database" * 500)
    at = opened()
    assert "is damaged" in said(at)
    save(at, "Push")
    assert "is damaged" in said(at)
