"""A charge is taken back only where the chain shows that nothing was drawn, and then the same question can be asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from privacy_worlds import NOW

from contracts.errors import InputError, PrivacyError, WorkspaceError
from privacy import publish as module
from privacy.disk import only_one
from privacy.plan import plan_releases
from privacy.room import read_charges, read_spending, verify_ledger, void_release

WHY = "the machine ran out of memory before the noise was drawn"


class Killed(BaseException):
    """Stands for a crash."""


@pytest.fixture
def here(world, make_question, no_trial):  # type: ignore[no-untyped-def]
    """One quarter without a trial: kpi, journeys and diagnostics."""
    whole = make_question(**no_trial)
    return world(question=replace(whole, blocks=whole.blocks[:1]))


@pytest.fixture
def inputs(here, make_event):  # type: ignore[no-untyped-def]
    rows = [make_event(f"p{i % 20}", i, f"2024-02-{1 + i % 28:02}", ("visit", "conversion")[i % 2],
                       channel="search", value="20", currency="USD") for i in range(60)]  # fmt: skip
    return here.inputs(here.write(rows))


def void(here, name: str, proof: str = WHY) -> Any:  # type: ignore[no-untyped-def]
    return void_release(
        name, proof, ledger=here.ledger, releases_dir=here.root / "releases", raw_dir=here.root / "raw",
        actor="ann", now=NOW,
    )  # fmt: skip


def crash(here, inputs, monkeypatch: pytest.MonkeyPatch, where: str) -> str:  # type: ignore[no-untyped-def]
    """Publishes until a crash at one place of the protocol; returns the id of the release that it hit."""

    def die(*_: Any, **__: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(module, where, die)
        with pytest.raises(Killed):
            here.publish(inputs)
    spending = read_spending(here.ledger, NOW)
    assert spending is not None
    return next(r.release_id for r in spending.releases if r.state != "published")


def test_a_charge_without_a_draw_is_given_back_and_can_be_charged_again(here, inputs, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """The case it is for: cut off while summing, and the question has to change; afterwards the old one works, too."""
    name = crash(here, inputs, monkeypatch, "_draw")
    spent = read_charges(here.ledger)["rho"].sum()
    done = void(here, name)
    assert done.release_id == name and done.charges == (("quarter-2024-01-01", 100_000_000),)
    assert read_charges(here.ledger)["rho"].sum() == pytest.approx(spent - 0.1)
    verify_ledger(here.ledger)
    record = read_spending(here.ledger, NOW)
    assert record is not None
    proof = next(r.voided for r in record.releases if r.state == "void")
    assert proof is not None
    assert (proof["reason"], proof["by"], proof["draws"], proof["staging"]) == (WHY, "ann", 0, "empty")
    with pytest.raises(PrivacyError, match="is charged nowhere; there is nothing to void"):
        void(here, name)
    paths = here.publish(inputs)
    assert name in {p.stem for p in paths} and len(paths) == len(plan_releases(here.question, here.policy))
    assert read_charges(here.ledger)["rho"].sum() == pytest.approx(0.1 + 0.05 + 0.01)
    verify_ledger(here.ledger)


@pytest.mark.parametrize("where", ["add_noise", "_stage", "_commit", "_rename"])
def test_whatever_may_have_been_drawn_keeps_its_charge(here, inputs, monkeypatch, where: str) -> None:  # type: ignore[no-untyped-def]
    name = crash(here, inputs, monkeypatch, where)
    for path in (here.root / "raw" / "staging").iterdir():
        path.unlink()  # a missing file proves nothing
    with pytest.raises(PrivacyError, match="records that its noise was about to be drawn, and nobody can prove"):
        void(here, name)
    assert name in set(read_charges(here.ledger)["release_id"])


def test_what_is_published_cannot_be_unspent(here, inputs) -> None:  # type: ignore[no-untyped-def]
    path = here.publish(inputs)[0]
    path.unlink()
    with pytest.raises(PrivacyError, match="is published: what people have seen cannot be unspent"):
        void(here, path.stem)


def stray_release(here, name: str) -> Path:  # type: ignore[no-untyped-def]
    return here.root / "releases" / f"{name}.parquet"  # type: ignore[no-any-return]


def staged(here, name: str) -> Path:  # type: ignore[no-untyped-def]
    return here.root / "raw" / "staging" / f"{name}.sealed"  # type: ignore[no-any-return]


def half_written(here, name: str) -> Path:  # type: ignore[no-untyped-def]
    return here.root / "raw" / "staging" / f"{name}.part"  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("place", "said"),
    [(stray_release, "holds it, though the ledger says not"), (staged, "holds a file of it"),
     (half_written, "is not empty")],
)  # fmt: skip
def test_files_that_contradict_the_ledger_are_met(here, inputs, monkeypatch, place: Callable[..., Path], said) -> None:  # type: ignore[no-untyped-def]
    name = crash(here, inputs, monkeypatch, "_draw")
    place(here, name).write_bytes(b"\0\0something\0")
    with pytest.raises(PrivacyError, match=said):
        void(here, name)
    assert name in set(read_charges(here.ledger)["release_id"])


def test_a_proof_says_something(here, inputs, monkeypatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    name = crash(here, inputs, monkeypatch, "_draw")
    with pytest.raises(InputError, match="is too short; say in a sentence why nothing was drawn"):
        void(here, name, "oops")
    with pytest.raises(InputError, match="looks like a file, and there is none"):
        void(here, name, "protocol.pdf")
    note = tmp_path / "incident.txt"
    note.write_text("out of memory, killed by the kernel; see the system log")
    done = void(here, name, str(note))
    assert done.proof["file"] == "incident.txt" and len(done.proof["sha256"]) == 64


def test_nothing_is_voided_beside_a_publisher_or_without_the_raw_zone(here, inputs, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(PrivacyError, match="nothing was released from this workspace yet"):
        void(here, "kpi")
    name = crash(here, inputs, monkeypatch, "_draw")
    with (
        only_one(here.root / "raw" / module.LOCK),
        pytest.raises(WorkspaceError, match="another process is publishing releases of this workspace"),
    ):
        void(here, name)
    (here.root / "raw").rename(here.root / "elsewhere")
    with pytest.raises(WorkspaceError, match="is missing, so nothing shows that no draw was staged there"):
        void(here, name)
