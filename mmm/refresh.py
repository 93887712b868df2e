"""Yesterday's posterior as today's prior, and what changed between two fits.

The earlier fit must rest on periods that the new panel does not hold: a prior that has already seen the data would
count them twice. Priors are on ROI where revenue per KPI is known and on the share of the KPI otherwise, log-normal by
matching the mean and sd of the logs, and widened by `drift` because a channel does not stay what it was.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd

from contracts.errors import ContractError
from contracts.panel import Panel
from mmm.design import revenue_rate
from mmm.posterior import Posterior
from mmm.spec import ChannelSpec, EffectPrior, ModelSpec


@dataclass(frozen=True, slots=True)
class Earlier:
    """What an earlier fit said about each paid channel, enough to be a prior later."""

    first: date
    last: date  # last day of its panel
    priors: dict[str, EffectPrior]


def earlier(panel: Panel, posterior: Posterior) -> Earlier:
    """Summary of a fit: the log of each channel's ROI, or of its share of the KPI. Raises nothing."""
    rate = revenue_rate(panel)
    total = float(np.nanmean(panel.kpi, axis=1).sum() * len(panel.weeks))
    priors = {}
    for i, channel in enumerate(posterior.channels):
        if channel not in panel.channels:
            continue
        spend = float(panel.spend[:, :, panel.channels.index(channel)].sum())
        known = rate is not None and rate > 0 and spend > 0
        quantity = posterior.flat("theta")[:, i] * (rate / spend if known and rate is not None else 1 / total)
        log = np.log(quantity)
        priors[channel] = EffectPrior("roi" if known else "contribution", float(log.mean()), float(log.std()))
    return Earlier(panel.weeks[0], panel.weeks[-1] + timedelta(days=panel.period_days - 1), priors)


def with_earlier(spec: ModelSpec, before: Earlier, panel: Panel, drift: float = 0.2) -> ModelSpec:
    """The specification with the earlier fit's priors, log-scale sd widened by `drift`; declared priors stay.

    Raises ContractError where the earlier fit saw periods that this panel holds too.
    """
    if before.last >= panel.weeks[0]:
        raise ContractError(
            f"the earlier fit saw data up to {before.last} and this panel begins on {panel.weeks[0]}: its posterior "
            "would count the shared periods twice. Begin the panel after that day."
        )
    channels = dict(spec.channels)
    for name, prior in before.priors.items():
        own = channels.get(name, ChannelSpec())
        if name in panel.channels and own.prior is None:
            wider = EffectPrior(prior.kind, prior.location, float(np.hypot(prior.scale, drift)))
            channels[name] = dataclasses.replace(own, prior=wider)
    return dataclasses.replace(spec, channels=channels)


def what_changed(before: Earlier, after: Earlier) -> pd.DataFrame:
    """One row a channel of both fits: medians, the change in sd of their difference, and why it may have moved.

    `change` is (after − before) / sqrt(sd² + sd²) of the logs; `reason` is one sentence.
    """
    rows = []
    for name in sorted(before.priors.keys() & after.priors.keys()):
        old, new = before.priors[name], after.priors[name]
        if old.kind != new.kind:
            reason, change = "the revenue of a KPI unit is known in one fit only; the two cannot be compared", np.nan
        else:
            change = (new.location - old.location) / np.hypot(old.scale, new.scale)
            reason = _reason(float(change), old.scale, new.scale)
        rows.append({"channel": name, "quantity": new.kind, "before": np.exp(old.location),
                     "after": np.exp(new.location), "change": change, "reason": reason})  # fmt: skip
    columns = ["channel", "quantity", "before", "after", "change", "reason"]
    return pd.DataFrame(rows, columns=columns)


def _reason(change: float, before_sd: float, after_sd: float) -> str:
    if abs(change) > 2:
        return "moved by more than both fits' uncertainty: look for a new creative, price, audience or a data fault"
    if after_sd < 0.8 * before_sd:
        return "within both fits' uncertainty; the new data narrowed it"
    if after_sd > 1.25 * before_sd:
        return "within both fits' uncertainty; the new data are less telling than the old ones"
    return "within both fits' uncertainty"
