"""The declared contract of rows about people, version by version: what a column is called and what a cell may hold.

These pydantic models are the readable reference. `docs/inputs.md` prints them, tests compare them row by row with the
vectorised SQL of `privacy.contract`, which is what reads files; no row of a load passes through Python
(docs/decisions/0101).

Versions are additive: a column may be added in 1.x and none is ever taken away or changes its meaning, so a file of any
1.x can be read by every other 1.x. A new meaning needs version 2, which this code refuses row by row.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

VERSION = "1.2"
VERSIONS = ("1.0", "1.1", "1.2")
VERSION_PATTERN = r"1(\.\d{1,9})?"
SOURCES = ("server", "client")  # rank 0 and 1: the server's word counts first
ISO = r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z| ?[+-]\d{2}(:?\d{2})?)?)?"
CURRENCY = r"[A-Za-z]{3}"
NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,9})?"
NO_AD_ID = r"[0-]*"  # phones send zeros in place of a denied advertising identifier
TRUE, FALSE = ("true", "t", "1", "1.0", "yes", "y"), ("false", "f", "0", "0.0", "no", "n")
MAX_VALUE = Decimal(10) ** 12
END_OF_DAY = r"^(.{10}[T ])24:00(?!:?0*[1-9])"
MAX_EXPONENT = 32_767  # what the engine reads as an exponent


def cell(value: object) -> object:
    """A cell as the loader sees it: trimmed; empty, 'nan' and 'null' are absent."""
    if value is None:
        return None
    text = str(value).strip(" ")
    return None if text.lower() in ("", "nan", "null") else text


def _instant(value: object, info: ValidationInfo) -> datetime | None:
    text = cell(value)
    if text is None:
        return None
    if not re.fullmatch(ISO, str(text), re.ASCII):
        raise ValueError("ts is not an ISO date or time")
    plain = re.sub(r"(\.\d{6})\d+", r"\1", str(text)).replace(" Z", "Z").replace(" +", "+")
    midnight = re.sub(END_OF_DAY, r"\g<1>00:00", plain)  # ISO 8601 writes the end of a day as 24:00
    when = datetime.fromisoformat(midnight) + timedelta(days=midnight != plain)
    context = info.context or {}
    when = when if when.tzinfo else when.replace(tzinfo=ZoneInfo(context.get("time_zone", "UTC")))
    if when < datetime(1970, 1, 1, tzinfo=UTC):
        raise ValueError("ts lies before 1970")
    if "now" in context and when > context["now"]:
        raise ValueError("ts lies in the future")
    return when


def _flag(value: object) -> bool | None:
    text = cell(value)
    if text is None:
        return None
    word = str(text).lower()
    if word not in TRUE + FALSE:
        raise ValueError("is neither true nor false")
    return word in TRUE


def _number(text: str) -> Decimal | None:
    """The number in a cell, at most six decimals; None unless it is under 10^12, with and without its exponent."""
    found = re.fullmatch(NUMBER, text, re.ASCII)
    if not found or abs(int((found[2] or "e0")[1:])) > MAX_EXPONENT:
        return None
    number = Decimal(text)
    return (
        None
        if max(abs(number), abs(Decimal(found[1]))) >= MAX_VALUE
        else number.quantize(Decimal("1e-6"), ROUND_HALF_UP)
    )


def _lower(value: object) -> object:
    text = cell(value)
    return text.lower() if isinstance(text, str) else text


Text = Annotated[str, BeforeValidator(cell)]
OptionalText = Annotated[str | None, BeforeValidator(cell)]
Flag = Annotated[bool | None, BeforeValidator(_flag)]


def _column(about: str, required: bool = False, since: str = "1.0", **more: Any) -> Any:
    """A field with its documentation. `required` speaks of the column; a field without default needs every cell."""
    return Field(description=about, json_schema_extra={"column": required, "since": since}, **more)


class EventRow(BaseModel):
    """One event of one person."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    event_id: Text = _column("names the event within the person; copies of one event share it", required=True)
    user_id: Text = _column("the person, or a device that the identity map gives to one", required=True)
    ts: Annotated[datetime, BeforeValidator(_instant)] = _column(
        "ISO date or time, from 1970 to now; without a zone it is in the project's", required=True
    )
    event: Annotated[Literal["impression", "click", "visit", "conversion"], BeforeValidator(_lower)] = _column(
        "impression, click, visit or conversion", required=True
    )
    geo: OptionalText = _column("a declared geo; anything else is 'other'", required=True, default=None)
    channel: OptionalText = _column("a declared channel; empty or undeclared is organic", default=None)
    value: OptionalText = _column("revenue of a conversion: a number from 0 to under 10^12; not read on other rows",
                                  default=None)  # fmt: skip
    currency: OptionalText = _column(
        "three-letter code; a conversion with a value other than 0 needs one", default=None
    )
    consent: Flag = _column("true or false: may this person be counted?", default=None)
    valid: Flag = _column("false marks a bot or fraud; such rows are left out", default=None)
    campaign: OptionalText = _column("accepted, not read yet", default=None)
    schema_version: OptionalText = _column("1 or 1.x", default=None)
    source: Annotated[Literal["server", "client"] | None, BeforeValidator(_lower)] = _column(
        "server or client: which side told of the event; the server's copy wins, silence is 'client'",
        since="1.1",
        default=None,
    )
    ad_id: OptionalText = _column(
        "advertising identifier (IDFA, GAID, cookie, click id); never kept, refused where consent is false; zeros are "
        "absent",
        since="1.1",
        default=None,
    )

    @model_validator(mode="after")
    def _meaning(self) -> EventRow:
        if self.schema_version is not None and not re.fullmatch(VERSION_PATTERN, self.schema_version, re.ASCII):
            raise ValueError("schema_version is not 1 or 1.x")
        if self.consent is False and self.ad_id is not None and not re.fullmatch(NO_AD_ID, self.ad_id):
            raise ValueError("an advertising identifier stands on a row whose consent is denied")
        if self.event == "conversion" and self.value is not None:
            self._money(_number(self.value))
        return self

    def _money(self, amount: Decimal | None) -> None:
        if amount is None or abs(amount) >= MAX_VALUE:
            raise ValueError("value is not a number under 10^12")
        if amount < 0:
            raise ValueError("value is negative; refunds are not part of revenue")
        if amount > 0 and self.currency is None:
            raise ValueError("value without a currency")
        if amount > 0 and not re.fullmatch(CURRENCY, self.currency or ""):
            raise ValueError("currency is not a code")


