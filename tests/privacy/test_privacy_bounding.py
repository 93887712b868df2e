"""The bounding expression on its own: exact integers, norm within the bound, also at the edges of its range."""

from __future__ import annotations

import math

import duckdb
import ibis
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.bounding import bounded, first_cells, linf_units, per_cell, scaled
from privacy.bounds import MAX_CELLS_PER_PERSON, MAX_UNITS
from privacy.people import DuckEngine, sql


@pytest.fixture(scope="module")
def backend():  # type: ignore[no-untyped-def]
    return DuckEngine(duckdb.connect())


def table(backend, people, cells, x):  # type: ignore[no-untyped-def]
    backend.con.execute("CREATE OR REPLACE TABLE rows (person BIGINT, cell BIGINT, x BIGINT)")
    columns = [[int(v) for v in values] for values in (people, cells, x)]
    backend.con.execute("INSERT INTO rows SELECT unnest(?), unnest(?), unnest(?)", columns)
    return ibis.table(dict.fromkeys(("person", "cell", "x"), "int64"), name="rows")


def run(backend, expression):  # type: ignore[no-untyped-def]
    return backend.con.execute(sql(expression).duckdb).df()


def reference(x: list[int], bound: int) -> list[int]:
    """The formula of DESIGN section 3 in Python integers."""
    square = sum(v * v for v in x)
    if square <= bound * bound:
        return x
    n = math.ceil(math.sqrt(square)) + 1
    return [v * bound // n for v in x]


@settings(max_examples=40, deadline=None)
@given(
    bound=st.sampled_from([4096, 4097, 1_000_003, MAX_UNITS - 1, MAX_UNITS]),
    x=st.lists(st.integers(-5, 2 * MAX_UNITS), min_size=1, max_size=40),
)
def test_one_person_is_inside_the_ball_and_equals_python_integers(backend, bound, x) -> None:  # type: ignore[no-untyped-def]
    cells = per_cell(table(backend, [1] * len(x), range(len(x)), x), bound)
    out = run(backend, scaled(cells, bound)).sort_values("cell")
    clipped = [min(max(v, 0), bound) for v in x]
    assert out["x"].tolist() == reference(clipped, bound)
    assert str(out["x"].dtype) == "int64"
    assert sum(int(v) ** 2 for v in out["x"]) <= bound * bound


def test_the_worst_case_does_not_overflow(backend) -> None:  # type: ignore[no-untyped-def]
    rows = table(backend, [1] * MAX_CELLS_PER_PERSON, range(MAX_CELLS_PER_PERSON), [MAX_UNITS] * MAX_CELLS_PER_PERSON)
    out = run(backend, scaled(per_cell(rows, MAX_UNITS), MAX_UNITS))
    assert sum(int(v) ** 2 for v in out["x"]) <= MAX_UNITS**2
    assert out["x"].min() > 0.99 * MAX_UNITS / math.sqrt(MAX_CELLS_PER_PERSON)


def test_division_is_exact_at_the_edge_of_the_range(backend) -> None:  # type: ignore[no-untyped-def]
    """`//` runs on doubles in the engine; quotients one unit under an integer must not round up."""
    rng = np.random.default_rng(0)
    b = rng.integers(MAX_UNITS, 2**31, 20_000)
    q = (2**52 - 1) // b
    a = np.concatenate([q * b - 1, q * b, q * b + b - 1])
    a, b = a[a < 2**52], np.concatenate([b, b, b])[a < 2**52]
    rows = table(backend, a, b, a)
    out = run(backend, rows.select("person", "cell", y=(rows.person // rows.cell).cast("int64")))
    assert (out["y"] == out["person"] // out["cell"]).all()


def test_cells_beyond_the_cap_go_by_keyed_hash_not_by_person_number(backend) -> None:  # type: ignore[no-untyped-def]
    """Renumbering people (which removing one person does) must not change whose cells are kept."""
    cells = list(range(50))
    kept = []
    for number in (1, 77):
        rows = table(backend, [number] * 50, cells, [1] * 50)
        backend.con.execute(f"CREATE OR REPLACE TABLE keys AS SELECT {number}::BIGINT AS person, 'hash' AS user_key")
        kept.append(set(run(backend, first_cells(rows, limit=10))["cell"]))
    assert kept[0] == kept[1] and len(kept[0]) == 10


def test_the_cap_applies_only_where_the_keys_allow_more_cells(backend) -> None:  # type: ignore[no-untyped-def]
    count = MAX_CELLS_PER_PERSON + 5
    rows = table(backend, [1] * count, range(count), [1] * count)
    backend.con.execute("CREATE OR REPLACE TABLE keys AS SELECT 1::BIGINT AS person, 'hash' AS user_key")
    assert len(run(backend, bounded(rows, MAX_UNITS, count))) == MAX_CELLS_PER_PERSON


@settings(max_examples=25, deadline=None)
@given(
    bound=st.sampled_from([4096, 1_000_003, MAX_UNITS]),
    l0=st.sampled_from([1, 2, 4, 7]),
    x=st.lists(st.integers(-5, 2 * MAX_UNITS), min_size=1, max_size=20),
)
def test_cells_and_their_cap_keep_the_same_sensitivity(backend, bound, l0, x) -> None:  # type: ignore[no-untyped-def]
    rows = table(backend, [1] * len(x), range(len(x)), x)
    backend.con.execute("CREATE OR REPLACE TABLE keys AS SELECT 1::BIGINT AS person, 'hash' AS user_key")
    out = run(backend, bounded(rows, bound, len(x), l0))
    assert len(out) == min(len(x), l0)
    kept = dict(zip(out["cell"], out["x"], strict=True))
    assert all(kept[i] == min(max(x[i], 0), linf_units(bound, l0)) for i in kept)
    assert sum(int(v) ** 2 for v in kept.values()) <= bound * bound
