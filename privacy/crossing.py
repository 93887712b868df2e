"""What could carry a person's rows of one block into the release of another, and what is done about it.

A block's grant covers everything that one person does inside it, so a release may read a person's rows of other blocks
only when those blocks are charged too. Every look-back is therefore cut at the boundary, or every block that it can
touch pays. What is left are properties of the person and not of a block (consent, arm, identity): they are held fixed
between neighbours of one block and are covered by the figure of the year. Written into every release.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contracts.release import Measure

WEEKS = "a day belongs to the block that holds the first day of its week; blocks share no day and never change it"
COPIES = "an event told more than once is merged, or refused, among its copies of the same block only"
COHORT = "the cohort is the geo of the person's first event inside the block"
ORDER = "order and first touches are taken among the person's events of the block"

CUT: dict[Measure, tuple[str, ...]] = {
    "kpi": (WEEKS, COPIES, COHORT),
    "journeys": (
        WEEKS,
        COPIES,
        ORDER,
        "a journey begins with the first touch of its batch of weeks; touches before it are not read, and a conversion "
        "in a later batch does not end it",
    ),
    "trials": (COPIES, "only days of the window count, and those before it that are declared"),
    "diagnostics": (WEEKS, COPIES, COHORT, "what the bounds took is measured inside the block"),
    "media": (WEEKS, COPIES, COHORT),
    "levels": (WEEKS, COPIES, COHORT),
    "credit": (WEEKS, COPIES, ORDER, "the look-back window ends at the first day of the block"),
}
PERSON = (
    "consent is the person's latest statement of any time at the release, so a withdrawal reaches every later release",
    "the arm of an experiment, its stratum and day of entry, and the joined ids are properties of the person",
    "neighbours of one block agree on these; a change of them is covered by the figure of the year",
)


def crossing(
    measure: Measure, blocks: tuple[str, ...], design: Mapping[str, Any] | None = None
) -> dict[str, list[str]]:
    """What is cut at the boundary of a block, what is charged to several blocks, and what belongs to the person.

    `design`: what a trial declares (contracts/trials.py).
    """
    charged = []
    if measure == "trials":
        given = design or {}
        before = given.get("pre_days") or given.get("covariate_since")
        what = "the window with the days read before it" if before else "the window"
        one = f"{what} lies in one block, which is charged"
        many = f"{what} touches {len(blocks)} blocks, and each of them is charged in full"
        charged = [one if len(blocks) == 1 else many]
    return {"cut": list(CUT[measure]), "charged": charged, "person": list(PERSON)}
