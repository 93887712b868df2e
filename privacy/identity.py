"""Who is who: raw ids become keyed hashes once per id, devices become people by a supplied map, forgotten ids vanish.

Everything here works on the dictionary of distinct ids, never on event rows: rows join it once (`privacy.load`).
The map is deterministic (one device, one person, one step), used only inside a load, and its version, a keyed hash of
its content, is written into every release. Nothing of it is kept, so taking it away gives the ids back as they were.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

import duckdb

from contracts.errors import InputError
from privacy import event
from privacy.identifiers import refuse_identifiers
from privacy.inputs import FileSet
from privacy.sources import Source, check_mapping, column_sql, expand, open_source, unreadable

NO_MAP = "none"
COLUMNS = event.columns(event.IdentityRow, required=True)
KEY_HEX = 32  # 128 bits of HMAC-SHA-256 (RFC 2104, section 5, allows half): 10^9 people collide with chance 10^-21
TABLES = ("id_key", "ids", "devices", "routes", "forgotten")
_BLOCK = 64  # bytes of a SHA-256 block


@dataclass(frozen=True, slots=True)
class IdKey:
    """The workspace's key for ids. The engine has SHA-256 and no HMAC, so it gets the two padded blocks of RFC 2104."""

    key: bytes

    @staticmethod
    def of(secret: bytes) -> IdKey:
        """From the workspace secret; the label keeps this key apart from every other use of the secret."""
        return IdKey(hmac.digest(secret, b"plumbline: user ids", "sha256"))

    @property
    def pads(self) -> list[bytes]:
        """Inner and outer block."""
        whole = self.key.ljust(_BLOCK, b"\0")
        return [bytes(b ^ pad for b in whole) for pad in (0x36, 0x5C)]

    def digest(self, text: str) -> str:
        """The keyed hash of one cleaned id; the engine's `keyed` gives the same."""
        return hmac.new(self.key, text.encode(), "sha256").hexdigest()[:KEY_HEX]


def create_tables(con: duckdb.DuckDBPyConnection, key: IdKey, forgotten: frozenset[str]) -> None:
    """Empty dictionary and map; the key and the forgotten people's hashes live in the engine's memory only.

    `routes` says for the id of a device which partition of a load its person is in (`privacy.scan.Route`).
    """
    con.execute("CREATE TABLE id_key (inner_pad BLOB, outer_pad BLOB)")
    con.execute("INSERT INTO id_key VALUES (?, ?)", key.pads)
    con.execute("CREATE TABLE ids (user_id VARCHAR, user_key VARCHAR)")
    con.execute("CREATE TABLE devices (device_key VARCHAR, person_key VARCHAR)")
    con.execute("CREATE TABLE routes (device VARCHAR, route UBIGINT)")
    con.execute("CREATE TABLE forgotten (user_key VARCHAR)")
    if forgotten:
        con.execute("INSERT INTO forgotten SELECT unnest(?::VARCHAR[])", [sorted(forgotten)])


def keyed(column: str) -> str:
    """HMAC of a text column; needs `id_key` among the tables of the statement."""
    return f"left(sha256(outer_pad || unhex(sha256(inner_pad || encode({column})))), {KEY_HEX})"


def asks(con: duckdb.DuckDBPyConnection) -> bool:
    """Does it matter who is behind an id: is there a map, or a forgotten person?"""
    ((found,),) = con.execute("SELECT EXISTS (FROM devices) OR EXISTS (FROM forgotten)").fetchall()
    return bool(found)


def learn(con: duckdb.DuckDBPyConnection, relation: str, user_id: str) -> None:
    """Adds the distinct ids of a relation to the dictionary. A forgotten person's ids get no key: their rows drop out.

    `user_id` is the SQL of the cleaned id. A person is forgotten under the device's own id and under the person's.
    """
    con.execute(
        f"""INSERT INTO ids
        WITH fresh AS (SELECT DISTINCT {user_id} AS user_id FROM {relation}),
        keyed AS (
            SELECT user_id, {keyed("user_id")} AS own FROM fresh ANTI JOIN ids USING (user_id), id_key
            WHERE user_id IS NOT NULL
        ), resolved AS (
            SELECT user_id, own, coalesce(person_key, own) AS person
            FROM keyed LEFT JOIN devices ON device_key = own
        )
        SELECT user_id, CASE WHEN own IN (FROM forgotten) OR person IN (FROM forgotten) THEN NULL ELSE person END
        FROM resolved"""
    )


