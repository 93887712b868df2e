"""Entry point of `plumb`: settings of the process that must stand before any numerical library is loaded."""

from __future__ import annotations

import os
from pathlib import Path

ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def main() -> None:
    """Runs the command line.

    The matrices here are small, and several BLAS threads per call only wait for each other (measured: 20 times slower
    on two busy cores); chains and draws are what runs in parallel.
    """
    for name in ONE_THREAD:
        os.environ.setdefault(name, "1")
    # compiled models are kept between runs: compiling is most of a small fit
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(home / "plumb" / "jax"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    from workflow.cli import main as run

    run()


if __name__ == "__main__":
    main()
