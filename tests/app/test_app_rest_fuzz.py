"""REST against requests made from its own OpenAPI document: never a fault of ours, always the declared form."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import status_code_conformance
from starlette.applications import Starlette
from starlette.routing import Mount

from app.access import PERMISSIONS, Access
from app.rest.service import PREFIX, Place, create_api
from app.saved import database, remarks
from app.saved.files import STATE_NAME

CHECKS = [not_a_server_error, status_code_conformance]


@pytest.fixture
def fuzz(warehouse: Callable[[str], Path], tmp_path: Path) -> Callable[[int], int]:
    """Sends up to `examples` requests to every operation with a token that may do everything; how many were sent."""
    path = tmp_path / "warehouse.duckdb"
    shutil.copyfile(warehouse("full"), path)
    (tmp_path / ".plumb").mkdir()
    with database.writing(tmp_path / STATE_NAME) as con:
        secret = remarks.create_token(con, "fuzz", PERMISSIONS)[1]
    api = create_api(Place(path, Access(True, "groups", {"admin": ("x",)})), per_minute=10**9)
    schema = schemathesis.openapi.from_asgi(f"{PREFIX}/openapi.json", Starlette(routes=[Mount(PREFIX, app=api)]))

    def run(examples: int) -> int:
        sent = [0]
        for found in schema.get_all_operations():
            operation = found.ok()

            @settings(
                max_examples=examples, deadline=None, database=None, derandomize=examples < 10,
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(case=operation.as_strategy())
            def attack(case: schemathesis.Case) -> None:
                case.headers["Authorization"] = f"Bearer {secret}"
                sent[0] += 1
                case.call_and_validate(checks=CHECKS)

            attack()
        return sent[0]

    return run


def test_no_request_breaks_it(fuzz: Callable[[int], int]) -> None:
    assert fuzz(3) >= 25


@pytest.mark.slow
def test_many_requests_do_not_break_it(fuzz: Callable[[int], int]) -> None:
    assert fuzz(40) > 800