class AssignmentRow(BaseModel):
    """One person's arm in one user-randomised test."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    user_id: Text = _column("the person", required=True)
    experiment: Text = _column("a declared user test", required=True)
    arm: Text = _column("one of its declared arms; one arm per person", required=True)
    consent: Flag = _column("may this person be counted, when the events say nothing?", default=None)
    stratum: OptionalText = _column(
        "one of the strata that the test declares (docs/trials.md)", since="1.2", default=None
    )
    entered: OptionalText = _column("ISO date from which on the person counts, where the test declares `entry`",
                                    since="1.2", default=None)  # fmt: skip
    exposed: OptionalText = _column(
        'true or false (or empty): was, or would the person have been, reached? Where the test declares `exposed = '
        '"assignments"`', since="1.2", default=None,
    )  # fmt: skip
    covariate: OptionalText = _column(
        "a number of 0 or more from before the test, empty for 0, where the test declares `covariate`",
        since="1.2", default=None,
    )  # fmt: skip


class IdentityRow(BaseModel):
    """One device of one person. A faulty row refuses the whole map: it decides who is who."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    device_id: Text = _column("an id that the events use", required=True)
    person_id: Text = _column("the one person whose device it is; no chains", required=True)


def columns(model: type[BaseModel], *, required: bool) -> tuple[str, ...]:
    """Columns that a file must have, or may have."""
    return tuple(n for n, f in model.model_fields.items() if _about(f)["column"] is required)


def _about(field: Any) -> dict[str, Any]:
    extra = field.json_schema_extra
    return extra if isinstance(extra, dict) else {}


def markdown(model: type[BaseModel]) -> str:
    """The table of a contract, as docs/inputs.md prints it."""
    lines = ["| column | required | since | what it holds |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        about = _about(field)
        lines.append(f"| {name} | {'yes' if about['column'] else ''} | {about['since']} | {field.description} |")
    return "\n".join(lines) + "\n"
