"""Refuses files about people with a column that looks like a direct identifier and is not mapped to the person's id.

Looked at are the names of all columns and the values of the first rows. It guards against a mistake, not against
somebody who hides an address: a release never reads a column that is not mapped, and never keeps a text. What is
found is named by column and kind; no value reaches a message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import duckdb

from contracts.errors import InputError
from privacy.inputs import FileSet, HashOf
from privacy.sources import Source, clean, quote, unreadable

ROWS = 2_000  # looked at per file
_OCTET = r"(25[0-5]|2[0-4]\d|1?\d?\d)"
_GROUPS = r"[0-9a-fA-F]{1,4}(:[0-9a-fA-F]{1,4})*"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a direct identifier looks like. `least` is the share of filled cells from which a column is one."""

    called: str
    names: tuple[str, ...]  # of columns, in lower case, words joined by _
    values: str  # regular expression over the whole cell; '' where values tell nothing
    least: float = 0.2


KINDS = (
    Kind(
        "an e-mail address",
        ("email", "e_mail", "mail", "email_address", "mail_address", "user_email", "customer_email", "contact_email"),
        r"(?s).*[A-Za-z0-9._%+\-]@([A-Za-z0-9\-]+\.)+[A-Za-z]{2,}.*",
        0.01,
    ),
    Kind(
        "a phone number",
        ("phone", "telephone", "phone_number", "phone_no", "mobile_number", "mobile_phone", "cell_phone", "msisdn",
         "customer_phone", "user_phone", "contact_phone"),
        r"\+[1-9][0-9 ().\-]{6,20}|\(?[0-9]{3}\)?[ .\-][0-9]{3}[ .\-][0-9]{4}",
    ),
    Kind(
        "an IP address",
        ("ip", "ip_address", "ip_addr", "ipaddress", "client_ip", "user_ip", "remote_ip", "remote_addr",
         "x_forwarded_for", "ipv4", "ipv6"),
        rf"({_OCTET}\.){{3}}{_OCTET}(:\d{{1,5}})?|([0-9a-fA-F]{{1,4}}:){{7}}[0-9a-fA-F]{{1,4}}"
        rf"|({_GROUPS})?::({_GROUPS})?",
    ),
    Kind("a hardware address", ("mac_address", "imei", "imsi"), r"([0-9A-Fa-f]{2}[:\-]){5}[0-9A-Fa-f]{2}"),
    Kind(
        "a person's name",
        ("first_name", "firstname", "last_name", "lastname", "surname", "full_name", "fullname", "given_name",
         "family_name", "maiden_name", "customer_name", "user_name", "username", "person_name", "contact_name"),
        "",
    ),
    Kind("a person's name", (), r"\p{Lu}[\p{Ll}'’\-]+( \p{Lu}\.?)?( \p{Lu}[\p{Ll}'’\-]+)+", 0.5),
    Kind(
        "a civil identifier",
        ("ssn", "social_security_number", "passport", "passport_number", "national_id", "tax_id", "date_of_birth",
         "birth_date", "birthdate", "dob", "street", "street_address", "postal_address", "home_address"),
        "",
    ),
)  # fmt: skip
_NAME_ONLY_IN = ("name",)  # two capitalised words are a person in a column of this name, a campaign elsewhere


def normal(column: str) -> str:
    """'clientIP', 'Client IP' and 'client-ip' are one name."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column.strip())
    return re.sub(r"[^a-z0-9]+", "_", snake.lower()).strip("_")


def mapped(files: FileSet, ours: Iterable[str]) -> frozenset[str]:
    """Columns of the file that stand for one of our id columns."""
    found: set[str] = set()
    for name in ours:
        theirs = files.columns.get(name, name)
        found |= {theirs} if isinstance(theirs, str) else set(theirs.columns) if isinstance(theirs, HashOf) else set()
    return frozenset(found)


def refuse_identifiers(
    con: duckdb.DuckDBPyConnection,
    name: str,
    source: Source,
    files: FileSet,
    declared_safe: frozenset[str],
    ids: tuple[str, ...] = ("user_id",),
) -> None:
    """Raises InputError for the first column that looks like a direct identifier.

    Exempt are columns mapped to `ids`, and those that the workspace declares in `inputs.not_identifiers`.
    """
    exempt = mapped(files, ids) | declared_safe
    looked = {c: sql for c, sql in source.text.items() if c not in exempt}
    if not looked:
        return
    for column, share in _shares(con, name, source, looked).items():
        for kind, part in zip(KINDS, share, strict=True):
            by_name = normal(column) in kind.names
            if by_name or (part is not None and part >= kind.least):
                raise InputError(
                    f"{name}: column {column!r} of {source.path} looks like {kind.called}, by its "
                    f"{'name' if by_name else 'values'}. Take it out of the file, or map it to {ids[-1]} under "
                    f"inputs.{name}.columns; if it identifies nobody, write not_identifiers = [{_toml(column)}] under "
                    "[inputs] in plumb.toml."
                )


def _shares(
    con: duckdb.DuckDBPyConnection, name: str, source: Source, looked: Mapping[str, str]
) -> dict[str, tuple[float | None, ...]]:
    """Per column, the share of filled cells that match each kind; None where nothing can be said."""
    cells = ", ".join(f"{clean(sql)} AS c{i}" for i, sql in enumerate(looked.values()))
    figures = []
    for i, column in enumerate(looked):
        for kind in KINDS:
            skipped = not kind.values or (not kind.names and normal(column) not in _NAME_ONLY_IN)
            figures.append(
                "NULL::DOUBLE" if skipped else f"avg(regexp_full_match(c{i}, {quote(kind.values)})::INTEGER)"
            )
    sample = f"SELECT {cells} FROM {source.relation} LIMIT {ROWS}"
    try:
        row = con.execute(f"SELECT {', '.join(figures)} FROM ({sample})").fetchone()
    except duckdb.Error as error:
        raise unreadable(name, source.path, source.kind, error) from error
    found: tuple[float | None, ...] = tuple(row or ())
    width = len(KINDS)
    return {column: found[i * width : (i + 1) * width] for i, column in enumerate(looked)}


def _toml(column: str) -> str:
    return '"' + column.replace("\\", "\\\\").replace('"', '\\"') + '"'
