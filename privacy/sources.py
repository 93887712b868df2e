"""Opens Parquet, CSV and JSON Lines so that every declared column can be read as text, without guessing types.

Text is the common ground: the same row gives the same text whichever format it came in; `privacy.contract` parses it.
"""

from __future__ import annotations

import csv
import glob
import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import InputError
from privacy.inputs import FileSet, Fixed, HashOf

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
}
DELIMITERS = ",;\t|"
_FLOATS = ("DOUBLE", "FLOAT")
_NATIVE = ("TIMESTAMP", "DATE", "BOOLEAN", "DOUBLE")
_ROW_BYTES = 100  # of a row of text, for guessing how many rows a file holds
_GZIP = 6  # how much larger text is than its gzip


@dataclass(frozen=True, slots=True)
class Source:
    """One file, as SQL. `text` maps each of its columns to an expression of type VARCHAR."""

    path: Path
    kind: str
    relation: str
    text: Mapping[str, str]
    native: Mapping[str, tuple[str, str]]  # columns of times, truth values and doubles: (SQL, DuckDB type)
    broken: str  # SQL condition of an unreadable row; 'false' where the reader rejects such rows itself
    numbered: str | None = None  # SQL of the row's number from 1, where the reader knows it and can read a row again


def engine() -> duckdb.DuckDBPyConnection:
    """An engine in memory that may not write: no spill file, no extension from elsewhere, times in UTC."""
    con = duckdb.connect(":memory:")
    for option in (
        "temp_directory = ''",
        "TimeZone = 'UTC'",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "python_enable_replacements = false",  # a name in SQL means a table, never a variable of this program
    ):
        con.execute(f"SET {option}")
    return con


def query(con: duckdb.DuckDBPyConnection, statement: str) -> duckdb.DuckDBPyRelation:
    """A result for Arrow, which `execute` would copy once more.

    A result that nobody read to its end is let go first.
    """
    con.abort()
    return con.sql(statement)


def quote(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _suffix(path: Path) -> str:
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def expand(name: str, files: FileSet) -> tuple[Path, ...]:
    """All files behind paths, folders and globs, sorted. Raises InputError when a path leads to none."""
    found: list[Path] = []
    for path in files.paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and _suffix(p) in FORMATS)
            if not inside:
                raise InputError(f"{name}: the folder {path} holds no .parquet, .csv or .jsonl file.")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            inside = sorted(Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file())
            if not inside:
                raise InputError(f"{name}: there is no file {path}; correct inputs.{name}.path in plumb.toml.")
            found += inside
    for path in found:
        if _suffix(path) not in FORMATS:
            raise InputError(f"{name}: {path} is not a Parquet, CSV or JSON Lines file, by its name.")
    if not found:
        raise InputError(f"{name}: no path is given; set inputs.{name}.path in plumb.toml.")
    return tuple(dict.fromkeys(found))


def _duck_path(path: Path) -> str:
    """The path as a literal; glob characters are made literal, because DuckDB would expand them."""
    return quote("".join(f"[{c}]" if c in "*?[" else c for c in str(path)))


def open_source(con: duckdb.DuckDBPyConnection, name: str, path: Path) -> Source:
    """Looks at the columns of one file. Raises InputError when it cannot be read at all."""
    kind = FORMATS[_suffix(path)]
    if path.stat().st_size == 0:
        raise InputError(f"{name}: {path} is empty.")
    try:
        return {"parquet": _parquet, "csv": _csv, "json": _json}[kind](con, name, path)
    except duckdb.Error as error:
        raise unreadable(name, path, kind, error) from error


def unreadable(name: str, path: Path, kind: str, error: Exception) -> InputError:
    """The sentence for a file that its reader refuses as a whole. What it quotes may be a cell and is left out."""
    if "state machine" in str(error):
        return InputError(f"{name}: {path} mixes line ends (CRLF and LF); save it with one kind.")
    label = {"parquet": "Parquet", "csv": "CSV", "json": "JSON Lines"}[kind]
    return InputError(f"{name}: {path} cannot be read as {label} ({_unquoted(error)}).")


def _unquoted(error: Exception) -> str:
    first = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
    return re.sub(r"\"[^\"]*(\"|$)|'[^']*('|$)", "...", first)


def _parquet(con: duckdb.DuckDBPyConnection, name: str, path: Path) -> Source:
    relation = f"read_parquet({_duck_path(path)}, hive_partitioning=false)"
    text, native = {}, {}
    for column, kind, *_ in con.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall():
        plain = _name(column)
        if kind in _FLOATS:  # an id or amount that went through a float column reads like the integer it was
            whole = f"isfinite({plain}) AND {plain} = floor({plain}) AND abs({plain}) < 9007199254740992"
            text[column] = f"CASE WHEN {whole} THEN {plain}::BIGINT::VARCHAR ELSE {plain}::VARCHAR END"
        else:
            text[column] = f"{plain}::VARCHAR"
        if kind.startswith(_NATIVE):
            native[column] = (plain, kind)
    numbered = None if "file_row_number" in text else "(file_row_number + 1)"  # the engine's own column
    return Source(path, "parquet", relation, text, native if numbered else {}, "false", numbered)


