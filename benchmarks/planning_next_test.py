"""Processor time of the next-test ranking: 12 candidates, 1,000 draws, 200 plans, 12 channels; value and its bound.

python -m benchmarks.planning_next_test
"""

from __future__ import annotations

import time

import numpy as np

from planning.next_test import sample_information


def main() -> None:
    """Times 12 candidates of rising standard error and prints value, error, bound and effective draws."""
    rng = np.random.default_rng(0)
    theta = rng.standard_normal((1000, 12))
    worth = np.concatenate([np.zeros((1000, 1)), theta @ rng.standard_normal((12, 199)) * 0.3], axis=1)
    begun, rows = time.process_time(), []
    for k in range(12):
        rows.append((0.25 * 1.4**k, sample_information(worth, theta[:, k], 0.25 * 1.4**k)))
    print(f"12 candidates: {time.process_time() - begun:.2f} s of one processor")
    for error, found in rows:
        print(f"se {error:6.2f} sd: value {found.value:.3f} ± {found.std_error:.3f} of {found.perfect:.3f}, "
              f"{found.ess:.0f} effective draws, plan changed in {found.share_changed:.0%}")  # fmt: skip


if __name__ == "__main__":
    main()
