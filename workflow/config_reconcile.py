"""[reconcile] of plumb.toml: how a lift that the model has seen is treated, what moves credit, and priors."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from contracts.errors import ContractError
from reconcile.priors import PoolPriors
from workflow.config_base import Name, Section, Share


class Span(Section):
    """Days, both included, and the channels concerned (all where none are named)."""

    start: date
    end: date
    channels: list[Name] = []

    @model_validator(mode="after")
    def _order(self) -> Span:
        if self.end < self.start:
            raise ValueError(f"end ({self.end}) lies before start ({self.start}); swap them")
        return self


class Incident(Span):
    """A time in which touches were not recorded as usual."""

    note: str = ""


class MatchRate(Span):
    """Share of touches that could be tied to a person."""

    rate: Annotated[Share, Field(gt=0)]


class Reconcile(Section):
    """The pool's settings; `priors` overrides single entries of `v_pool_priors`."""

    lifts: Literal["pooled", "check", "cavity", "leave_one_out"] = "pooled"
    factor_valid_weeks: Annotated[int, Field(ge=1, le=104)] = 13
    incidents: list[Incident] = []
    match_rates: list[MatchRate] = []
    priors: dict[str, float] = {}

    @field_validator("priors")
    @classmethod
    def _known(cls, value: dict[str, float]) -> dict[str, float]:
        names = {str(row["name"]) for row in PoolPriors().table()}
        if unknown := sorted(set(value) - names):
            raise ValueError(f"{unknown[0]!r} is no prior of the pool; docs/reconcile.md lists them")
        try:
            PoolPriors(**value)
        except ContractError as error:
            raise ValueError(str(error).rstrip(".")) from None
        return value

    def pool_priors(self) -> PoolPriors:
        """Priors of the pool with what the workspace changed."""
        return PoolPriors(**self.priors)