def estimated_rows(path: Path) -> int:
    """About how many rows a file holds: exact for Parquet, by size for text.

    It decides over memory, not over figures.
    """
    if FORMATS.get(_suffix(path)) == "parquet":
        try:
            return int(pq.ParquetFile(path).metadata.num_rows)
        except (pa.ArrowException, OSError):
            return 0  # the reader will say what is wrong with it
    return path.stat().st_size * (_GZIP if path.suffix.lower() == ".gz" else 1) // _ROW_BYTES


def _csv_header(name: str, path: Path) -> tuple[list[str], str]:
    opener: Any = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opener(path, "rb") as handle:  # only the header: a bad byte further down is the fault of its row alone
            line = handle.readline().decode("utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{name}: {path} cannot be read as UTF-8 text ({error}).") from error
    delimiter = max(DELIMITERS, key=lambda d: (line.count(d), -DELIMITERS.index(d)))
    try:
        header = next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error as error:
        raise InputError(
            f"{name}: the header of {path} cannot be read ({error}); save the file with line feeds (LF or CRLF)."
        ) from None
    header = [h.strip() for h in header]
    repeated = {h for h in header if header.count(h) > 1}
    if not header or repeated:
        raise InputError(f"{name}: the header of {path} repeats the column {sorted(repeated) or header}.")
    return header, delimiter


def _csv(con: duckdb.DuckDBPyConnection, name: str, path: Path) -> Source:
    header, delimiter = _csv_header(name, path)
    # columns get names of our own, so that no header can reach the SQL text
    columns = ", ".join(f"'c{i}': 'VARCHAR'" for i in range(len(header)))
    relation = (
        f"read_csv({_duck_path(path)}, auto_detect=false, header=true, columns={{{columns}}}, "
        f"delim={quote(delimiter)}, quote='\"', escape='\"', ignore_errors=true, store_rejects=true)"
    )
    return Source(path, "csv", relation, {h: f"c{i}" for i, h in enumerate(header)}, {}, "false")


def _json(con: duckdb.DuckDBPyConnection, name: str, path: Path) -> Source:
    relation = f"read_ndjson_objects({_duck_path(path)}, ignore_errors=true)"
    good = "json IS NOT NULL AND json_type(json) = 'OBJECT'"
    names = con.execute(f"SELECT DISTINCT unnest(json_keys(json)) FROM {relation} WHERE {good}").fetchall()
    if not names:
        raise InputError(f"{name}: {path} holds no JSON object; write one object per line.")
    text = {}
    for (column,) in sorted(names):
        pointer = "/" + column.replace("~", "~0").replace("/", "~1")
        text[column] = f"json_extract_string(json, {quote(pointer)})"
    return Source(path, "json", relation, text, {}, f"NOT coalesce({good}, false)")


def clean(expression: str) -> str:
    """Trims, and makes NULL of what counts as absent: NULL, NaN and the empty string."""
    trimmed = f"trim({expression})"
    return f"CASE WHEN lower({trimmed}) IN ('', 'nan', 'null') THEN NULL ELSE {trimmed} END"


def column_sql(name: str, source: Source, files: FileSet, ours: str, required: bool) -> str | None:
    """Cleaned text of one of our columns in one file, or None when it is optional and absent.

    Raises InputError when a mapped column, or a required one, is not in the file.
    """
    mapping = files.columns.get(ours, ours)
    if isinstance(mapping, Fixed):
        return clean(quote(mapping.value))
    if isinstance(mapping, HashOf):
        parts = [clean(_theirs(name, source, ours, theirs)) for theirs in mapping.columns]
        absent = " AND ".join(f"({p}) IS NULL" for p in parts)
        # lengths keep ('a', 'bc') and ('ab', 'c') apart
        joined = " || ".join(f"coalesce(length({p}) || ':' || ({p}), '-') || ';'" for p in parts)
        return f"CASE WHEN {absent} THEN NULL ELSE sha256({joined}) END"
    if ours not in files.columns and mapping not in source.text:
        if required:
            raise InputError(
                f"{name}: {source.path} has no column {ours!r}; it holds {_list(source.text)}. Map it under "
                f'inputs.{name}.columns in plumb.toml, such as {ours} = "their_name" or {ours} = {{ value = "..." }}.'
            )
        return None
    return clean(_theirs(name, source, ours, mapping))


def _theirs(name: str, source: Source, ours: str, theirs: str) -> str:
    if theirs not in source.text:
        raise InputError(
            f"{name}: {source.path} has no column {theirs!r}, which inputs.{name}.columns.{ours} names; "
            f"it holds {_list(source.text)}."
        )
    return source.text[theirs]


def _list(columns: Mapping[str, str]) -> str:
    return ", ".join(list(columns)[:20]) + (", ..." if len(columns) > 20 else "")


def check_mapping(name: str, files: FileSet, known: tuple[str, ...]) -> None:
    """Raises InputError for a mapping of a column that the input does not have."""
    for ours in files.columns:
        if ours not in known:
            raise InputError(f"inputs.{name}.columns.{ours} is unknown; the columns are {', '.join(known)}.")


def raw_json(columns: Mapping[str, str]) -> str:
    """SQL of one row's text as a JSON object, for the quarantine file."""
    return "to_json({" + ", ".join(f"{json.dumps(k)}: {v}" for k, v in columns.items()) + "})::VARCHAR"
