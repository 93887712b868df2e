"""T8: six writers share one ledger, three are killed with SIGKILL at random moments; and the mutants of T9."""

from __future__ import annotations

from pathlib import Path

import pytest
from privacy_crowd import COST, GRANT, MUTANTS, check_crowd, run_crowd

from contracts.errors import LedgerError


def test_killed_writers_leave_a_ledger_that_adds_up(tmp_path: Path) -> None:
    """More names than the grant holds, all wanted by all: it ends spent to the last unit, each name charged once."""
    found = check_crowd(run_crowd(tmp_path, writers=6, killed=3))
    assert found["spent"] == GRANT.parts["kpi"] == found["charges"] * COST


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_check_sees_a_faulty_ledger(tmp_path: Path, mutant: str) -> None:
    with pytest.raises((AssertionError, LedgerError)):
        check_crowd(run_crowd(tmp_path, writers=3, killed=1, mutant=mutant))
