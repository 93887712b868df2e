"""What the room is asked to read and to answer. All of it is declared in public; nothing comes from people's rows.

| on paper | here | unit |
|---|---|---|
| b | blocks | fiscal quarters, the privacy blocks |
| g | geos, plus 'other' | cohorts |
| c | channels | declared order fixes the order of channel sets |
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

from contracts.calendar import Block, week_of
from contracts.checks import positive, share
from contracts.errors import ContractError
from contracts.evidence import Experiment
from contracts.panel import OTHER_GEO
from contracts.trials import TrialDesign

RESERVED_CHANNELS = ("", "start", "conversion", "null")  # names of states in the journeys table
MAX_RATE = 1e6  # keeps money inside 64-bit integers, see privacy.contract


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same value on every row."""

    value: str


@dataclass(frozen=True, slots=True)
class HashOf:
    """SHA-256 over several columns; absent where all of them are."""

    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.columns:
            raise ContractError("a hash mapping must name at least one column; got none.")


@dataclass(frozen=True, slots=True)
class FileSet:
    """Files, folders or globs of one input, and how their columns are called: ours -> theirs.

    A column that is not mapped keeps its name.
    """

    paths: tuple[Path, ...]
    columns: Mapping[str, str | Fixed | HashOf] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PeopleInputs:
    """The only inputs that hold rows about people. Raises ContractError on an unusable setting."""

    events: FileSet
    assignments: FileSet | None
    consent_assumed: bool
    conversion_is_touch: bool
    time_zone: str  # IANA name; naive times are in this zone and weeks are cut in it
    currency: str
    rates: Mapping[str, float]  # units of `currency` per unit of the named currency
    max_rejected: float = 0.01  # share of malformed rows above which a load stops
    identity: FileSet | None = None  # device -> person
    identity_change: Literal["refuse", "accept"] = "refuse"  # of a map that differs from an earlier one of the block
    not_identifiers: frozenset[str] = frozenset()  # columns declared not to identify anybody, see privacy.identifiers

    def __post_init__(self) -> None:
        share(max_rejected=self.max_rejected)
        if self.time_zone not in zoneinfo.available_timezones():
            raise ContractError(f"time_zone must be an IANA name such as 'Europe/Berlin'; got {self.time_zone!r}.")
        for code, rate in self.rates.items():
            positive(**{f"rates.{code}": rate})
            if not 1e-9 <= rate <= MAX_RATE:
                raise ContractError(f"rates.{code} must lie between 1e-9 and {MAX_RATE:g}; got {rate}.")

    def declared(self) -> dict[str, object]:
        """Settings that change what a released number means; they are written into every release."""
        return {
            "time_zone": self.time_zone,
            "currency": self.currency,
            "conversion_is_touch": self.conversion_is_touch,
            "consent": "assumed" if self.consent_assumed else "column",
        }


@dataclass(frozen=True, slots=True)
class Question:
    """The public question: calendar, cohorts, channels and user-randomised experiments.

    `arms` names all arms of each user test, its control arm included; `designs` what is measured of it where that is
    not the default; `running` holds the complete weeks of quarters that are still open, which only looks at running
    tests may read. Raises ContractError on any misfit.
    """

    blocks: tuple[Block, ...]
    week_start: str
    geos: tuple[str, ...]
    channels: tuple[str, ...]
    experiments: tuple[Experiment, ...] = ()
    arms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    designs: Mapping[str, TrialDesign] = field(default_factory=dict)
    running: tuple[Block, ...] = ()

    def __post_init__(self) -> None:
        for name in ("geos", "channels"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ContractError(f"{name} must be unique; got {', '.join(values)}.")
        if not self.geos:
            raise ContractError("at least one geo must be declared; found none in spend, controls or plumb.toml.")
        for channel in self.channels:
            if channel in RESERVED_CHANNELS or "+" in channel:
                raise ContractError(f"a channel may not be called {channel!r}, nor hold '+'; rename it.")
        self._check_blocks()
        self._check_experiments()

    def _check_blocks(self) -> None:
        days = [week for block in self.calendar for week in block.weeks]
        if days != sorted(set(days)):
            raise ContractError("blocks must be in time order and may not share a week.")
        for block in self.calendar:
            if not block.weeks:
                raise ContractError(f"block {block.id} holds no week.")
        for week in days:
            if week_of(week, self.week_start) != week:
                raise ContractError(f"week {week} does not start on a {self.week_start}.")

    def _check_experiments(self) -> None:
        names = [e.name for e in self.experiments]
        if len(set(names)) != len(names):
            raise ContractError(f"experiments must have different names; got {', '.join(names)}.")
        for e in self.experiments:
            if e.kind != "user":
                raise ContractError(
                    f"experiment {e.name!r} is a {e.kind} test; only user tests are released as trials."
                )
            arms = self.arms.get(e.name, ())
            if len(set(arms)) != len(arms) or len(arms) < 2:
                raise ContractError(
                    f"experiment {e.name!r} must declare at least two different arms; got {', '.join(arms) or 'none'}. "
                    f'Add [experiments.{e.name}] arms = ["control", ...] to plumb.toml.'
                )
            if e.control_arm not in arms:
                raise ContractError(
                    f"the arms of experiment {e.name!r} must hold its control arm {e.control_arm!r}; "
                    f"got {', '.join(arms)}."
                )
            weeks = ((e.end - e.start).days + 1) // 7
            if self.design(e).looks > weeks:
                raise ContractError(
                    f"experiments.{e.name}.looks is {self.design(e).looks}, and the test has {weeks} whole weeks; "
                    "declare at most one look a week."
                )

    def design(self, experiment: Experiment) -> TrialDesign:
        """What is measured of a user test."""
        return self.designs.get(experiment.name, TrialDesign())

    @property
    def cohorts(self) -> tuple[str, ...]:
        """Declared geos, then 'other'."""
        return tuple(g for g in self.geos if g != OTHER_GEO) + (OTHER_GEO,)

    def first_day(self, experiment: Experiment) -> date:
        """First day of which a user test reads anything: its start, or that of what it reads from before."""
        return self.design(experiment).first_day(experiment.start)

    @property
    def calendar(self) -> tuple[Block, ...]:
        """Blocks to release, then open ones of which only looks are."""
        return (*self.blocks, *self.running)

    def touched(self, first: date, last: date) -> tuple[Block, ...]:
        """Blocks whose weeks overlap the days."""
        return tuple(b for b in self.calendar if b.first_day <= last and first <= b.last_day)

    def covers(self, first: date, last: date, *, running: bool = False) -> bool:
        """True when every one of the days lies in a week of some block, so that they can be released."""
        weeks = {w for b in (self.calendar if running else self.blocks) for w in b.weeks}
        days = (first + timedelta(days=i) for i in range((last - first).days + 1))
        return all(week_of(day, self.week_start) in weeks for day in days)
