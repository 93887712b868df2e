"""The event and assignment contracts as SQL over cleaned text: what a row must be, and the reason when it is not.

Money becomes integer micro-units by decimal arithmetic; no float touches it.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from privacy import event
from privacy.bounds import MICROS
from privacy.inputs import PeopleInputs
from privacy.people import CONVERSION, KINDS
from privacy.sources import quote

EVENT_CARRIED = ("campaign",)  # accepted in a mapping, not read yet
EVENT_COLUMNS = event.columns(event.EventRow, required=True)
EVENT_OPTIONAL = tuple(c for c in event.columns(event.EventRow, required=False) if c not in EVENT_CARRIED)
ASSIGNMENT_COLUMNS = event.columns(event.AssignmentRow, required=True)
ASSIGNMENT_OPTIONAL = event.columns(event.AssignmentRow, required=False)
ASSIGNED_BY_DESIGN = ("stratum", "entered", "exposed", "covariate")  # read where a test declares it
NO_RATE = "currency without a rate"
RATE_UNIT = 1_000_000_000
DAY_US = 86_400_000_000
_AWARE = r"[T ].*(Z|[+-]\d{2}(:?\d{2})?)$"


def rate_rows(inputs: PeopleInputs) -> list[tuple[str, int]]:
    """(currency code, nano-rate); the project's own currency has rate 1."""
    rates = {k.upper(): int((Decimal(repr(float(v))) * RATE_UNIT).to_integral_value()) for k, v in inputs.rates.items()}
    return sorted((rates | {inputs.currency.upper(): RATE_UNIT}).items())


def boolean(column: str) -> str:
    """TRUE, FALSE or NULL from text; '1.0' and '0.0' come from integer columns that passed through floats."""
    return f"TRY_CAST(CASE {column} WHEN '1.0' THEN 'true' WHEN '0.0' THEN 'false' ELSE {column} END AS BOOLEAN)"


def instant(zone: str, native: tuple[str, str] | None) -> str:
    """Microseconds since 1970 UTC; naive times are read in the project's zone. NULL when unparsable."""
    place = quote(zone)
    if native is not None:
        expression, kind = native
        # nanosecond types have few functions; microseconds are what is kept anyway
        aware = "TIME ZONE" in kind or "TZ" in kind
        micro = f"{expression}::{'TIMESTAMPTZ' if aware else 'TIMESTAMP'}"
        value = f"epoch_us({micro})" if aware or zone == "UTC" else f"epoch_us(timezone({place}, {micro}))"
        return f"CASE WHEN isfinite({micro}) THEN {value} END"
    return (
        f"CASE WHEN NOT regexp_full_match(ts, {quote(event.ISO)}) THEN NULL "
        f"WHEN regexp_matches(ts, {quote(_AWARE)}) THEN epoch_us(TRY_CAST(ts AS TIMESTAMPTZ)) "
        f"ELSE epoch_us(timezone({place}, TRY_CAST(ts AS TIMESTAMP))) END"
    )


def local_day(zone: str) -> str:
    """Days since 1970 of `instant` in the project's zone."""
    if zone == "UTC":
        return f"(instant // {DAY_US})::INTEGER"
    local = f"timezone({quote(zone)}, timezone('UTC', make_timestamp(instant)))"
    return f"date_diff('day', DATE '1970-01-01', {local}::DATE)::INTEGER"


def kind_case() -> str:
    """Position in KINDS, or NULL."""
    return "CASE lower(event) " + " ".join(f"WHEN '{k}' THEN {i}" for i, k in enumerate(KINDS)) + " END::TINYINT"


def source_case() -> str:
    """Rank of the source: 0 for the server, 1 for the client and for silence; NULL for anything else."""
    ranks = " ".join(f"WHEN {quote(s)} THEN {i}" for i, s in enumerate(event.SOURCES))
    return f"CASE lower(coalesce(source, 'client')) {ranks} END::TINYINT"


def amount(column: str = "value") -> str:
    """A number as a decimal, or NULL. The engine would read '1_000' as a number; the contract does not."""
    return f"CASE WHEN NOT contains({column}, '_') THEN TRY_CAST({column} AS DECIMAL(18, 6)) END"


def whole_micros(amount: str) -> str:
    """A decimal that is not negative in micro-units; 0 where there is none."""
    return f"coalesce((greatest({amount}, 0)::DECIMAL(26, 6) * {MICROS}::DECIMAL(8, 0))::BIGINT, 0)"


