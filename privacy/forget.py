"""A person asks to be deleted: what the room keeps about them goes, and no later load reads their rows again.

| what | what happens |
|---|---|
| later releases | the person's rows are dropped at every load, whatever the input files still hold |
| quarantine | their malformed rows are taken out; unreadable lines that hold one of their ids, too |
| identity map | nothing is kept of it; the map file is the operator's |
| input files | never changed: the answer names those that still hold the person, for their owner to mend |
| published releases | stay: they hold no row of anybody, and noise cannot be taken back |

The list of forgotten people holds keyed hashes of ids, sealed, beside the ledger and outside the raw zone, so that
emptying the raw zone forgets nobody's wish.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.csv as pa_csv

from contracts.errors import InputError
from privacy import event, identity
from privacy.identity import IdKey
from privacy.inputs import FileSet, PeopleInputs
from privacy.quarantine import BATCH, HEADER
from privacy.rawzone import RawZone
from privacy.sources import column_sql, engine, expand, open_source
from privacy.vault import Vault

LIST_NAME = "forgotten.sealed"


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was done, and what only the owner of the files can do. It holds no id."""

    partitions: tuple[str, ...]  # quarantine partitions that were rewritten or deleted, within the raw zone
    still_in: tuple[Path, ...]  # declared input files that still hold a row of the person
    known_before: bool  # the wish was on the list already


def list_beside(ledger: Path) -> Path:
    """Where the list of forgotten people lies."""
    return ledger.with_name(LIST_NAME)


def read_forgotten(listed: Path, secret: bytes) -> frozenset[str]:
    """Keyed hashes of all forgotten ids. Raises PrivacyError when the list does not open."""
    return frozenset(key for entry in Vault.of(secret).entries(listed) for key in entry["keys"])


def forget_person(
    user_id: str, inputs: PeopleInputs, *, raw_dir: Path, secret: bytes, listed: Path, now: datetime
) -> Forgotten:
    """Forgets one person, named by any of their ids. Safe to repeat. Raises InputError for an empty id or a bad map.

    The wish is written down first, so that a crash after it leaves nothing that a load would read.
    """
    name = event.cell(user_id)
    if name is None:
        raise InputError("forget: the user id is empty; name the person as the input files do.")
    zone = RawZone.of(raw_dir, secret)
    con = engine()
    try:
        names = _all_names(con, str(name), inputs, secret)
        before = read_forgotten(listed, secret)
        keys = {IdKey.of(secret).digest(n) for n in names}
        if not keys <= before:
            zone.vault.append(listed, {"at": now.isoformat(), "keys": sorted(keys - before)})
        touched = tuple(_purge(zone, path, names, now) for path in zone.quarantines())
        holding = _holding(con, inputs, names)
    finally:
        con.close()
    return Forgotten(tuple(t for t in touched if t), holding, keys <= before)


def _all_names(con: duckdb.DuckDBPyConnection, name: str, inputs: PeopleInputs, secret: bytes) -> frozenset[str]:
    """The id, its person, and all devices of that person, as the files write them."""
    if inputs.identity is None:
        return frozenset([name])
    identity.create_tables(con, IdKey.of(secret), frozenset())
    identity.load_map(con, inputs.identity, inputs.not_identifiers)  # refuses a faulty map before it decides who is who
    pairs: set[tuple[str, str]] = set()
    for sql in _map_sql(con, inputs.identity):
        person = con.execute(f"SELECT person FROM ({sql}) WHERE device = $id LIMIT 1", {"id": name}).fetchone()
        pairs |= {(name, person[0])} if person else set()
    persons = {name} | {person for _, person in pairs}
    for sql in _map_sql(con, inputs.identity):
        rows = con.execute(f"SELECT device FROM ({sql}) WHERE person IN (SELECT unnest($p))", {"p": sorted(persons)})
        persons |= {device for (device,) in rows.fetchall()}
    return frozenset(persons)


def _map_sql(con: duckdb.DuckDBPyConnection, files: FileSet) -> Iterator[str]:
    for path in expand("identity", files):
        source = open_source(con, "identity", path)
        device, person = (column_sql("identity", source, files, c, required=True) for c in identity.COLUMNS)
        yield f"SELECT {device} AS device, {person} AS person FROM {source.relation}"


def _purge(zone: RawZone, path: Path, names: frozenset[str], now: datetime) -> str:
    """Takes the person's rows out of one partition; its name within the zone if there were any."""
    found = False
    kept: list[bytes] = []
    for chunk in zone.vault.read(path):
        if not chunk.strip() or chunk.strip() == HEADER.encode():
            continue
        table = _rows(chunk)
        theirs = pa.array([_of_person(raw, names) for raw in table["raw"].to_pylist()], pa.bool_())
        found = found or any(theirs.to_pylist())
        left = table.filter(pa.compute.invert(theirs))
        if left.num_rows:
            sink = pa.BufferOutputStream()
            pa_csv.write_csv(left, sink, pa_csv.WriteOptions(include_header=False))
            kept.append(sink.getvalue().to_pybytes())
    if not found:
        return ""
    what = str(path.relative_to(zone.folder))
    if kept:
        zone.vault.append(zone.deletions, {"at": now.isoformat(), "file": what, "why": "rows of a forgotten person"})
        zone.vault.write(path, [f"{HEADER}\n".encode(), *kept])
    else:
        zone.delete(path, "only rows of a forgotten person", now)
    return what


def _rows(chunk: bytes) -> pa.Table:
    names = HEADER.split(",")
    return pa_csv.read_csv(
        io.BytesIO(chunk),
        pa_csv.ReadOptions(column_names=names, block_size=max(len(chunk) + 1, BATCH)),
        pa_csv.ParseOptions(newlines_in_values=True),
        pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    )


def _of_person(raw: str, names: frozenset[str]) -> bool:
    """Whether a quarantined row is the person's; of an unreadable line, whether it holds one of their ids."""
    try:
        cells = json.loads(raw)
        return event.cell(cells.get("user_id")) in names
    except (ValueError, AttributeError):
        return any(name in raw for name in names)


def _holding(con: duckdb.DuckDBPyConnection, inputs: PeopleInputs, names: frozenset[str]) -> tuple[Path, ...]:
    """Declared input files with a row of the person."""
    wanted = {"n": sorted(names)}
    out = []
    for what, files in (("events", inputs.events), ("assignments", inputs.assignments)):
        if files is None:
            continue
        for path in expand(what, files):
            source = open_source(con, what, path)
            user = column_sql(what, source, files, "user_id", required=True)
            rows = f"SELECT 1 FROM {source.relation} WHERE {user} IN (SELECT unnest($n)) LIMIT 1"
            out += [path] if con.execute(rows, wanted).fetchone() else []
    if inputs.identity is not None:
        for path, sql in zip(expand("identity", inputs.identity), _map_sql(con, inputs.identity), strict=True):
            rows = f"SELECT 1 FROM ({sql}) WHERE device IN (SELECT unnest($n)) OR person IN (SELECT unnest($n)) LIMIT 1"
            out += [path] if con.execute(rows, wanted).fetchone() else []
    return tuple(out)
