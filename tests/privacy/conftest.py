"""Fixtures of the privacy tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from privacy_worlds import World, event, question

from privacy.room import Question


@pytest.fixture
def world(tmp_path: Path) -> Callable[..., World]:
    """Makes a `World` in a fresh folder; keyword arguments are its fields."""

    def make(**fields: Any) -> World:
        return World(tmp_path, **fields)

    return make


@pytest.fixture
def make_event() -> Callable[..., dict[str, Any]]:
    """`event(person, number, when, kind, **columns)`."""
    return event


@pytest.fixture
def make_question() -> Callable[..., Question]:
    """`question(**changes)`."""
    return question


@pytest.fixture
def no_trial() -> dict[str, Any]:
    """Changes to a question that leave the user test out."""
    return {"experiments": (), "arms": {}}