def load_map(con: duckdb.DuckDBPyConnection, files: FileSet | None, declared_safe: frozenset[str] = frozenset()) -> str:
    """Reads the map into `devices` and returns its version, or 'none'.

    Raises InputError, naming a file and a row and never an id, for an empty cell, a device that two rows give to
    different people, or a person who is also the device of somebody else (a chain has no single answer).
    """
    if files is None:
        return NO_MAP
    check_mapping("identity", files, COLUMNS)
    con.execute(
        "CREATE TEMP TABLE map (file INTEGER, row BIGINT, device VARCHAR, person VARCHAR, user_id VARCHAR, "
        "route UBIGINT)"
    )
    paths = expand("identity", files)
    for number, path in enumerate(paths):
        source = open_source(con, "identity", path)
        refuse_identifiers(con, "identity", source, files, declared_safe, COLUMNS)
        try:
            con.execute(_rows_sql(number, source, files))
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as error:
            raise unreadable("identity", path, source.kind, error) from error
        if source.kind == "csv":
            _refuse_broken_lines(con, str(path))
    if con.execute("SELECT 1 FROM map LIMIT 1").fetchone() is None:
        raise InputError(f"identity: {paths[0]} holds no row; add some, or take [inputs.identity] out of plumb.toml.")
    for test, fault in _FAULTS:
        row = con.execute(f"SELECT file, row FROM map WHERE {test} ORDER BY file, row LIMIT 1").fetchone()
        if row:
            raise InputError(f"identity: {paths[row[0]]} row {row[1]} {fault}")
    con.execute("INSERT INTO devices SELECT DISTINCT device, person FROM map WHERE device <> person")
    con.execute("INSERT INTO routes SELECT DISTINCT user_id, route FROM map WHERE device <> person")
    pairs = "SELECT count(*) || ' ' || bit_xor(unhex(sha256(device_key || person_key))::BIT) AS content FROM devices"
    version = con.execute(f"SELECT {keyed('content')} FROM ({pairs}), id_key").fetchone()
    con.execute("DROP TABLE map")
    return str(version[0]) if version else NO_MAP


_FAULTS = (
    ("device IS NULL", "has no device_id; fill it or take the row out."),
    ("person IS NULL", "has no person_id; fill it or take the row out."),
    (
        "device IN (SELECT device FROM map GROUP BY device HAVING count(DISTINCT person) > 1)",
        "gives a device to one person and another row gives it to another; a device belongs to one person, or to "
        "nobody: keep one row or take both out.",
    ),
    (
        "person IN (SELECT device FROM map WHERE device <> person)",
        "names a person who is the device of somebody else in another row; name the last person in both rows.",
    ),
)


def _rows_sql(number: int, source: Source, files: FileSet) -> str:
    device, person = (column_sql("identity", source, files, c, required=True) for c in COLUMNS)
    return f"""INSERT INTO map
        SELECT {number}, row, {keyed("device")}, {keyed("person")}, device, hash(person)
        FROM (SELECT row_number() OVER () AS row, {device} AS device, {person} AS person FROM {source.relation}),
            id_key"""


def _refuse_broken_lines(con: duckdb.DuckDBPyConnection, path: str) -> None:
    line = con.execute("SELECT min(line) FROM reject_errors").fetchone()
    con.execute("DROP TABLE reject_errors")
    con.execute("DROP TABLE reject_scans")
    if line and line[0] is not None:
        raise InputError(f"identity: {path} line {line[0]} cannot be read; mend or remove it.")
