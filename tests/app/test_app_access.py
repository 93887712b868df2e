"""Roles: which claims make which role, and what a role may do."""

from __future__ import annotations

import pytest

from app.access import ENV, PERMISSIONS, ROLES, Access, from_environment, person_of, role_of
from contracts.errors import ConfigError

SHOP = Access(True, "groups", {"viewer": ("*",), "planner": ("marketing",), "admin": ("board",)})


def test_roles_only_grow() -> None:
    held = [set(ROLES[r]) for r in ("viewer", "analyst", "planner", "admin")]
    assert all(a < b for a, b in zip(held, held[1:], strict=False)) and held[-1] == set(PERMISSIONS)


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({"groups": ["marketing", "board"]}, "admin"),
        ({"groups": "marketing"}, "planner"),
        ({"groups": ["nobody"]}, "viewer"),
        ({}, "viewer"),
    ],
)
def test_the_strongest_role_that_a_claim_gives(claims: dict[str, object], role: str) -> None:
    assert role_of(SHOP, claims) == role


def test_without_everybody_a_stranger_has_no_role() -> None:
    access = Access(True, "email", {"admin": ("a@b.example",)})
    assert role_of(access, {"email": "c@d.example"}) is None
    assert person_of(access, {"email": "c@d.example"}, "root") is None
    assert person_of(access, None, "root") is None


def test_an_address_that_nobody_verified_gives_no_role() -> None:
    access = Access(True, "email", {"admin": ("a@b.example",)})
    assert role_of(access, {"email": "a@b.example", "email_verified": False}) is None
    assert role_of(access, {"email": "a@b.example", "email_verified": True}) == "admin"


def test_on_this_machine_everybody_is_an_admin_under_a_declared_name() -> None:
    person = person_of(Access(), None, "ann")
    assert person is not None and person.may("approve") and not person.proven and person.name == "ann"


def test_a_person_who_signed_in_is_named_by_the_provider() -> None:
    person = person_of(SHOP, {"groups": ["marketing"], "email": "eve@shop.example"}, "root")
    assert person is not None and (person.name, person.role, person.proven) == ("eve@shop.example", "planner", True)
    assert person.may("plan") and not person.may("approve")


def test_the_environment_carries_what_serve_decided() -> None:
    text = '{"claim": "groups", "roles": {"admin": ["board"], "viewer": []}}'
    assert from_environment({ENV: text}).roles == {"admin": ("board",), "viewer": ()}
    assert from_environment({}) == Access()
    with pytest.raises(ConfigError, match="names the role 'king'; the roles are viewer"):
        Access(True, "groups", {"king": ("x",)})