def plain_day(column: str) -> str:
    """Days since 1970 of an ISO date, or NULL."""
    day = f"TRY_CAST({column} AS DATE)"
    ok = f"regexp_full_match({column}, '\\d{{4}}-\\d{{2}}-\\d{{2}}')"
    return f"CASE WHEN {ok} THEN date_diff('day', DATE '1970-01-01', {day}) END"


def money(plain: str | None = None) -> str:
    """The value of an event in micro-units, or NULL.

    `plain` is SQL of micro-units that are known without the way through text (`double_micros`).
    """
    # a product of DECIMAL(18, 6) stays in 18 digits and overflows from one million on, so it is widened first
    wide = f"(({amount()})::DECIMAL(26, 6) * {MICROS}::DECIMAL(8, 0))::BIGINT"
    return f"CASE WHEN {plain} IS NOT NULL THEN {plain} ELSE {wide} END" if plain else wide


def double_micros(column: str) -> str:
    """Micro-units of a column of doubles where they are what its text says, else NULL; for most money, at a tenth of
    the price.

    Below 10^9 six decimals make at most 15 digits, and a double tells any two numbers of 15 digits apart (IEEE 754). So
    if k / 10^6, which is rounded correctly, is the double itself, its shortest text is that of k / 10^6 and no other.
    """
    micros = f"round({column} * {MICROS}.0::DOUBLE)"
    return f"CASE WHEN abs({column}) < 1e9 AND {micros} / {MICROS}.0::DOUBLE = {column} THEN {micros}::BIGINT END"


def event_reason(now_us: int) -> str:
    """First reason why an event row is malformed, or NULL."""
    money = f"kind = {CONVERSION} AND value IS NOT NULL AND amount <> 0"
    code = f"regexp_full_match(currency, {quote(event.CURRENCY)})"
    rules = (
        ("broken", "the row cannot be read"),
        ("user_id IS NULL", "user_id is empty"),
        ("event_id IS NULL", "event_id is empty"),
        ("event IS NULL", "event is empty"),
        ("kind IS NULL", f"event must be one of {', '.join(KINDS)}"),
        ("ts IS NULL", "ts is empty"),
        ("instant IS NULL", "ts is not an ISO date or time"),
        ("instant < 0", "ts lies before 1970"),
        (f"instant > {now_us}", "ts lies in the future"),
        ("consent IS NOT NULL AND agrees IS NULL", "consent is neither true nor false"),
        ("valid IS NOT NULL AND counts IS NULL", "valid is neither true nor false"),
        ("source_rank IS NULL", f"source is none of {', '.join(event.SOURCES)}"),
        (
            f"schema_version IS NOT NULL AND NOT regexp_full_match(schema_version, {quote(event.VERSION_PATTERN)})",
            "schema_version is not 1 or 1.x",
        ),
        (
            f"agrees = false AND ad_id IS NOT NULL AND NOT regexp_full_match(ad_id, {quote(event.NO_AD_ID)})",
            "an advertising identifier stands on a row whose consent is denied",
        ),
        (f"kind = {CONVERSION} AND value IS NOT NULL AND amount IS NULL", "value is not a number under 10^12"),
        (f"kind = {CONVERSION} AND amount < 0", "value is negative; refunds are not part of revenue"),
        (f"{money} AND currency IS NULL", "value without a currency"),
        (
            f"{money} AND rate IS NULL AND NOT {code}",
            "currency is not a code",
        ),
        (f"{money} AND rate IS NULL", NO_RATE),
    )
    return "CASE " + " ".join(f"WHEN {test} THEN {quote(text)}" for test, text in rules) + " END"


def micros() -> str:
    """Revenue of a conversion in micro-units of the project's currency, rounded half up; 0 on other rows.

    NULL where a conversion names no value, so that another copy of it may.
    """
    scaled = f"(amount::HUGEINT * rate + {RATE_UNIT // 2}) // {RATE_UNIT}"
    return (
        f"CASE WHEN kind <> {CONVERSION} THEN 0 WHEN amount IS NULL THEN NULL "
        f"WHEN amount > 0 AND rate = {RATE_UNIT} THEN amount "
        f"WHEN amount > 0 THEN least({scaled}, {2**60})::BIGINT ELSE 0 END"
    )


def text_of(columns: Mapping[str, str | None]) -> str:
    """SELECT list of our columns as text; absent optional ones are NULL."""
    return ", ".join(f"{sql or 'NULL::VARCHAR'} AS {name}" for name, sql in columns.items())
