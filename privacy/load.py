"""From files to `Crowd`: contract, quarantine, deduplication, consent gate. Raw ids end here.

| step | module | holds at a time |
|---|---|---|
| read and judge each row, send it to the partition of its person | `privacy.scan` | a batch of rows |
| ids to persons, copies merged, consent applied | `privacy.settle` | one partition |
| hand a partition to the measures | `privacy.people` | one partition |

Between the steps rows lie in a `privacy.spool.Spool`: in memory while they are few, else sealed under a key that only
this process knows. The engine lives in memory and may not spill. The number of partitions follows the size of the
input and changes no figure, because totals of integers over persons add exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import duckdb

from contracts.errors import ContractError, InputError, PrivacyError, WorkspaceError
from contracts.trials import ASSIGNED
from privacy import contract, identity, scan
from privacy.identifiers import refuse_identifiers
from privacy.identity import IdKey
from privacy.inputs import FileSet, PeopleInputs, Question
from privacy.people import Crowd, DuckEngine
from privacy.quarantine import Rejects, finish
from privacy.rawzone import DEFAULT_DAYS, RawZone
from privacy.settle import settle
from privacy.sources import (
    Source,
    check_mapping,
    column_sql,
    engine,
    estimated_rows,
    expand,
    open_source,
    unreadable,
)
from privacy.spark import spark_engine
from privacy.spool import Spool

EngineName = Literal["duckdb", "spark"]  # of the measures; both give the same bits
MIN_SECRET = 16  # bytes
PART_ROWS = 1_000_000  # rows that one partition should hold, measured in docs/decisions/0120
MAX_PARTS = 500  # open files
_BAD = "(file INTEGER, row BIGINT, reason VARCHAR, raw VARCHAR)"


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """What a load needs besides the declared inputs.

    `part_rows` decides over memory and speed and changes no figure.
    """

    now: datetime
    raw_dir: Path
    secret: bytes
    retention_days: int = DEFAULT_DAYS
    forgotten: frozenset[str] = frozenset()  # keyed hashes of ids whose rows are not to be read (privacy.forget)
    part_rows: int = PART_ROWS
    engine: EngineName = "duckdb"
    keyed: bool = True  # does a measure order cells by the keyed hash of their person (privacy.vectors.keyed)?

    def __post_init__(self) -> None:
        if self.now.tzinfo is None:
            raise ContractError(f"the time of a load must know its zone; got {self.now}.")
        if len(self.secret) < MIN_SECRET:
            raise PrivacyError(f"the workspace secret must hold at least {MIN_SECRET} bytes; got {len(self.secret)}.")
        if self.part_rows < 1:
            raise ContractError(f"part_rows must be at least 1; got {self.part_rows}.")

    def zone(self) -> RawZone:
        """The raw zone. Raises WorkspaceError when others may open it."""
        return RawZone.of(self.raw_dir, self.secret)


@dataclass(frozen=True, slots=True)
class _Load:
    """What every step of one load shares."""

    con: duckdb.DuckDBPyConnection
    inputs: PeopleInputs
    settings: LoadSettings
    zone: RawZone
    spool: Spool
    route: scan.Route


@contextmanager
def load_people(inputs: PeopleInputs, question: Question, settings: LoadSettings) -> Iterator[Crowd]:
    """Loads, validates and gates all rows about people. Raises InputError for a faulty file or too many rejects."""
    zone = settings.zone()
    zone.sweep(settings.now, settings.retention_days)
    con = engine()
    parts = _partitions(inputs, settings.part_rows)
    spool = Spool(settings.raw_dir / "spool" if parts > 1 else None)
    try:
        _public_tables(con, inputs, question)
        identity.create_tables(con, IdKey.of(settings.secret), settings.forgotten)
        version = identity.load_map(con, inputs.identity, inputs.not_identifiers)
        load = _Load(con, inputs, settings, zone, spool, scan.Route(parts))
        events = _read_events(load)
        assignments = _read_assignments(load, question)
        _settle(load)
        _finish(load, events, assignments)
        with ExitStack() as stack:
            engine_of = stack.enter_context(spark_engine(settings.raw_dir)) if settings.engine == "spark" else None
            crowd = Crowd(
                con, engine_of or DuckEngine(con), spool, parts, inputs.conversion_is_touch, version, settings.keyed
            )
            if parts == 1:
                crowd.show(0)
            yield crowd
    except duckdb.OutOfMemoryException as error:
        raise WorkspaceError(
            "the events do not fit into this machine's memory; split the calendar or use a larger machine."
        ) from error
    finally:
        spool.close()
        con.close()


def _partitions(inputs: PeopleInputs, part_rows: int) -> int:
    paths = expand("events", inputs.events)
    if inputs.assignments is not None:
        paths += expand("assignments", inputs.assignments)
    return max(1, min(MAX_PARTS, -(-sum(estimated_rows(p) for p in paths) // part_rows)))


def _public_tables(con: duckdb.DuckDBPyConnection, inputs: PeopleInputs, question: Question) -> None:
    con.execute("CREATE TABLE geos (name VARCHAR, geo SMALLINT)")
    con.execute("CREATE TABLE channels (name VARCHAR, channel SMALLINT)")
    con.execute("CREATE TABLE rates (code VARCHAR, rate HUGEINT)")
    con.execute("CREATE TABLE days (day INTEGER, block SMALLINT, week SMALLINT)")
    con.execute("CREATE TABLE arms (name VARCHAR, arm_name VARCHAR, experiment SMALLINT, arm SMALLINT)")
    con.execute("CREATE TABLE strata (name VARCHAR, stratum_name VARCHAR, stratum SMALLINT)")
    con.execute(
        "CREATE TABLE designs (name VARCHAR, strata BOOLEAN, entry BOOLEAN, exposed BOOLEAN, covariate BOOLEAN, "
        "first_day INTEGER, last_day INTEGER)"
    )
    con.execute("CREATE TABLE read_rows (input VARCHAR, n BIGINT)")
    con.execute(f"CREATE TABLE bad_events {_BAD}")
    con.execute(f"CREATE TABLE bad_assignments {_BAD}")
    epoch = datetime(1970, 1, 1).date()
    days = [
        ((week - epoch).days + d, b, w)
        for b, block in enumerate(question.calendar)
        for w, week in enumerate(block.weeks)
        for d in range(7)
    ]
    arms = [(e.name, a, i, j) for i, e in enumerate(question.experiments) for j, a in enumerate(question.arms[e.name])]
    declared = [(e, question.design(e)) for e in question.experiments]
    designs = [
        (e.name, bool(d.strata), d.entry, d.exposed == ASSIGNED, d.covariate > 0, (e.start - epoch).days,
         (e.end - epoch).days)
        for e, d in declared
    ]  # fmt: skip
    for table, rows in (
        ("geos", [(g, i) for i, g in enumerate(question.cohorts)]),
        ("channels", [(c, i) for i, c in enumerate(question.channels)]),
        ("rates", contract.rate_rows(inputs)),
        ("days", days),
        ("arms", arms),
        ("strata", [(e.name, s, i) for e, d in declared for i, s in enumerate(d.strata)]),
        ("designs", designs),
    ):
        if rows:
            con.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)


def _columns(
    name: str, source: Source, files: FileSet, required: tuple[str, ...], optional: tuple[str, ...]
) -> dict[str, str | None]:
    return {c: column_sql(name, source, files, c, c in required) for c in required + optional}


def _read_events(load: _Load) -> Rejects:
    inputs, con = load.inputs, load.con
    known = contract.EVENT_COLUMNS + contract.EVENT_OPTIONAL
    check_mapping("events", inputs.events, known + contract.EVENT_CARRIED)
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
        rejects = _send(load, rejects, number, source, scan.event_sql(
            number, source, columns, inputs, load.settings.now, load.route
        ))  # fmt: skip
    return rejects


def _read_assignments(load: _Load, question: Question) -> Rejects | None:
    files = load.inputs.assignments
    if files is None:
        if question.experiments:
            raise InputError(
                f"experiment {question.experiments[0].name!r} is user-randomised and needs an assignments file; "
                "set inputs.assignments.path in plumb.toml."
            )
        return None
    known = contract.ASSIGNMENT_COLUMNS + contract.ASSIGNMENT_OPTIONAL
    check_mapping("assignments", files, known)
    paths = expand("assignments", files)
    rejects = Rejects("assignments", paths)
    needed = _assigned_columns(question)
    unread = dict.fromkeys(c for c in contract.ASSIGNED_BY_DESIGN if c not in needed)
    for number, path in enumerate(paths):
        source = open_source(load.con, "assignments", path)
        refuse_identifiers(load.con, "assignments", source, files, load.inputs.not_identifiers)
        columns = _columns("assignments", source, files, contract.ASSIGNMENT_COLUMNS + needed, ("consent",)) | unread
        statement = scan.assignment_sql(number, source, columns, load.route)
        rejects = _send(load, rejects, number, source, statement)
    return rejects


def _assigned_columns(question: Question) -> tuple[str, ...]:
    """Columns of the assignments that some declared test reads."""
    designs = [question.design(e) for e in question.experiments]
    used = (
        any(d.strata for d in designs),
        any(d.entry for d in designs),
        any(d.exposed == ASSIGNED for d in designs),
        any(d.covariate for d in designs),
    )
    return tuple(name for name, needed in zip(contract.ASSIGNED_BY_DESIGN, used, strict=True) if needed)


def _send(load: _Load, rejects: Rejects, number: int, source: Source, statement: str) -> Rejects:
    try:
        scan.send(load.con, statement, rejects.name, load.spool)
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        raise unreadable(rejects.name, source.path, source.kind, error) from error
    return rejects.with_unreadable(load.con, number, source)


def _settle(load: _Load) -> None:
    """Settles each partition; its tables wait, sealed when there are more than one, until a measure asks for them."""
    spool = load.spool
    for part in range(load.route.parts):
        events, assignments = (spool.read(f"{name} {part}") for name in ("events", "assignments"))
        for name in ("events", "assignments"):
            spool.drop(f"{name} {part}")
        tables = settle(
            load.con, events, assignments, consent_assumed=load.inputs.consent_assumed,
            now_us=scan.micros_of(load.settings.now), keyed=load.settings.keyed,
        )  # fmt: skip
        for name, table in tables.items():
            spool.append(f"t_{name} {part}", table)


def _finish(load: _Load, events: Rejects, assignments: Rejects | None) -> None:
    """Quarantine and log of both inputs, then no trace of ids is left in the engine."""
    con = load.con
    _fill_raw(load, events)
    _refuse_unknown_currency(con, events.paths, load.inputs)
    for rejects in (events, assignments):
        if rejects is not None:
            finish(con, rejects, load.inputs.max_rejected, load.zone, load.settings.now)
    for table in ("bad_events", "bad_assignments", "read_rows", *identity.TABLES):
        con.execute(f"DROP TABLE {table}")


def _fill_raw(load: _Load, events: Rejects) -> None:
    """The text of malformed rows that were read as typed columns: a second look at their files, at their rows alone."""
    con = load.con
    missing = con.execute("SELECT DISTINCT file FROM bad_events WHERE raw IS NULL ORDER BY file").fetchall()
    for (number,) in missing:
        source = open_source(con, "events", events.paths[number])
        if source.numbered is None:
            continue
        columns = _columns("events", source, load.inputs.events, contract.EVENT_COLUMNS, contract.EVENT_OPTIONAL)
        con.execute(
            f"""UPDATE bad_events SET raw = found.raw FROM (
                SELECT row, {scan.columns_as_text(columns)} AS raw FROM (
                    SELECT {source.numbered} AS row, {contract.text_of(columns)} FROM {source.relation}
                ) SEMI JOIN (SELECT row FROM bad_events WHERE file = {number} AND raw IS NULL) USING (row)
            ) found WHERE bad_events.file = {number} AND bad_events.row = found.row AND bad_events.raw IS NULL"""
        )


def _refuse_unknown_currency(con: duckdb.DuckDBPyConnection, paths: tuple[Path, ...], inputs: PeopleInputs) -> None:
    found = con.execute(
        "SELECT file, row, json_extract_string(raw, '$.currency') FROM bad_events WHERE reason = ? "
        "ORDER BY file, row LIMIT 1",
        [contract.NO_RATE],
    ).fetchone()
    if found:
        code = str(found[2]).upper()
        raise InputError(
            f"events: {paths[found[0]]} row {found[1]} is in {code}, and the project is in {inputs.currency}; "
            f"add its rate to [rates] in plumb.toml, such as {code} = 1.08 ({inputs.currency} per {code})."
        )
