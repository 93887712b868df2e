"""Entry point of `plumb`: settings of the process that must stand before any numerical library is loaded."""

from __future__ import annotations

import os

ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def main() -> None:
    """Runs the command line.

    The matrices here are small, and several BLAS threads per call only wait for each other (measured: 20 times slower
    on two busy cores); chains and draws are what runs in parallel.
    """
    for name in ONE_THREAD:
        os.environ.setdefault(name, "1")
    from workflow.cli import main as run

    run()


if __name__ == "__main__":
    main()
