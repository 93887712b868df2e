"""From files to `People`: contract, quarantine, deduplication, consent gate. Raw ids end here.

The database lives in memory and may not spill: nothing about a person is written to disk, except the quarantine file
and the log of the raw zone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from contracts.errors import ContractError, InputError, PrivacyError, WorkspaceError
from privacy import contract, identity
from privacy.copies import merge_copies
from privacy.identifiers import refuse_identifiers
from privacy.identity import IdKey
from privacy.inputs import FileSet, PeopleInputs, Question
from privacy.people import People
from privacy.quarantine import Rejects, finish
from privacy.rawzone import DEFAULT_DAYS, RawZone
from privacy.sources import (
    Source,
    check_mapping,
    column_sql,
    engine,
    expand,
    open_source,
    quote,
    raw_json,
    unreadable,
)

MIN_SECRET = 16  # bytes


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """What a load needs besides the declared inputs."""

    now: datetime
    raw_dir: Path
    secret: bytes
    retention_days: int = DEFAULT_DAYS
    forgotten: frozenset[str] = frozenset()  # keyed hashes of ids whose rows are not to be read (privacy.forget)

    def __post_init__(self) -> None:
        if self.now.tzinfo is None:
            raise ContractError(f"the time of a load must know its zone; got {self.now}.")
        if len(self.secret) < MIN_SECRET:
            raise PrivacyError(f"the workspace secret must hold at least {MIN_SECRET} bytes; got {len(self.secret)}.")

    def zone(self) -> RawZone:
        """The raw zone. Raises WorkspaceError when others may open it."""
        return RawZone.of(self.raw_dir, self.secret)


@contextmanager
def load_people(inputs: PeopleInputs, question: Question, settings: LoadSettings) -> Iterator[People]:
    """Loads, validates and gates all rows about people. Raises InputError for a faulty file or too many rejects."""
    zone = settings.zone()
    zone.sweep(settings.now, settings.retention_days)
    con = engine()
    try:
        _public_tables(con, inputs, question)
        identity.create_tables(con, IdKey.of(settings.secret), settings.forgotten)
        version = identity.load_map(con, inputs.identity, inputs.not_identifiers)
        _load_events(con, inputs, settings, zone)
        _load_assignments(con, inputs, question, settings, zone)
        _gate(con, inputs)
        yield People(con, inputs.conversion_is_touch, version)
    except duckdb.OutOfMemoryException as error:
        raise WorkspaceError(
            "the events do not fit into this machine's memory; split the calendar or use a larger machine."
        ) from error
    finally:
        con.close()


def _public_tables(con: duckdb.DuckDBPyConnection, inputs: PeopleInputs, question: Question) -> None:
    con.execute("CREATE TABLE geos (name VARCHAR, geo SMALLINT)")
    con.execute("CREATE TABLE channels (name VARCHAR, channel SMALLINT)")
    con.execute("CREATE TABLE rates (code VARCHAR, rate HUGEINT)")
    con.execute("CREATE TABLE days (day INTEGER, block BIGINT, week BIGINT)")
    con.execute("CREATE TABLE arms (name VARCHAR, arm_name VARCHAR, experiment SMALLINT, arm SMALLINT)")
    epoch = datetime(1970, 1, 1).date()
    days = [
        ((week - epoch).days + d, b, w)
        for b, block in enumerate(question.blocks)
        for w, week in enumerate(block.weeks)
        for d in range(7)
    ]
    arms = [(e.name, a, i, j) for i, e in enumerate(question.experiments) for j, a in enumerate(question.arms[e.name])]
    for table, rows in (
        ("geos", [(g, i) for i, g in enumerate(question.cohorts)]),
        ("channels", [(c, i) for i, c in enumerate(question.channels)]),
        ("rates", contract.rate_rows(inputs)),
        ("days", days),
        ("arms", arms),
    ):
        if rows:
            con.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)


def _columns(
    name: str, source: Source, files: FileSet, required: tuple[str, ...], optional: tuple[str, ...]
) -> dict[str, str | None]:
    return {c: column_sql(name, source, files, c, c in required) for c in required + optional}


def _load_events(con: duckdb.DuckDBPyConnection, inputs: PeopleInputs, settings: LoadSettings, zone: RawZone) -> None:
    known = contract.EVENT_COLUMNS + contract.EVENT_OPTIONAL
    check_mapping("events", inputs.events, known + contract.EVENT_CARRIED)
    con.execute(
        "CREATE TABLE parsed (file INTEGER, row BIGINT, user_key VARCHAR, event_key UUID, instant BIGINT, day INTEGER, "
        "kind TINYINT, channel SMALLINT, geo SMALLINT, micros BIGINT, agrees BOOLEAN, counts BOOLEAN, source TINYINT, "
        "reason VARCHAR, raw VARCHAR)"
    )
    paths = expand("events", inputs.events)
    rejects = Rejects("events", paths)
    for number, path in enumerate(paths):
        source = open_source(con, "events", path)
        refuse_identifiers(con, "events", source, inputs.events, inputs.not_identifiers)
        columns = _columns("events", source, inputs.events, contract.EVENT_COLUMNS, contract.EVENT_OPTIONAL)
        if not inputs.consent_assumed and columns["consent"] is None:
            raise InputError(
                f"events: {path} has no column 'consent'; map it under inputs.events.columns, or state that everybody "
                'has consented with inputs.events.consent = "assumed".'
            )
        try:
            identity.learn(con, source.relation, str(columns["user_id"]))
            con.execute(_event_sql(number, source, columns, inputs, settings.now))
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as error:
            raise unreadable("events", path, source.kind, error) from error
        rejects = rejects.with_unreadable(con, number, source)
    _refuse_unknown_currency(con, paths, inputs)
    _note_refusals(con, settings.now)
    merge_copies(con)
    finish(con, rejects, inputs.max_rejected, zone, settings.now)


def _micros(now: datetime) -> int:
    return int((now - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000)


def _event_sql(number: int, source: Source, columns: dict[str, str | None], inputs: PeopleInputs, now: datetime) -> str:
    mapping = inputs.events.columns.get("ts", "ts")
    native = source.native.get(mapping) if isinstance(mapping, str) else None
    native = None if native is None else ("native_ts", native[1])
    extra = f", {source.native[str(mapping)][0]} AS native_ts" if native else ""
    raw = raw_json({k: k for k, v in columns.items() if v is not None})
    return f"""
    INSERT INTO parsed
    WITH text AS (
        SELECT row_number() OVER () AS row, {source.broken} AS broken, {contract.text_of(columns)}{extra}
        FROM {source.relation}
    ), read AS (
        SELECT text.*, ids.user_key,
            {contract.instant(inputs.time_zone, native)} AS instant, {contract.kind_case()} AS kind,
            {contract.amount()} AS amount, {contract.boolean("consent")} AS agrees,
            {contract.boolean("valid")} AS counts, {contract.source_case()} AS source_rank, rates.rate,
            geos.geo AS geo_number, channels.channel AS channel_number
        FROM text LEFT JOIN rates ON rates.code = upper(text.currency) LEFT JOIN geos ON geos.name = text.geo
            LEFT JOIN channels ON channels.name = text.channel LEFT JOIN ids ON ids.user_id = text.user_id
        WHERE text.user_id IS NULL OR ids.user_key IS NOT NULL
    ), judged AS (
        SELECT *, {contract.event_reason(_micros(now))} AS reason FROM read
    )
    SELECT {number}, row, user_key, CAST(left(sha256(user_key || event_id), 32) AS UUID), instant,
        CASE WHEN reason IS NULL THEN {contract.local_day(inputs.time_zone)} END, kind, channel_number, geo_number,
        CASE WHEN reason IS NULL THEN {contract.micros()} END, agrees, coalesce(counts, true), source_rank, reason,
        CASE WHEN reason IS NOT NULL THEN {raw} END
    FROM judged"""


def _refuse_unknown_currency(con: duckdb.DuckDBPyConnection, paths: tuple[Path, ...], inputs: PeopleInputs) -> None:
    found = con.execute(
        "SELECT file, row, json_extract_string(raw, '$.currency') FROM parsed WHERE reason = ? "
        "ORDER BY file, row LIMIT 1",
        [contract.NO_RATE],
    ).fetchone()
    if found:
        code = str(found[2]).upper()
        raise InputError(
            f"events: {paths[found[0]]} row {found[1]} is in {code}, and the project is in {inputs.currency}; "
            f"add its rate to [rates] in plumb.toml, such as {code} = 1.08 ({inputs.currency} per {code})."
        )


def _note_refusals(con: duckdb.DuckDBPyConnection, now: datetime) -> None:
    """When each person last refused, on any row that names the person: a malformed row must not hide a refusal.

    A refusal without a usable time, or from the future, is one of now. Copies are not merged yet: each of them counts.
    """
    con.execute(
        f"""CREATE TABLE refused AS
        SELECT user_key, max(coalesce(least(instant, {_micros(now)}), {_micros(now)})) AS at
        FROM parsed WHERE NOT agrees AND user_key IS NOT NULL GROUP BY user_key"""
    )


def _load_assignments(
    con: duckdb.DuckDBPyConnection, inputs: PeopleInputs, question: Question, settings: LoadSettings, zone: RawZone
) -> None:
    con.execute(
        "CREATE TABLE grouped (file INTEGER, row BIGINT, user_key VARCHAR, experiment SMALLINT, arm SMALLINT, "
        "agrees BOOLEAN, reason VARCHAR, raw VARCHAR)"
    )
    if inputs.assignments is None:
        if question.experiments:
            raise InputError(
                f"experiment {question.experiments[0].name!r} is user-randomised and needs an assignments file; "
                "set inputs.assignments.path in plumb.toml."
            )
        return
    files = inputs.assignments
    known = contract.ASSIGNMENT_COLUMNS + contract.ASSIGNMENT_OPTIONAL
    check_mapping("assignments", files, known)
    paths = expand("assignments", files)
    rejects = Rejects("assignments", paths)
    for number, path in enumerate(paths):
        source = open_source(con, "assignments", path)
        refuse_identifiers(con, "assignments", source, files, inputs.not_identifiers)
        columns = _columns("assignments", source, files, contract.ASSIGNMENT_COLUMNS, contract.ASSIGNMENT_OPTIONAL)
        try:
            identity.learn(con, source.relation, str(columns["user_id"]))
            con.execute(_assignment_sql(number, source, columns))
        except duckdb.Error as error:
            raise unreadable("assignments", path, source.kind, error) from error
        rejects = rejects.with_unreadable(con, number, source)
    con.execute(
        """UPDATE grouped SET reason = 'the person is in two arms of this experiment' WHERE reason IS NULL AND
        (user_key, experiment) IN (SELECT (user_key, experiment) FROM grouped WHERE reason IS NULL
            GROUP BY user_key, experiment HAVING count(DISTINCT arm) > 1)"""
    )
    finish(con, rejects, inputs.max_rejected, zone, settings.now, table="grouped")


def _assignment_sql(number: int, source: Source, columns: dict[str, str | None]) -> str:
    raw = raw_json({k: k for k, v in columns.items() if v is not None})
    rules = (
        ("broken", "the row cannot be read"),
        ("user_id IS NULL", "user_id is empty"),
        ("experiment IS NULL", "experiment is empty"),
        ("arm IS NULL", "arm is empty"),
        ("experiment NOT IN (SELECT name FROM arms)", "experiment is not a declared user test"),
        ("arm_number IS NULL", "arm is not declared for this experiment"),
        ("consent IS NOT NULL AND agrees IS NULL", "consent is neither true nor false"),
    )
    reason = "CASE " + " ".join(f"WHEN {test} THEN {quote(text)}" for test, text in rules) + " END"
    return f"""
    INSERT INTO grouped
    WITH text AS (
        SELECT row_number() OVER () AS row, {source.broken} AS broken, {contract.text_of(columns)}
        FROM {source.relation}
    ), read AS (
        SELECT text.*, arms.experiment AS number, arms.arm AS arm_number, {contract.boolean("consent")} AS agrees,
            ids.user_key
        FROM text LEFT JOIN arms ON arms.name = text.experiment AND arms.arm_name = text.arm
            LEFT JOIN ids ON ids.user_id = text.user_id
        WHERE text.user_id IS NULL OR ids.user_key IS NOT NULL
    ), judged AS (SELECT *, {reason} AS reason FROM read)
    SELECT {number}, row, user_key, number, arm_number, agrees, reason,
        CASE WHEN reason IS NOT NULL THEN {raw} END
    FROM judged"""


def _gate(con: duckdb.DuckDBPyConnection, inputs: PeopleInputs) -> None:
    """Consent first: what leaves here is rows of consenting people, and who was there at all.

    A person's consent is their latest statement (a refusal wins a tie, and counts on a malformed row, too); without one
    it is what the workspace assumes.
    """
    assumed = str(inputs.consent_assumed).lower()
    con.execute(
        """CREATE TABLE stated AS
        WITH granted AS (
            SELECT user_key, max(instant) AS at FROM parsed WHERE reason IS NULL AND agrees GROUP BY user_key
        )
        SELECT user_key, refused.at IS NULL OR coalesce(granted.at > refused.at, false) AS agrees
        FROM granted FULL JOIN refused USING (user_key)"""
    )
    con.execute(
        f"""CREATE TABLE consent AS
        WITH known AS (
            SELECT user_key, NULL::BOOLEAN AS agrees FROM parsed WHERE reason IS NULL
            UNION ALL SELECT user_key, agrees FROM grouped WHERE reason IS NULL OR (NOT agrees AND user_key IS NOT NULL)
        ), once AS (SELECT user_key, bool_and(agrees) AS agrees FROM known GROUP BY user_key)
        SELECT row_number() OVER () AS person, user_key, coalesce(stated.agrees, once.agrees, {assumed}) AS agrees
        FROM once LEFT JOIN stated USING (user_key)"""
    )
    con.execute("CREATE TABLE keys AS SELECT person, user_key FROM consent WHERE agrees")
    con.execute(
        """CREATE TABLE presence AS
        SELECT person, days.block, any_value(agrees::INTEGER)::BIGINT AS consenting,
            max((NOT counts)::INTEGER)::BIGINT AS invalid
        FROM (SELECT user_key, day, counts FROM parsed WHERE reason IS NULL) JOIN days USING (day)
            JOIN consent USING (user_key) GROUP BY person, days.block"""
    )
    con.execute(
        """CREATE TABLE events AS
        SELECT person, days.block, days.week, day::BIGINT AS day, kind::BIGINT AS kind,
            coalesce(channel, -1)::BIGINT AS channel, coalesce(geo, (SELECT max(geo) FROM geos))::BIGINT AS geo,
            coalesce(micros, 0) AS micros, row_number() OVER (PARTITION BY person ORDER BY instant, event_key) AS seq
        FROM parsed JOIN days USING (day) JOIN keys USING (user_key) WHERE reason IS NULL AND counts"""
    )
    con.execute(
        """CREATE TABLE assigned AS SELECT DISTINCT person, experiment::BIGINT AS experiment, arm::BIGINT AS arm
        FROM grouped JOIN keys USING (user_key) WHERE reason IS NULL"""
    )
    for table in ("parsed", "grouped", "refused", "stated", "consent", "ids", "devices", "forgotten", "id_key"):
        con.execute(f"DROP TABLE {table}")
