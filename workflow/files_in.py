"""Public tables as text cells with their origin, and the parsers that name the file, the row and the value found.

Row numbers are what a person sees in an editor for CSV and JSON Lines (a CSV's first data row is 2); for Parquet they
count from 1. Only public tables (spend, controls, experiments, panel) are read here, never people's rows.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from contracts.errors import InputError

SUFFIXES = {
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".tsv": "csv", ".csv.gz": "csv", ".tsv.gz": "csv",
    ".jsonl": "json", ".ndjson": "json", ".json": "json", ".jsonl.gz": "json", ".ndjson.gz": "json",
}  # fmt: skip
ABSENT = ("", "nan", "NaN", "NULL", "null", "None")


def file_format(path: Path) -> str | None:
    """'parquet', 'csv' or 'json' by the file's ending; None for any other file."""
    name = path.name.lower()
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.endswith(suffix):
            return SUFFIXES[suffix]
    return None


def resolve(root: Path, patterns: Sequence[str], what: str) -> list[Path]:
    """Files behind paths, folders and globs, in name order. Raises InputError when a pattern finds nothing."""
    found: list[Path] = []
    for pattern in patterns:
        place = Path(pattern).expanduser()
        place = place if place.is_absolute() else root / place
        if place.is_dir():
            hits = sorted(p for p in place.rglob("*") if p.is_file() and file_format(p))
        elif place.is_file():
            hits = [place]
        else:
            hits = sorted(p for p in map(Path, glob.glob(str(place), recursive=True)) if p.is_file())
        if not hits:
            raise InputError(
                f"{what}: no file at {pattern!r} in {root}; put it there or mend path in [inputs.{what}] of plumb.toml."
            )
        found += [p for p in hits if p not in found]
    for path in found:
        if file_format(path) is None:
            raise InputError(
                f"{what}: {path.name} is neither Parquet (.parquet), CSV (.csv) nor JSON Lines (.jsonl); convert it."
            )
    return found


def scan_sql(path: Path) -> str:
    """DuckDB table function that reads one file with every CSV cell as text."""
    quoted = "'" + str(path).replace("'", "''") + "'"
    kind = file_format(path)
    if kind == "parquet":
        return f"read_parquet({quoted})"
    if kind == "csv":
        return f"read_csv({quoted}, all_varchar=true, header=true, nullstr=[''], ignore_errors=false)"
    return f"read_json({quoted}, format='auto', sample_size=-1)"


def header(path: Path) -> list[str]:
    """Column names of one file. Raises InputError when it cannot be read."""
    with duckdb.connect() as connection:
        try:
            return _columns(connection, path)
        except duckdb.Error as error:
            raise InputError(f"{path.name} cannot be read: {_first_line(error)}") from None


def _columns(connection: duckdb.DuckDBPyConnection, path: Path) -> list[str]:
    """Names of a file's columns. Asked as a statement: a name that is no Unicode is then an error of the engine, where
    a relation ends in a fault of its binding."""
    return [str(row[0]) for row in connection.execute(f"DESCRIBE SELECT * FROM {scan_sql(path)}").fetchall()]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


@dataclass(frozen=True, slots=True)
class TextTable:
    """Cells as text (None where absent) with the file and row that each came from."""

    what: str  # name of the input
    cells: pd.DataFrame
    files: tuple[Path, ...]
    file_of: np.ndarray  # (n,) position in files
    row_of: np.ndarray  # (n,)
    named: Mapping[str, str]  # our column -> how it is called in the file

    def place(self, index: int) -> str:
        """'spend.csv row 14'."""
        return f"{self.files[self.file_of[index]].name} row {self.row_of[index]}"

    def column(self, ours: str) -> pd.Series:
        """Text cells of one column. Raises InputError when the table has no such column."""
        if ours not in self.cells:
            theirs = self.named.get(ours, ours)
            raise InputError(
                f"{self.files[0].name} has no column {theirs!r}; it has {', '.join(map(str, self.cells.columns))}. "
                f'Add it, or map it in [inputs.{self.what}] columns of plumb.toml, for example {ours} = "theirs".'
            )
        return self.cells[ours]

    def has(self, ours: str) -> bool:
        """True when the column exists."""
        return ours in self.cells

    def fail(self, bad: pd.Series, ours: str, rule: str) -> None:
        """Raises InputError for the first row where `bad` holds; `rule` says what is expected and the fix."""
        if bad.any():
            first = int(np.flatnonzero(bad.to_numpy())[0])
            found = self.cells[ours].iloc[first]
            shown = "empty" if found is None or pd.isna(found) else repr(str(found))
            raise InputError(f"{self.place(first)}: {self.named.get(ours, ours)} is {shown}; {rule}.")


