"""`plumb.toml`: its sections, their defaults, and errors that name the key, the value and the fix."""

from __future__ import annotations

import tomllib
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from pydantic import Field, ValidationError, field_validator, model_validator

from contracts.calendar import WEEKDAYS, quarter_start
from contracts.errors import ConfigError
from contracts.panel import OTHER_GEO, UNATTRIBUTED
from contracts.trials import MAX_PRE_DAYS, METRICS, TrialDesign
from workflow.config_base import Name, Section, Share
from workflow.config_errors import sentence
from workflow.config_model import Channel, Model
from workflow.config_planning import Planning
from workflow.config_privacy import Privacy
from workflow.config_reconcile import Reconcile

CreditModel = Literal["last_touch", "first_touch", "linear", "position_based", "markov", "shapley", "shapley_rate"]
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
    geo: Name | Annotated[list[Name], Field(min_length=1)] | None = None  # several columns make one cell together
    kpi: Name = "kpi"
    kpi_variance: Name | None = None
    population: Name | None = None
    revenue_per_kpi: Name | None = None
    spend: Annotated[dict[str, Name], Field(min_length=1)]
    exposure: dict[str, Name] = {}
    reach: dict[str, Name] = {}  # people reached; with `frequency`, in place of `exposure`
    frequency: dict[str, Name] = {}  # mean exposures of a person reached
    organic: list[Name] = []
    controls: list[Name] = []
    treatments: dict[str, float | Literal["min", "max"]] = {}  # non-media treatment -> the value that counts as none

    @property
    def paths(self) -> list[str]:
        """`path` as a list."""
        return [self.path] if isinstance(self.path, str) else list(self.path)

    @model_validator(mode="after")
    def _exposed(self) -> PanelInput:
        extra = sorted(set(self.exposure) - set(self.spend))
        if extra:
            raise ValueError(f"exposure names {extra[0]!r}, which spend does not; add it to spend or to organic")
        lone = sorted(set(self.reach) ^ set(self.frequency))
        if lone:
            raise ValueError(f"{lone[0]!r} has one of reach and frequency; give both")
        for channel in self.reach:
            if channel not in self.spend or channel in self.exposure:
                raise ValueError(f"reach names {channel!r}, which must stand in spend and not in exposure")
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


class Covariate(Section):
    """A number from before the test in the assignments: the most of it that counts, and the first day it knows of."""

    bound: Annotated[float, Field(gt=0)]
    since: date


class ExperimentDesign(Section):
    """What the experimenter declared of a user-randomised test: arms, and what is to be measured (docs/trials.md)."""

    control_arm: Name = "control"
    arms: list[Name] = []
    split: dict[Name, Annotated[float, Field(gt=0)]] = {}  # planned share of each arm, for the sample-ratio test
    metrics: Annotated[list[Literal["visits", "conversions", "revenue"]], Field(min_length=1)] = [
        "visits", "conversions", "revenue",
    ]  # fmt: skip
    pre_days: Annotated[int, Field(ge=0, le=MAX_PRE_DAYS)] = 0
    covariate: Covariate | None = None
    exposed: Literal["impression", "click", "visit", "assignments"] | None = None
    ghost: bool = False
    ratio: list[Name] = []
    strata: list[Name] = []
    entry: bool = False
    looks: Annotated[int, Field(ge=0, le=104)] = 0
    headline: Literal["difference_in_means", "cuped", "stratified", "stratified_cuped"] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> ExperimentDesign:
        try:
            self.design()
        except ConfigError as error:
            raise ValueError(str(error).rstrip(".")) from None
        return self

    def design(self) -> TrialDesign:
        """As the privacy room and the lift room read it."""
        covariate = self.covariate
        return TrialDesign(
            metrics=tuple(m for m in METRICS if m in self.metrics),
            pre_days=self.pre_days,
            covariate=covariate.bound if covariate else 0.0,
            covariate_since=covariate.since if covariate else None,
            exposed=self.exposed or "",
            ghost=self.ghost,
            ratio=tuple(self.ratio),
            strata=tuple(self.strata),
            entry=self.entry,
            looks=self.looks,
            headline=self.headline or "",
        )


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


class SignIn(Section):
    """`[access]`: who may do what in the explorer. Values of one claim of the sign-in, by role; "*" is everybody."""

    claim: Name = "email"
    viewer: list[Name] = []
    analyst: list[Name] = []
    planner: list[Name] = []
    admin: list[Name] = []

    @model_validator(mode="after")
    def _somebody(self) -> SignIn:
        if not self.admin:
            raise ValueError("name at least one value of the claim in 'admin'")
        return self


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
    access: SignIn | None = None

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

    @model_validator(mode="after")
    def _quarters(self) -> Config:
        for correction in self.privacy.corrections:
            begins = quarter_start(correction.quarter, self.project.fiscal_year_start)
            if begins != correction.quarter:
                raise ValueError(
                    f"privacy.corrections: no fiscal quarter begins on {correction.quarter}; the one that holds "
                    f"this day begins on {begins}"
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
