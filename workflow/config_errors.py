"""Turns what pydantic found wrong in plumb.toml into one sentence: the key, the value found, the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel

_FIX = {
    "greater_than": "it must be greater than {gt}",
    "greater_than_equal": "it must be {ge} or more",
    "less_than": "it must be less than {lt}",
    "less_than_equal": "it must be {le} or less",
    "literal_error": "use {expected}",
    "string_pattern_mismatch": "write it like {pattern}",
    "string_too_short": "it must not be empty",
    "too_short": "it must not be empty",
    "string_type": "write it as text in quotes",
    "float_type": "write a number without quotes",
    "float_parsing": "write a number without quotes",
    "int_type": "write a whole number without quotes",
    "int_parsing": "write a whole number without quotes",
    "int_from_float": "write a whole number",
    "bool_type": "write true or false",
    "bool_parsing": "write true or false",
    "list_type": 'write a list such as ["a", "b"]',
    "dict_type": "write a table",
    "model_type": "write a table",
    "date_type": "write a date such as 2026-01-31",
    "date_from_datetime_parsing": "write a date such as 2026-01-31",
    "date_from_datetime_inexact": "write a date such as 2026-01-31",
    "finite_number": "write a finite number",
}
_PATTERNS = {
    "^[A-Z]{3}$": "write three capital letters such as USD",
    "^[A-Za-z0-9_-]{4,64}$": "use 4 to 64 letters, digits, - and _",
}


def sentence(where: str, model: type[BaseModel], errors: Sequence[Any]) -> str:
    """One sentence for the most telling of pydantic's errors."""
    error = _most_telling(errors)
    kind, loc = error["type"], tuple(p for p in error["loc"] if not _is_union_tag(p))
    place = _place(where, loc)
    if kind == "extra_forbidden":
        return f"{place} is not a known key; {_suggest(str(loc[-1]), _fields_at(model, loc[:-1]))}"
    if kind == "missing":
        return f"{place} is missing; add it, or let `plumb init` complete the file."
    context = error.get("ctx") or {}
    if kind in ("value_error", "assertion_error"):
        problem = str(context.get("error", error["msg"]))
        if isinstance(error.get("input"), dict | BaseModel):
            return f"{place}: {problem}." if loc else f"{where}: {problem}."
        return f"{place} is {_shown(error['input'])}; {problem}."
    fix = _FIX.get(kind, error["msg"]).format(**context)
    if kind == "string_pattern_mismatch":
        fix = _PATTERNS.get(context["pattern"], fix)
    if "[key]" in error["loc"]:
        return f"{_place(where, loc[:-1])} {_shown(loc[-1])}: {fix}."
    return f"{place} is {_shown(error['input'])}; {fix}."


def _most_telling(errors: Sequence[Any]) -> Any:
    """Unknown keys first: a typo also makes the right key look missing. In a union, the deepest branch tried."""
    extras = [e for e in errors if e["type"] == "extra_forbidden"]
    return extras[0] if extras else max(errors, key=lambda e: (e["loc"] == errors[0]["loc"], -errors.index(e)))


def _is_union_tag(part: object) -> bool:
    """pydantic puts the name of the branch of a union into the location; a person never wrote it."""
    return isinstance(part, str) and (
        part in ("str", "FixedColumn", "HashedColumn", "[key]")
        or part.startswith(("list[", "literal[", "constrained-"))
    )


def _place(where: str, loc: tuple[Any, ...]) -> str:
    if not loc:
        return where
    if len(loc) == 1:
        return f"{where}: [{loc[0]}]"
    keys = [str(p) for p in loc]
    if isinstance(loc[-1], int):
        return f"{where}: [{'.'.join(keys[:-2])}] {keys[-2]}, item {loc[-1] + 1},"
    return f"{where}: [{'.'.join(keys[:-1])}] {keys[-1]}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _suggest(found: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(found, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return f"known here: {', '.join(known)}." if known else "remove it."


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Section classes inside an annotation such as `dict[str, Channel] | None`."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _fields_at(model: type[BaseModel], loc: Sequence[Any]) -> list[str]:
    """Names of the keys that are known in the table at `loc`."""
    here: list[type[BaseModel]] = [model]
    for part in loc:
        stepped = [m.model_fields[part].annotation for m in here if part in m.model_fields]
        if stepped:
            here = [found for annotation in stepped for found in _models_in(annotation)]
    return sorted({name for m in here for name in m.model_fields})
