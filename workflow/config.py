"""`plumb.toml`: its sections, their defaults, and errors that name the key, the value and the fix."""

from __future__ import annotations

import tomllib
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from pydantic import Field, ValidationError, field_validator, model_validator

from contracts.calendar import WEEKDAYS
from contracts.errors import ConfigError
from contracts.panel import OTHER_GEO, UNATTRIBUTED
from workflow.config_base import Name, Section, Share
from workflow.config_errors import sentence
from workflow.config_privacy import Privacy
from workflow.config_reconcile import Reconcile

CreditModel = Literal["last_touch", "first_touch", "linear", "position_based", "markov", "shapley", "shapley_rate"]
Family = Literal["prospecting", "retargeting", "brand_search", "affiliate", "email", "offline", "other"]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
RESERVED_GEOS = (OTHER_GEO,)


class FixedColumn(Section):
    """A column that is the same on every row: `currency = { value = "USD" }`."""

    value: str | bool | int | float


class HashedColumn(Section):
    """A column made from others: `event_id = { hash = ["customer", "time"] }`."""

    hash: Annotated[list[Name], Field(min_length=1)]


ColumnMap = dict[str, str | FixedColumn | HashedColumn]


class Project(Section):
    """What is measured, in which money and on which calendar."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{4,64}$")]
    name: Name = "Plumbline project"
    kpi: Literal["conversions", "revenue"] = "conversions"
    currency: Currency = "USD"
    time_zone: str = "UTC"
    week_start: str = "monday"
    fiscal_year_start: Annotated[int, Field(ge=1, le=12)] = 1
    calendar_start: date | None = None
    calendar_end: date | None = None
    geos: list[Name] = []

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError("use an IANA time zone such as 'UTC' or 'Europe/Paris'")
        return value

    @field_validator("week_start")
    @classmethod
    def _weekday(cls, value: str) -> str:
        if value not in WEEKDAYS:
            raise ValueError(f"use one of {', '.join(WEEKDAYS)}")
        return value

    @field_validator("geos")
    @classmethod
    def _geos(cls, value: list[str]) -> list[str]:
        for geo in value:
            if geo in RESERVED_GEOS:
                raise ValueError(f"{geo!r} is the name of everything undeclared; rename or leave out that geo")
        if len(set(value)) != len(value):
            raise ValueError("list every geo once")
        return value

    @model_validator(mode="after")
    def _calendar(self) -> Project:
        if self.calendar_start and self.calendar_end and self.calendar_end < self.calendar_start:
            raise ValueError("calendar_end lies before calendar_start; swap them")
        return self


class TableInput(Section):
    """One public input table: files, folders or globs, and how its columns are called there."""

    path: Name | list[Name]
    columns: ColumnMap = {}

    @property
    def paths(self) -> list[str]:
        """`path` as a list."""
        return [self.path] if isinstance(self.path, str) else list(self.path)


class EventsInput(TableInput):
    """The events of people; opened by `plumb check` and `plumb release` only."""

    conversion_is_touch: bool = False
    consent: Literal["column", "assumed"] = "column"


class PanelInput(Section):
    """The aggregate-only door: one wide table."""

    path: Name | list[Name]
    date: Name = "date"
    geo: Name | None = None
    kpi: Name = "kpi"
    kpi_variance: Name | None = None
    population: Name | None = None
    revenue_per_kpi: Name | None = None
    spend: Annotated[dict[str, Name], Field(min_length=1)]
    exposure: dict[str, Name] = {}
    organic: list[Name] = []
    controls: list[Name] = []

    @property
    def paths(self) -> list[str]:
        """`path` as a list."""
        return [self.path] if isinstance(self.path, str) else list(self.path)

    @model_validator(mode="after")
    def _exposed(self) -> PanelInput:
        extra = sorted(set(self.exposure) - set(self.spend))
        if extra:
            raise ValueError(f"exposure names {extra[0]!r}, which spend does not; add it to spend or to organic")
        return self


class ClaimsInput(TableInput):
    """What platforms claim for themselves; `channels` says which declared channel their names are, "" for none."""

    channels: dict[str, str] = {}


class Inputs(Section):
    """Where the input tables lie."""

    max_rejected: Share = 0.01
    events: EventsInput | None = None
    spend: TableInput | None = None
    controls: TableInput | None = None
    assignments: TableInput | None = None
    identity: TableInput | None = None  # device -> person
    not_identifiers: list[Name] = []  # columns of people's files that look like identifiers and are none
    experiments: TableInput | None = None
    platform_claims: ClaimsInput | None = None
    billing: TableInput | None = None
    panel: PanelInput | None = None


class Channel(Section):
    """A paid channel: its family, and what is believed about its return before looking (optional)."""

    family: Family = "other"
    roi_mean: Annotated[float, Field(gt=0)] | None = None
    roi_sd: Annotated[float, Field(gt=0)] | None = None


class ExperimentDesign(Section):
    """What the experimenter declared: the reference arm and all arms of a user-randomised test."""

    control_arm: Name = "control"
    arms: list[Name] = []
    split: dict[Name, Annotated[float, Field(gt=0)]] = {}  # planned share of each arm, for the sample-ratio test


class Model(Section):
    """Sampling of the two posteriors."""

    seed: int = 1
    chains: Annotated[int, Field(ge=1, le=16)] = 4
    warmup: Annotated[int, Field(ge=50)] = 100
    draws: Annotated[int, Field(ge=50)] = 750
    doublings: Annotated[int, Field(ge=0, le=5)] = 3


class PositionBased(Section):
    """Relative weights of the first touch, of all between together, and of the last one."""

    first: Share = 0.4
    middle: Share = 0.2
    last: Share = 0.4


class Attribution(Section):
    """Credit models that are worked out from the released journeys; rules of [privacy.credit] come beside them."""

    models: Annotated[list[CreditModel], Field(min_length=1)] = [
        "last_touch", "first_touch", "linear", "position_based", "markov", "shapley",
    ]  # fmt: skip
    position_based: PositionBased = PositionBased()

    @field_validator("models")
    @classmethod
    def _once(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value):
            raise ValueError("list every model once")
        return value


class Planning(Section):
    """Defaults of `plumb plan`; `budget` is currency per week over all geos and channels, today's spend if absent."""

    budget: Annotated[float, Field(gt=0)] | None = None
    max_change: Annotated[float, Field(gt=0)] = 0.3
    horizon_weeks: Annotated[int, Field(ge=1, le=104)] = 13


