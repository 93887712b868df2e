"""Small validators whose keyword is the name in the message: `positive(std_error=x)`."""

from __future__ import annotations

import math

from contracts.errors import ContractError


def positive(**named: float) -> None:
    """Raises ContractError unless every value is finite and > 0."""
    for name, value in named.items():
        if not (value > 0 and math.isfinite(value)):
            raise ContractError(f"{name} must be a finite number > 0; got {value}.")


def non_negative(**named: float) -> None:
    """Raises ContractError unless every value is finite and >= 0."""
    for name, value in named.items():
        if not (value >= 0 and math.isfinite(value)):
            raise ContractError(f"{name} must be a finite number >= 0; got {value}.")


def share(**named: float) -> None:
    """Raises ContractError unless every value lies in [0, 1]."""
    for name, value in named.items():
        if not 0 <= value <= 1:
            raise ContractError(f"{name} must lie between 0 and 1; got {value}.")


def finite(**named: float) -> None:
    """Raises ContractError unless every value is finite."""
    for name, value in named.items():
        if not math.isfinite(value):
            raise ContractError(f"{name} must be a finite number; got {value}.")
