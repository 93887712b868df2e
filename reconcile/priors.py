"""Everything that the pool believes before it has read a figure, with what each number means.

All of it may be changed under `[reconcile.priors]` in plumb.toml; `table` is what `v_pool_priors` shows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from contracts.checks import positive
from contracts.errors import ContractError

LOG = "log"
SHARE = "share"


def _prior(default: float, unit: str, meaning: str) -> float:
    return field(default=default, metadata={"unit": unit, "meaning": meaning})


@dataclass(frozen=True, slots=True)
class PoolPriors:
    """Priors of DESIGN section 5; scales are on the log scale unless the unit says otherwise."""

    mmm_bias_sd: float = _prior(0.15, LOG, "scale of the Student-t bias of the model's total, per channel")
    mmm_profile_sd: float = _prior(0.15, LOG, "sd by which the model's split over periods may be wrong, per cell")
    lift_bias_sd: float = _prior(0.1, SHARE, "share of the effect by which a test may miss the effect of its period")
    lift_scope_sd: float = _prior(0.1, SHARE, "more of it for a test of a small part of the spend: x sqrt(1 - part)")
    drift_sd: float = _prior(0.2, LOG, "drift per year of a test that ended before the period or began after it")
    family_log_sd: float = _prior(1.5, LOG, "sd of a family's return on spend around the average return")
    within_family_sd: float = _prior(0.6, LOG, "sd of a channel's return around its family's")
    saturation_centre: float = _prior(-1.0, "logit", "centre of logit(-kappa): kappa -0.27; kappa lies in (-1, 0)")
    saturation_sd: float = _prior(1.0, "logit", "sd of logit(-kappa) between channels")
    walk_sd: float = _prior(0.06, LOG, "step of the walk of effectiveness from period to period")
    group_level_sd: float = _prior(3.0, LOG, "level that credit models of one source share: credit tells no level")
    model_bias_sd: float = _prior(2.0, LOG, "level of one credit model beside its source's")
    family_bias_sd: float = _prior(0.5, LOG, "credit bias of a channel family, shared by the models of one source")
    channel_bias_scale: float = _prior(0.5, LOG, "HalfNormal scale of the spread of Student-t channel biases of credit")
    channel_bias_min: float = _prior(0.1, LOG, "smallest such spread: credit is never a fixed multiple of cause")
    rule_spread_scale: float = _prior(
        0.5, LOG, "HalfNormal scale of what tells models of one source apart, per channel"
    )
    rule_spread_min: float = _prior(0.02, LOG, "smallest such spread")
    shock_scale: float = _prior(0.1, LOG, "HalfNormal scale of what moves all credit of a channel in one period")
    shock_min: float = _prior(0.02, LOG, "smallest such movement")
    own_shock_scale: float = _prior(0.1, LOG, "HalfNormal scale of what moves one model's credit in one cell")
    own_shock_min: float = _prior(0.01, LOG, "smallest such movement")
    spend_slope_sd: float = _prior(0.3, "log per log", "slope of a source's credit bias in the channel's spend")
    own_slope_sd: float = _prior(0.1, "log per log", "slope of one credit model beside its source's")
    covariate_sd: float = _prior(
        0.5, "log per unit", "effect of consent rate, match rate and tracking incidents on credit"
    )
    dof: float = _prior(4.0, "", "degrees of freedom of every Student-t; a lift takes its own where that is smaller")
    share_median: float = _prior(0.05, SHARE, "of the KPI, for a channel that the model does not hold")
    share_log_sd: float = _prior(1.5, LOG, "sd around it")
    secant_log_sd: float = _prior(0.3, LOG, "doubt about the spend curve where no model predicts a test")
    closure_softness: float = _prior(0.002, SHARE, "of the KPI, over which the closure bound is smooth")

    def __post_init__(self) -> None:
        positive(**{f.name: getattr(self, f.name) for f in fields(self) if f.name != "saturation_centre"})
        if self.dof <= 2:
            raise ContractError(f"dof must be > 2 so that biases have a variance; got {self.dof}.")

    def table(self) -> list[dict[str, object]]:
        """Rows name, value, unit, meaning, changed (from the default)."""
        return [
            {"name": f.name, "value": float(getattr(self, f.name)), "unit": f.metadata["unit"],
             "meaning": f.metadata["meaning"], "changed": getattr(self, f.name) != f.default}
            for f in fields(self)
        ]  # fmt: skip
