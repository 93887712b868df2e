"""Release files: one Parquet file each, the same bytes for the same content, everything needed to read it inside.

`units` is what the mechanism returned (signed integers); `value` is the same in metric units; `variance` is that of the
noise. Neither is clipped or rounded to look nicer: that would bias every sum (docs/privacy.md).
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import platform
from collections.abc import Mapping
from datetime import date
from fractions import Fraction
from functools import cache
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import PrivacyError
from contracts.release import NANO, Release, VectorSpec
from privacy.crossing import crossing
from privacy.vectors import ReleasePlan, VectorPlan

METADATA_KEY = b"plumbline"
DEPENDENCIES = ("opendp", "duckdb", "ibis-framework", "sqlglot", "numpy", "pandas", "pyarrow", "tzdata")


@cache
def code_hash() -> str:
    """SHA-256 over the source of this room and of the contracts."""
    here = Path(__file__).resolve().parent
    seen = hashlib.sha256()
    for folder in (here, here.parent / "contracts"):
        for path in sorted(folder.rglob("*.py")):
            name = path.relative_to(here.parent).as_posix()
            seen.update(f"{name}\n".encode() + path.read_bytes())
    return seen.hexdigest()


@cache
def dependencies() -> Mapping[str, str]:
    """Versions of Python and of the libraries that make a release."""
    return {name: packages.version(name) for name in DEPENDENCIES} | {"python": platform.python_version()}


def dependency_hash(versions: Mapping[str, str]) -> str:
    """SHA-256 over versions."""
    return hashlib.sha256(json.dumps(dict(versions), sort_keys=True).encode()).hexdigest()


def provenance(plan: ReleasePlan) -> dict[str, Any]:
    """What made the release: the whole declared question behind its id, code, libraries, and what crosses a block."""
    spec = json.loads(plan.spec)
    return {
        "spec": spec,
        "crosses_blocks": crossing(plan.measure, plan.blocks, spec.get("design")),
        "code_hash": code_hash(),
        "dependencies": dict(dependencies()),
        "dependency_hash": dependency_hash(dependencies()),
    }


def vector_table(
    keys: pd.DataFrame, vector: VectorPlan, units: np.ndarray, scale: np.ndarray | None = None
) -> pa.Table:
    """Rows of one vector: keys, units, value, variance. `scale` (cells,) turns normalised units into metric ones."""
    if len(keys) != len(units):
        raise PrivacyError(f"vector {vector.name} has {len(units)} values for {len(keys)} keys; nothing was released.")
    factor = np.ones(len(units)) if scale is None else scale
    columns: dict[str, Any] = {"vector": pa.array([vector.name] * len(keys), pa.string())}
    for name in keys.columns:
        values = keys[name].tolist()
        kind = pa.string() if not values or isinstance(values[0], str) else None
        kind = pa.date32() if name == "week" or (values and isinstance(values[0], date)) else kind
        columns[name] = pa.array(values, kind or pa.int32())
    columns["units"] = pa.array(units, pa.int64())
    step = Fraction(vector.numerator, vector.denominator)
    value = units.astype(float) * step.numerator / step.denominator * factor
    columns["value"] = pa.array(value, pa.float64())
    columns["variance"] = pa.array((vector.sigma_units * vector.unit * factor) ** 2, pa.float64())
    return pa.table(columns)


def encode(tables: list[pa.Table], metadata: Mapping[str, Any]) -> bytes:
    """The bytes of a release file."""
    table = pa.concat_tables(tables)
    text = json.dumps(metadata, sort_keys=True, separators=(",", ":"), allow_nan=False)
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: text.encode()}), buffer, compression="zstd")
    return buffer.getvalue()


def read_release(path: Path, content: bytes | None = None) -> Release:
    """Reads a published file back, or `content` in its place. Raises PrivacyError when it is no release or damaged."""
    try:
        table = pq.read_table(path if content is None else pa.BufferReader(content))
        meta: dict[str, Any] = json.loads((table.schema.metadata or {})[METADATA_KEY])
        vectors = tuple(_vector_of(v) for v in meta["vectors"])
        return Release(
            release_id=meta["release_id"],
            measure=meta["measure"],
            block=";".join(meta["blocks"]),
            block_start=date.fromisoformat(meta["period_start"]),
            block_end=date.fromisoformat(meta["period_end"]),
            table=table.to_pandas(date_as_object=True),
            vectors=vectors,
            rho=meta["nano_rho"] / NANO,
            epsilon=meta["epsilon"],
            delta=meta["delta"],
            metadata=meta,
        )
    except (OSError, LookupError, ArithmeticError, ValueError, TypeError, pa.ArrowException) as error:
        raise PrivacyError(f"{path} is not a readable release file ({type(error).__name__}: {error}).") from error


def _vector_of(said: Mapping[str, Any]) -> VectorSpec:
    """A vector as a file describes it. Raises TypeError for a name or a number that is none."""
    texts, numbers = ("name", "bounding"), ("l2_bound", "unit", "sigma", "nano_rho")
    for names, kinds in ((texts, str), (numbers, (int, float))):
        if wrong := [n for n in names if not isinstance(said[n], kinds) or isinstance(said[n], bool)]:
            raise TypeError(f"{wrong[0]} of a vector is {said[wrong[0]]!r}")
    return VectorSpec(**{n: said[n] for n in (*texts, *numbers)})


def vector_metadata(vector: VectorPlan) -> dict[str, Any]:
    """What a reader must know of one vector; metric units except where a name says otherwise."""
    spec = vector.spec()
    if not math.isfinite(spec.sigma):
        raise PrivacyError(f"vector {vector.name} has no finite noise; nothing was released.")
    return {
        "name": spec.name,
        "l2_bound": spec.l2_bound,
        "unit": spec.unit,
        "sigma": spec.sigma,
        "variance": spec.variance,
        "nano_rho": spec.nano_rho,
        "bounding": spec.bounding,
        "declared_bound": vector.bound,
        "bound_units": vector.bound_units,
        "sigma_units": vector.sigma_units,
        "cells": vector.cells,
        "distribution": "discrete Gaussian",
    }