class Config(Section):
    """The whole of plumb.toml."""

    project: Project
    rates: dict[Currency, Annotated[float, Field(gt=0)]] = {}
    inputs: Inputs
    privacy: Privacy = Privacy()
    channels: dict[str, Channel] = {}
    experiments: dict[str, ExperimentDesign] = {}
    model: Model = Model()
    attribution: Attribution = Attribution()
    reconcile: Reconcile = Reconcile()
    planning: Planning = Planning()

    @field_validator("channels")
    @classmethod
    def _channels(cls, value: dict[str, Channel]) -> dict[str, Channel]:
        if UNATTRIBUTED in value:
            raise ValueError(f"{UNATTRIBUTED!r} is the name of credit without a channel; rename that channel")
        return value

    @model_validator(mode="after")
    def _one_door(self) -> Config:
        if self.inputs.panel is not None and self.inputs.events is not None:
            raise ValueError("both [inputs.panel] and [inputs.events] are given; keep one of them")
        if self.inputs.panel is None and self.inputs.events is None:
            raise ValueError("neither [inputs.events] nor [inputs.panel] is given; name one of them")
        for name in ("platform_claims", "billing"):
            if self.inputs.panel is not None and getattr(self.inputs, name) is not None:
                raise ValueError(
                    f"[inputs.{name}] is compared with released credit, which a panel has none of; remove it"
                )
        return self

    def part(self, *sections: str) -> dict[str, Any]:
        """JSON-ready values of some sections: what a step's key depends on."""
        dumped = self.model_dump(mode="json")
        return {name: dumped[name] for name in sections}

    def families(self) -> dict[str, str]:
        """Family of each declared channel."""
        return {name: channel.family for name, channel in self.channels.items()}


def load(path: Path) -> Config:
    """Reads and checks plumb.toml. Raises ConfigError with one sentence for the first fault found."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} is not valid TOML: {error}. Mend that line.") from None
    return parse(raw, path.name)


def parse(raw: dict[str, Any], where: str = "plumb.toml") -> Config:
    """Checks an already parsed file. Raises ConfigError."""
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(sentence(where, Config, error.errors())) from None
