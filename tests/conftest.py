"""Fixtures that all rooms share."""

from __future__ import annotations

import os
from pathlib import Path

# Before any numerical library is loaded, as the entry point does: BLAS threads on small matrices only wait.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import pytest  # noqa: E402

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of public data beside the checkout; skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the public data folder shared/data is not beside this checkout")
    return SHARED_DATA
