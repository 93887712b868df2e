"""Who may do what: roles, the permissions that they carry, and how a sign-in's claims become a role.

| role | read | comment | plan | approve |
|---|---|---|---|---|
| viewer | x | | | |
| analyst | x | x | | |
| planner | x | x | x | |
| admin | x | x | x | x |

`plan` saves, renames and archives scenarios; `approve` decides on them. A token of REST carries permissions as scopes.
Without `[access]` in plumb.toml the explorer serves this machine only and everybody on it is an admin.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from contracts.errors import ConfigError

ENV = "PLUMB_ACCESS"
PERMISSIONS = ("read", "comment", "plan", "approve")
ROLES: Mapping[str, tuple[str, ...]] = {
    "viewer": ("read",),
    "analyst": ("read", "comment"),
    "planner": ("read", "comment", "plan"),
    "admin": PERMISSIONS,
}
EVERYBODY = "*"


@dataclass(frozen=True, slots=True)
class Access:
    """Whether people must sign in, and which values of which claim make which role."""

    sign_in: bool = False
    claim: str = "email"
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # role -> values of the claim

    def __post_init__(self) -> None:
        for role in self.roles:
            if role not in ROLES:
                raise ConfigError(f"[access] names the role {role!r}; the roles are {', '.join(ROLES)}.")


@dataclass(frozen=True, slots=True)
class Person:
    """Whoever is at the screen: a name to write beside what they save, and what they may do."""

    name: str
    role: str
    proven: bool  # True after a sign-in; False where the name is only declared

    def may(self, permission: str) -> bool:
        """Whether the role carries the permission."""
        return permission in ROLES[self.role]


def from_environment(environment: Mapping[str, str] = os.environ) -> Access:
    """What `plumb serve` passed on. No variable means: this machine only, no sign-in."""
    text = environment.get(ENV, "")
    if not text:
        return Access()
    found = json.loads(text)
    return Access(True, found["claim"], {role: tuple(values) for role, values in found["roles"].items()})


def role_of(access: Access, claims: Mapping[str, Any]) -> str | None:
    """The strongest role that the claims give; None where they give none.

    A claim may be one value or a list. An e-mail address counts only where the provider says that it is verified.
    """
    if access.claim == "email" and claims.get("email_verified") is False:
        return None
    value = claims.get(access.claim)
    held = {str(v) for v in (value if isinstance(value, (list, tuple)) else [value]) if v is not None}
    given = [r for r, values in access.roles.items() if EVERYBODY in values or held & set(values)]
    return max(given, key=list(ROLES).index, default=None)


def person_of(access: Access, claims: Mapping[str, Any] | None, account: str) -> Person | None:
    """The person at the screen; None when they must sign in first, or have no role.

    `claims` are those of a finished sign-in, `account` the name of the account that runs the explorer.
    """
    if not access.sign_in:
        return Person(account, "admin", proven=False)
    role = None if claims is None else role_of(access, claims)
    if claims is None or role is None:
        return None
    return Person(str(claims.get("email") or claims.get("name") or claims.get("sub") or "?"), role, proven=True)