def read_text(files: Sequence[Path], what: str, columns: Mapping[str, str], fixed: Mapping[str, str]) -> TextTable:
    """Reads files as text cells under our column names.

    `columns` maps ours to theirs, `fixed` adds constant columns. Raises InputError for an unreadable file, a mapped
    column that is missing, or files whose columns differ.
    """
    frames, file_of, row_of = [], [], []
    with duckdb.connect() as connection:
        for position, path in enumerate(files):
            try:
                _columns(connection, path)
                relation = f"SELECT CAST(COLUMNS(*) AS VARCHAR) FROM {scan_sql(path)}"
                frame = connection.sql(relation).to_arrow_table().to_pandas()
            except duckdb.Error as error:
                raise InputError(f"{path.name} cannot be read: {_first_line(error)}") from None
            frame.columns = [str(c).strip() for c in frame.columns]
            for ours, theirs in columns.items():
                if theirs not in frame.columns:
                    raise InputError(
                        f"{path.name} has no column {theirs!r}, which [inputs.{what}] columns maps to {ours}; "
                        f"it has {', '.join(frame.columns)}."
                    )
            frames.append(_renamed(frame, columns, fixed))
            first = 2 if file_format(path) == "csv" else 1
            file_of.append(np.full(len(frame), position))
            row_of.append(np.arange(first, first + len(frame)))
    cells = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    for name in cells.columns:
        text = cells[name].astype(object)
        text = text.where(text.notna(), None).map(lambda v: v if v is None else str(v).strip())
        cells[name] = text.where(~text.isin(ABSENT), None)
    return TextTable(what, cells, tuple(files), np.concatenate(file_of), np.concatenate(row_of), dict(columns))


def _renamed(frame: pd.DataFrame, columns: Mapping[str, str], fixed: Mapping[str, str]) -> pd.DataFrame:
    """Our names; a column of theirs that would clash with a mapped name is dropped."""
    out = frame.drop(columns=[c for c in columns if c in frame.columns and c not in columns.values()])
    for ours, theirs in columns.items():
        out[ours] = frame[theirs]
    out = out.drop(columns=[t for t in columns.values() if t not in columns])
    for ours, value in fixed.items():
        out[ours] = value
    return out


def numbers(table: TextTable, ours: str, *, empty: float | None = None, minimum: float | None = None) -> np.ndarray:
    """A column as floats. `empty` replaces absent cells (None: they are refused). Raises InputError."""
    text = table.column(ours)
    absent = text.isna()
    if empty is None:
        table.fail(absent, ours, "a number is needed")
    values = pd.to_numeric(text.where(~absent, None), errors="coerce").astype(float)
    table.fail(~absent & ~np.isfinite(values), ours, "write a plain number such as 1234.5")
    if minimum is not None:
        limit = "negative values are not allowed; write 0 or more" if minimum == 0 else f"write {minimum} or more"
        table.fail(~absent & (values < minimum), ours, limit)
    out = values.to_numpy(float, copy=True)
    out[absent.to_numpy()] = np.nan if empty is None else empty
    return out


def dates(table: TextTable, ours: str) -> pd.Series:
    """A column of ISO dates (a time of day is dropped). Raises InputError."""
    text = table.column(ours)
    table.fail(text.isna(), ours, "a date is needed")
    iso = text.str.fullmatch(r"\d{4}-\d{2}-\d{2}([T ].*)?").astype(bool)
    parsed = pd.to_datetime(text.str[:10].where(iso, None), format="%Y-%m-%d", errors="coerce")
    table.fail(parsed.isna(), ours, "write ISO dates such as 2026-01-31")
    return parsed.dt.date


def words(table: TextTable, ours: str) -> pd.Series:
    """A column of names. Raises InputError for an absent one."""
    text = table.column(ours)
    table.fail(text.isna(), ours, "a name is needed")
    return text


def known(table: TextTable, ours: str, names: Iterable[str], fix: str) -> None:
    """Raises InputError for the first name that is not declared."""
    declared = list(names)
    bad = ~table.column(ours).isin(declared)
    shown = ", ".join(declared[:12]) + (", ..." if len(declared) > 12 else "")
    table.fail(bad, ours, f"it is not declared (declared: {shown}); {fix}")
